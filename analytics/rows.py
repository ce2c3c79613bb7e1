"""Records of mail.events as columns of the table `events`: what can be stored, and how. columnar.py does the same for whole batches of bytes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple, cast, get_args

from avro.records import Event, EventKind, MessageStream
from postroad.masking import PLAIN, Masking

MAX_TEXT = 2000  # characters of any one text column; the contract allows 500 in the longest
MAX_ID = 255
# A newer server refuses an insert that touches over 100 partitions (days); a replay of hostile times could.
MAX_DAYS = 50
DAY_MS = 86_400_000
END_OF_TIME_MS = 2**32 * 1000  # of ClickHouse's DateTime: February 2106
KINDS = frozenset(get_args(EventKind))
STREAMS = frozenset(get_args(MessageStream))

DEFAULTS: dict[str, Any] = {
    "round": 0, "attempt": 0, "recipient_domain": "", "reason": "", "rule": "", "detail": "", "site": "", "pool": "",
    "source": "", "mx_host": "", "mx_address": "", "reply_code": 0, "enhanced_code": "", "reply": "", "tls": "",
    "duration_ms": 0, "possible_duplicate": False, "size": 0, "due_at": None, "tags": [], "metadata": {},
    "shaping": "", "phases": {}, "bounce_class": "", "evidence": "",
}  # fmt: skip
IDS = ("message_id", "tenant")
ENUMS = {"stream": STREAMS, "kind": KINDS}
TEXTS = (
    "submission_id", "recipient", "recipient_domain", "stage", "reason", "rule", "detail", "site", "pool", "source",
    "mx_host", "mx_address", "enhanced_code", "reply", "tls", "shaping", "bounce_class", "evidence",
)  # fmt: skip
QUOTING = ("detail", "reply", "evidence")
NUMBERS = {
    "round": 2**16, "attempt": 2**16, "reply_code": 2**16, "duration_ms": 2**32, "size": 2**63, "possible_duplicate": 2,
}  # fmt: skip
TIMES = {"at": ("ts", "ts_ms"), "accepted_at": ("accepted_at", "accepted_ms")}

_KINDS_OF_VALUES: tuple[tuple[type, tuple[str, ...]], ...] = (
    (int, (*NUMBERS, *TIMES)), (list, ("tags",)), (dict, ("metadata", "phases")),
)  # fmt: skip

Row = tuple[int, int, Event]
Identity = tuple[str, str, int, int]
_FIELDS = (*IDS, *ENUMS, *TEXTS, *NUMBERS, *TIMES, "due_at", "tags", "metadata", "phases")
_values = itemgetter(*_FIELDS)
_NOTHING: list[str] = []  # shared: a list of its own in each row would keep the garbage collector busy
_NO_TIMES: list[int] = []


class Rejected(NamedTuple):
    """A row that cannot be stored, for the dead letters."""

    partition: int
    offset: int
    error: str


def _complete(event: Event) -> tuple[Any, ...]:
    try:
        return cast("tuple[Any, ...]", _values(event))
    except KeyError:
        return cast("tuple[Any, ...]", _values({**DEFAULTS, **event}))


def _fields_of(rows: Sequence[Row]) -> dict[str, tuple[Any, ...]]:
    """The fields of the events, by name."""
    return dict(zip(_FIELDS, zip(*(_complete(event) for _, _, event in rows), strict=True), strict=True))


def check(rows: Sequence[Row]) -> None:
    """Raises ValueError, TypeError, KeyError or AttributeError when any of the rows cannot be stored.

    Whole columns at a time, so that a good batch costs little; `sift` finds the rows that are at fault.
    """
    field = _fields_of(rows)
    for key in (*IDS, *TEXTS):
        "".join(field[key]).encode()
    for kind, keys in _KINDS_OF_VALUES:
        for key in keys:
            if not all(map(kind.__instancecheck__, field[key])):
                raise TypeError(f"{key} is not of type {kind.__name__}")
    if not all(at is None or isinstance(at, int) for at in field["due_at"]):
        raise TypeError("due_at is not of type int")
    for items in field["tags"]:
        "".join(items).encode()
    for pairs in field["metadata"]:
        if pairs:
            "".join((*pairs.keys(), *pairs.values())).encode()
    for times in field["phases"]:
        if times:
            "".join(times).encode()
            if not all(map(int.__instancecheck__, times.values())):
                raise TypeError("phases is not of type int")
    noted = "noted" in field["kind"]  # about no message, perhaps of no tenant
    for key in IDS:
        named = (text for text, kind in zip(field[key], field["kind"], strict=True) if text or kind != "noted")
        if not all(0 < len(text) <= MAX_ID for text in (named if noted else set(field[key]))):
            raise ValueError(f"{key} is empty or has over {MAX_ID} characters")
    for key, known in ENUMS.items():
        if unknown := set(field[key]) - known:
            raise ValueError(f"{key} {unknown.pop()!r} is not known to this version of the sink")
    for key in TIMES:
        if min(field[key]) < 0 or max(field[key]) >= END_OF_TIME_MS:
            raise ValueError(f"{key} is not between 1970 and 2106 (milliseconds)")


def sift(rows: Sequence[Row]) -> tuple[list[Row], list[Rejected]]:
    """What can be stored, and what cannot, by halving a batch that has something wrong in it."""
    if not rows:
        return [], []
    try:
        check(rows)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if len(rows) == 1:
            return [], [Rejected(*rows[0][:2], f"{type(error).__name__}: {error}")]
        middle = len(rows) // 2
        (good, bad), (more_good, more_bad) = sift(rows[:middle]), sift(rows[middle:])
        return good + more_good, bad + more_bad
    return list(rows), []


def _cut(texts: Collection[str]) -> list[str]:
    if not texts:
        return _NOTHING
    if max(map(len, texts)) <= MAX_TEXT:
        return texts if isinstance(texts, list) else list(texts)
    return [text[:MAX_TEXT] for text in texts]


def _clamp(numbers: Collection[int], end: int) -> list[int]:
    if min(numbers) >= 0 and max(numbers) < end:
        return list(numbers)
    return [min(max(number, 0), end - 1) for number in numbers]


def columns_of(rows: Sequence[Row], now: int, masking: Masking = PLAIN) -> dict[str, list[Any]]:
    """Checked rows, by column of the table. Long texts are cut to MAX_TEXT, numbers clamped to what their column holds, addresses
    kept as `masking` wants: `recipient` is the column of them, replies and details may quote some."""
    field = _fields_of(rows)
    out: dict[str, list[Any]] = {
        "k_partition": [partition for partition, _, _ in rows],
        "k_offset": [offset for _, offset, _ in rows],
        "ingested_at": [now] * len(rows),
    }
    for key, (seconds, rest) in TIMES.items():
        out[seconds] = [at // 1000 for at in field[key]]
        out[rest] = [at % 1000 for at in field[key]]
    for key in (*IDS, *ENUMS):
        out[key] = list(field[key])
    for key in TEXTS:
        out[key] = _cut(field[key])
    for key, end in NUMBERS.items():
        out[key] = _clamp(field[key], end)
    if masking.policy != "plain":
        out["recipient"] = list(map(masking.address, out["recipient"]))
        for key in QUOTING:
            out[key] = list(map(masking.text, out[key]))
    out["due_at"] = [0 if at is None else min(max(at // 1000, 1), 2**32 - 1) for at in field["due_at"]]
    out["tags"] = [_cut(tags) for tags in field["tags"]]
    out["metadata_keys"] = [_cut(pairs) for pairs in field["metadata"]]
    out["metadata_values"] = [_cut(pairs.values()) for pairs in field["metadata"]]
    out["phases"] = [_cut(times) for times in field["phases"]]
    out["phase_ms"] = [_clamp(times.values(), 2**32) if times else _NO_TIMES for times in field["phases"]]
    return out


def by_days(rows: list[Row]) -> Iterable[list[Row]]:
    """The rows in parts that touch at most MAX_DAYS days of `events` and of `messages` each; nearly always all of them at once."""
    days: dict[tuple[int, int], list[Row]] = {}
    for row in rows:
        days.setdefault((row[2]["at"] // DAY_MS, row[2]["accepted_at"] // DAY_MS), []).append(row)
    if len(days) <= MAX_DAYS:
        return (rows,)
    parts = list(days.values())
    return ([row for day in parts[at : at + MAX_DAYS] for row in day] for at in range(0, len(parts), MAX_DAYS))


def identity(event: Event) -> Identity:
    full = cast("dict[str, Any]", {**DEFAULTS, **event})
    round_, attempt = (min(max(int(full[key]), 0), 2**16 - 1) for key in ("round", "attempt"))
    return full["message_id"], full["kind"], round_, attempt
