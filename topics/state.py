"""The state of a stage as its code sees it: logical tables, read and changed through a `View`, in memory until written.

A logical table is a key prefix in the one physical table of its stage (tables/store.py). A `View` is one partition for the
time of one write: layers of changes over a database, so that what a record changed is seen at once by the records behind
it and is taken back when the record fails.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

V = TypeVar("V")

MAX_NUMBER = 31  # keys of the store itself begin with a zero byte, Faust's with an underscore
EXPIRY_BUCKET_MS = 60_000  # expiry is kept to the minute, four bytes in front of the value


class Database(Protocol):
    """What a `View` needs below it: a RocksDB (tables/store.py), or a dictionary (`Memory`)."""

    def get(self, key: bytes) -> bytes | None: ...
    def items(self, first: bytes, limit: int) -> Sequence[tuple[bytes, bytes]]:
        """Up to `limit` entries from key `first` on, in the order of keys."""


@dataclass(frozen=True, eq=False)
class Table(Generic[V]):
    """A logical table. `number` (1 to 31) is its key prefix, for life; values are replaced, never changed in place.

    `expires`: every value is put with a time after which it is not there any more; the store deletes it some time later.
    `cached`: values stay decoded in memory; False where they are large, or seldom read again.
    """

    number: int
    name: str
    encode: Callable[[V], bytes]
    decode: Callable[[bytes], V]
    expires: bool = False
    cached: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.number <= MAX_NUMBER:
            raise ValueError(f"table {self.name}: number {self.number} is not in 1..{MAX_NUMBER}")


def expiry_bucket(at_ms: int) -> int:
    """The first bucket that begins at `at_ms` or later: an entry never goes early."""
    return -(-at_ms // EXPIRY_BUCKET_MS)


def is_expired(raw: bytes, now_ms: int) -> bool:
    """Whether an encoded value of a table with `expires` is past its time."""
    return int.from_bytes(raw[:4], "big") * EXPIRY_BUCKET_MS <= now_ms


class Memory:
    """A `Database` in memory, for tests of stages."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self._keys: list[bytes] = []

    def get(self, key: bytes) -> bytes | None:
        return self.values.get(key)

    def items(self, first: bytes, limit: int) -> Sequence[tuple[bytes, bytes]]:
        start = bisect_left(self._keys, first)
        return [(key, self.values[key]) for key in self._keys[start : start + limit]]

    def write(self, entries: Mapping[bytes, bytes | None]) -> None:
        for key, value in entries.items():
            if value is None:
                if self.values.pop(key, None) is not None:
                    del self._keys[bisect_left(self._keys, key)]
            else:
                if key not in self.values:
                    insort(self._keys, key)
                self.values[key] = value


class View:
    """One partition for the time of one write: `state.<table>.get/put/delete/scan`.

    Beside the tables a handler finds here: `now` (ms), `record` (the Kafka record in work), `services` (what the process
    gave the stage: settings, tenants, resolver, ...), `found` (what `prepare` has put there) and `trace` (a topics.trace.Span where the record
    is traced). In an effect stage also
    `in_doubt`: how many effects earlier owners of the partition had begun and left without a result, when it was taken over; 0 after a
    clean hand-over, None where nobody knows.
    """

    now: int = 0
    in_doubt: int | None = None
    record: Any = None
    services: Any = None
    trace: Any = None
    found: dict[Any, Any]

    def __init__(
        self, tables: Mapping[int, Table[Any]], database: Database, cache: dict[bytes, Any], partition: int = 0
    ):
        self.partition = partition
        self.found = {}
        self._tables, self._database, self._cache = tables, database, cache
        self._batch: dict[bytes, Any] = {}
        self._record: dict[bytes, Any] = {}

    def __getattr__(self, name: str) -> Part[Any]:
        """A table at its first use: an effect has a view of its own, and most use few of the tables."""
        for table in self.__dict__.get("_tables", {}).values():
            if table.name == name:
                part = self.__dict__[name] = Part(self, table)
                return part
        raise AttributeError(f"no table {name!r} in this stage: name it in Stage(tables=[...])")

    def begin(self) -> None:
        """What was changed since the last `keep` is gone."""
        if self._record:
            self._record = {}

    def keep(self) -> None:
        """The record is done: its changes belong to the write."""
        if self._record:
            self._batch.update(self._record)
            self._record = {}

    def changes(self) -> dict[bytes, bytes | None]:
        """Changes of the present record, encoded; None deletes."""
        return self._encode(self._record)

    def entries(self) -> dict[bytes, bytes | None]:
        """Changes of all records that were kept, encoded."""
        return self._encode(self._batch)

    def written(self) -> None:
        """The write is durable: the cache may show it."""
        self._cache.update(self._batch)
        if uncached := [number for number, table in self._tables.items() if not table.cached]:
            for key in self._batch:
                if key[0] in uncached:
                    del self._cache[key]
        self._batch = {}

    def remove(self, keys: Sequence[bytes]) -> None:
        """Delete entries by their whole keys, whatever table they are of: for the store's own sweep."""
        self._record.update(dict.fromkeys(keys))

    def _encode(self, changes: dict[bytes, Any]) -> dict[bytes, bytes | None]:
        return {key: None if value is None else self._encode_value(key, value) for key, value in changes.items()}

    def _encode_value(self, key: bytes, value: Any) -> bytes:
        table = self._tables[key[0]]
        if table.expires:
            kept, until = value
            return expiry_bucket(until).to_bytes(4, "big") + table.encode(kept)
        return table.encode(value)

    def _load(self, key: bytes, table: Table[Any]) -> Any:
        """What the database has: the value, a pair (value, expires at ms) for a table with expiry, or None."""
        value = self._decode(self._database.get(key), table)
        if table.cached:
            self._cache[key] = value
        return value

    @staticmethod
    def _decode(raw: bytes | None, table: Table[Any]) -> Any:
        if raw is None:
            return None
        if table.expires:
            return table.decode(raw[4:]), int.from_bytes(raw[:4], "big") * EXPIRY_BUCKET_MS
        return table.decode(raw)

    def _scan(self, prefix: bytes, first: bytes, limit: int, table: Table[Any]) -> Iterator[tuple[bytes, Any]]:
        changed = {**self._batch, **self._record}
        ahead = sorted(key for key in changed if key.startswith(prefix) and key >= first)
        found = {
            key: self._decode(raw, table)
            for key, raw in self._database.items(first, limit + len(ahead))
            if key.startswith(prefix)
        }
        for key in sorted({*found, *ahead}):
            value = changed[key] if key in changed else found[key]
            if value is not None and not (table.expires and value[1] <= self.now):
                yield key, value[0] if table.expires else value


class Part(Generic[V]):
    """One logical table in a view. Keys are text (UTF-8) or bytes."""

    __slots__ = ("_prefix", "_table", "_view")

    def __init__(self, view: View, table: Table[V]):
        self._view, self._table, self._prefix = view, table, bytes((table.number,))

    def _key(self, key: str | bytes) -> bytes:
        return self._prefix + (key.encode() if isinstance(key, str) else key)

    def get(self, key: str | bytes) -> V | None:
        """The value, or None when there is none or its time is over."""
        view, table = self._view, self._table
        whole = self._prefix + (key.encode() if isinstance(key, str) else key)  # `_key`, without the call
        value: Any
        if whole in view._record:
            value = view._record[whole]
        elif whole in view._batch:
            value = view._batch[whole]
        elif whole in view._cache:
            value = view._cache[whole]
        else:
            value = view._load(whole, table)
        if value is not None and table.expires:
            value, until = value
            if until <= view.now:
                return None
        found: V | None = value
        return found

    def put(self, key: str | bytes, value: V, expires_at: int | None = None) -> None:
        """Set a value. `expires_at` (ms) is needed where the table expires, and has no place elsewhere."""
        expires = self._table.expires
        if expires != (expires_at is not None):
            raise ValueError(f"table {self._table.name}: expires_at is {'needed' if expires else 'not kept'}")
        whole = self._prefix + (key.encode() if isinstance(key, str) else key)  # the same
        self._view._record[whole] = (value, expires_at) if expires else value

    def delete(self, key: str | bytes) -> None:
        self._view._record[self._key(key)] = None

    def scan(self, first: str | bytes = b"", limit: int = 1000) -> list[tuple[bytes, V]]:
        """Up to `limit` entries (key, value) from key `first` on, in the order of keys."""
        found = list(self._view._scan(self._prefix, self._key(first), limit, self._table))[:limit]
        return [(key[1:], value) for key, value in found]
