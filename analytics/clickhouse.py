"""One small boundary, `Warehouse`, in front of two engines that speak the same SQL.

    connect("clickhouse://user:password@host:9000/database")   a server, native protocol (clickhouses:// with TLS, port 9440)
    connect("chdb:///path/to/folder"), connect("path/to/folder")   chdb inside this process, database `postroad`
    connect("http://127.0.0.1:8123")   a local engine that another process holds; queries only (analytics/http.py)

Everything here blocks: call it from a thread. A warehouse may be used from several threads; each call has a connection
of its own while it lasts.

    WarehouseError            the engine refused, failed or could not be reached; after an insert its outcome is unknown
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

import clickhouse_driver.errors

from analytics import native
from analytics.native_client import Client
from analytics.sql import Rows, bind, read_json_compact

DATABASE = "postroad"
# Two looks, so that an INSERT whose bytes had reached the server but which had not begun is seen by the second.
_SECOND_LOOK_S = 0.1
Columns = Mapping[str, native.Column]
T = TypeVar("T")


class WarehouseError(Exception):
    """The engine refused, failed or could not be reached. After an insert: unknown whether its rows are there."""


class Warehouse(Protocol):
    """What sink, migrations and queries need of ClickHouse."""

    @property
    def database(self) -> str: ...

    def query(self, sql: str, params: Mapping[str, Any] | None = None) -> Rows:
        """The answer of one SELECT; `{name:Type}` in it is bound to `params`."""

    def command(self, sql: str, params: Mapping[str, Any] | None = None) -> None:
        """Run one statement that has no answer."""

    def insert(self, table: str, columns: Columns, query_id: str | None = None) -> None:
        """Append rows, given by column (all of one length). Times are seconds since 1970."""

    def quiesce(self, prefix: str, timeout_s: float = 60.0) -> None:
        """Wait until no query runs any more that runs now and whose id begins with `prefix`: an INSERT outlives its
        client. Later ones are not waited for, so a busy fellow of the same group does not hold us up."""

    def create_database(self) -> None:
        """Create the database if it is not there."""

    def close(self) -> None: ...


class _Pool(Generic[T]):
    """Connections that are free, newest first. One whose call failed is closed and not used again."""

    def __init__(self, make: Callable[[], T], close: Callable[[T], None]) -> None:
        self._make, self._close, self._free, self._lock, self._closed = make, close, list[T](), threading.Lock(), False

    @contextlib.contextmanager
    def take(self) -> Iterator[T]:
        with self._lock:
            if self._closed:
                raise WarehouseError("this warehouse has been closed")
            connection = self._free.pop() if self._free else None
        if connection is None:
            connection = self._make()
        try:
            yield connection
        except BaseException:
            self._close(connection)
            raise
        with self._lock:
            if not self._closed:
                self._free.append(connection)
                return
        self._close(connection)

    def close(self) -> None:
        """Close what is free now, and the others when their call ends."""
        with self._lock:
            self._closed, free, self._free = True, self._free, []
        for connection in free:
            self._close(connection)


class ServerWarehouse:
    """A ClickHouse server over the native protocol (clickhouse-driver), from 18.16 on."""

    def __init__(self, url: SplitResult, database: str) -> None:
        self.database = unquote(url.path.strip("/")) or database
        self.address = f"{url.hostname or '127.0.0.1'}:{url.port or (9440 if url.scheme == 'clickhouses' else 9000)}"
        self._url = url
        self._pool = _Pool(self.client, _disconnect)

    def client(self, database: str | None = None) -> Client:
        """A connection of its own, for the caller to close; `database`: another one than ours."""
        host, port = self.address.rsplit(":", 1)
        return Client(
            host, int(port), database or self.database, unquote(self._url.username or "default"),
            unquote(self._url.password or ""), "postroad", connect_timeout=5, send_receive_timeout=120,
            secure=self._url.scheme == "clickhouses",
        )  # fmt: skip

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (clickhouse_driver.errors.Error, OSError, EOFError) as error:
            raise WarehouseError(
                f"ClickHouse at {self.address}: {str(error).split('Stack trace:')[0].strip()}"
            ) from error

    def query(self, sql: str, params: Mapping[str, Any] | None = None) -> Rows:
        text = bind(sql, params)
        with self._errors(), self._pool.take() as client:
            rows, columns = client.execute(text, with_column_types=True)
        return Rows([name for name, _ in columns], [tuple(row) for row in rows], [kind for _, kind in columns])

    def command(self, sql: str, params: Mapping[str, Any] | None = None) -> None:
        text = bind(sql, params)
        with self._errors(), self._pool.take() as client:
            client.execute(text)

    def insert(self, table: str, columns: Columns, query_id: str | None = None) -> None:
        with self._errors(), self._pool.take() as client:
            client.execute(
                f"INSERT INTO {table} ({', '.join(columns)}) VALUES", [columns], query_id=query_id or str(uuid.uuid4())
            )

    def quiesce(self, prefix: str, timeout_s: float = 60.0) -> None:
        def running() -> set[str]:
            found = self.query(
                "SELECT query_id FROM system.processes WHERE position(query_id, {prefix:String}) = 1",
                {"prefix": prefix},
            )
            return {query_id for (query_id,) in found.rows}

        deadline = time.monotonic() + timeout_s
        waited_for = running()
        time.sleep(_SECOND_LOOK_S)
        waited_for |= (still := running())
        while waited_for & still:
            if time.monotonic() > deadline:
                raise WarehouseError(
                    f"ClickHouse at {self.address}: queries {sorted(still)} still run after {timeout_s:.0f} s"
                )
            time.sleep(0.05)
            still = running()

    def create_database(self) -> None:
        with self._errors(), contextlib.ExitStack() as stack:
            client = self.client("default")  # a connection to a database that does not exist is refused
            stack.callback(client.disconnect)
            client.execute(f"CREATE DATABASE IF NOT EXISTS {name(self.database)}")

    def close(self) -> None:
        self._pool.close()


def _disconnect(client: Client) -> None:
    client.disconnect()


def name(text: str) -> str:
    """`text` as a quoted name of a database or table."""
    return "`" + text.replace("\\", "\\\\").replace("`", "\\`") + "`"


class ChdbWarehouse:
    """ClickHouse inside this process (extra `local`). One process per folder, one folder per process."""

    # Small on purpose: a local engine beside the stages. Caches grow to their limit and no further.
    _START = "mark_cache_size=16777216&index_mark_cache_size=4194304&primary_index_cache_size=16777216&query_condition_cache_size=4194304"
    _SET = (
        "SET max_threads = 2, max_insert_threads = 1, output_format_json_quote_64bit_integers = 0,"
        " output_format_json_quote_denormals = 1, max_memory_usage = 2000000000"
    )

    _SETTINGS_MAX = 64  # of readers, whose connections are kept
    _READ_ONLY = "max_result_bytes = 200000000, readonly = 1"

    def __init__(self, folder: Path, database: str) -> None:
        self.database, self.folder = database, folder.resolve()
        self._kinds: dict[str, dict[str, str]] = {}
        self._anchor: Any = None  # the engine ends with its last connection, and a failed call closes its own
        self._lock = threading.Lock()
        self._writing = _Pool(lambda: self._connection(""), lambda connection: connection.close())
        self._reading = {"": self._readers("")}

    def _connection(self, last: str, database: str | None = None) -> Any:
        import chdb  # 0.2 s and 200 MB: only where it is used

        address = f"{self.folder}?{self._START}"
        with self._lock:
            if self._anchor is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                try:
                    self._anchor = chdb.connect(address)
                except RuntimeError as error:
                    hint = "a folder belongs to one process, a process has one folder; ask a running `postroad up` over HTTP"
                    raise WarehouseError(f"chdb cannot open {self.folder} ({hint}): {error}") from error
                atexit.register(self.close)  # an engine still open when Python ends may end in a segmentation fault
        connection = chdb.connect(address)
        try:
            connection.query(self._SET)
            connection.query(f"USE {name(database or self.database)}")
            if last:
                connection.query(last)
        except BaseException:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # chdb's own error is one
            raise WarehouseError(f"chdb at {self.folder}: {error}") from error

    def query(self, sql: str, params: Mapping[str, Any] | None = None) -> Rows:
        text = bind(sql, params)
        with self._errors(), self._writing.take() as connection:
            return read_json_compact(connection.query(text, "JSONCompact").bytes())

    def raw(self, sql: str, form: str, params: Mapping[str, str] | None = None, setting: str = "") -> bytes:
        """The answer to a read-only query in ClickHouse's format `form`, for the HTTP interface; `params`: texts that the engine binds;
        `setting`: "NAME = VALUE, " of settings that the query cannot change."""
        with self._lock:
            pool = self._reading.pop(setting, None) or self._readers(setting)
            self._reading[setting] = pool  # the newest last
            old = self._reading.pop(next(iter(self._reading))) if len(self._reading) > self._SETTINGS_MAX else None
        if old is not None:
            old.close()
        with self._errors(), pool.take() as connection:
            answer: bytes = connection.query(sql, form, params=dict(params or {})).bytes()
            return answer

    def _readers(self, setting: str) -> _Pool[Any]:
        setting = setting or "max_execution_time = 60, "
        return _Pool(lambda: self._connection(f"SET {setting}{self._READ_ONLY}"), lambda connection: connection.close())

    def command(self, sql: str, params: Mapping[str, Any] | None = None) -> None:
        text = bind(sql, params)
        with self._errors(), self._writing.take() as connection:
            connection.query(text)
        self._kinds.clear()

    def insert(self, table: str, columns: Columns, query_id: str | None = None) -> None:
        kinds = self._kinds.get(table)
        if kinds is None:
            kinds = self._kinds[table] = {row[0]: row[1] for row in self.query(f"DESCRIBE TABLE {table}").rows}
        block = native.block(columns, kinds)
        with (
            self._errors(),
            self._writing.take() as connection,
            connection.send_insert(f"INSERT INTO {table} ({', '.join(columns)})", "Native") as insert,
        ):
            insert.append(block)
            insert.finish()

    def quiesce(self, prefix: str, timeout_s: float = 60.0) -> None:
        """Nothing to wait for: the engine dies with its process, and within it an insert ends with its call."""

    def create_database(self) -> None:
        with self._errors():
            connection = self._connection(f"CREATE DATABASE IF NOT EXISTS {name(self.database)}", "default")
            connection.close()

    def close(self) -> None:
        with self._lock:
            pools = [self._writing, *self._reading.values()]
        for pool in pools:
            pool.close()
        with self._lock:
            anchor, self._anchor = self._anchor, None
        if anchor is not None:
            anchor.close()
            atexit.unregister(self.close)


def connect(url: str, database: str = DATABASE) -> Warehouse:
    """The warehouse that `url` names (see the top); nothing is opened before the first call. Raises ValueError for any other URL."""
    parts = urlsplit(url)
    if parts.scheme in ("clickhouse", "clickhouses"):
        return ServerWarehouse(parts, database)
    if parts.scheme in ("http", "https"):
        from analytics.http import HttpWarehouse

        return HttpWarehouse(url, database)
    if parts.scheme == "chdb":
        if parts.netloc or not parts.path.strip("/"):
            raise ValueError(f"{url}: write chdb:///path/to/folder, with three slashes")
        return ChdbWarehouse(Path(unquote(parts.path)), database)
    if "://" in url or not url:
        raise ValueError(f"{url!r} names no warehouse: clickhouse://host:9000/database, chdb:///folder or a folder")
    return ChdbWarehouse(Path(os.path.expanduser(url)), database)
