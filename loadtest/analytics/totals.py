"""What tables must say, counted in Python from the topic; and what they do say. Nothing of the sink is used but the codec."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any, NamedTuple

from analytics.clickhouse import Warehouse
from analytics.reading import Reader
from avro.records import Event
from topics.catalogue import EVENTS
from topics.installation import Installation

HOUR_MS = 3_600_000
TABLES = {
    "events": """
SELECT tenant, site, toString(kind), toUInt32(toStartOfHour(ts)), count(), uniqExact(message_id, kind, round, attempt), sum(size)
FROM events GROUP BY tenant, site, kind, toStartOfHour(ts)""",
    "hours": """
SELECT toUInt32(hour), tenant, toString(stream), site, source, toString(kind), reason, tried,
    places, events, messages, bytes, latency_bins, latency_counts FROM hours FINAL""",
    "messages": """
SELECT message_id, toString(state), toUInt32(state_at), state_ms, ended, tenant, site, source, reason, attempt, size, toUInt32(accepted_at), accepted_ms
FROM messages FINAL""",
    "feedback": "SELECT message_id, toString(kind), evidence, toUInt32(at), toUInt32(accepted_at) FROM feedback FINAL",
}
_KEYS = {"events": 4, "hours": 8, "messages": 1, "feedback": 4}
ENDS = ("delivered", "bounced")  # of `flow.lives`
Totals = dict[tuple[Any, ...], tuple[Any, ...]]


class Expected(NamedTuple):
    """`tables`: by table its cells; `records`: of the topic."""

    tables: dict[str, Totals]
    records: int


class _Cell:
    """What `hours` counts in one cell."""

    def __init__(self) -> None:
        self.places = self.events = self.bytes = 0
        self.messages: set[bytes] = set()
        self.bins: Counter[int] = Counter()

    def row(self) -> tuple[Any, ...]:
        bins = sorted(self.bins)
        return (
            self.places,
            self.events,
            len(self.messages),
            self.bytes,
            tuple(bins),
            tuple(self.bins[each] for each in bins),
        )


async def of_topic(installation: Installation) -> Expected:
    """All of mail.events; the steps of one message have different times, the last of which tells its state."""
    totals: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0, 0, 0])
    cells: defaultdict[tuple[Any, ...], _Cell] = defaultdict(_Cell)
    newest: dict[str, tuple[Any, ...]] = {}
    feedback: Totals = {}
    seen: set[bytes] = set()
    records = 0
    async with Reader(installation) as reader:
        async for _, event in reader.read(EVENTS):
            records += 1
            hour = event["at"] // HOUR_MS * 3600
            new = (id := event["event_id"].encode()) not in seen
            seen.add(id)
            total = totals[event["tenant"], event["site"], event["kind"], hour]
            total[0] += 1
            total[1] += new
            total[2] += event["size"]
            _count(cells[_key(event, hour)], event, new)
            if event["kind"] == "complained":
                feedback[event["message_id"], event["kind"], event["evidence"], event["at"] // 1000] = (
                    event["accepted_at"] // 1000,
                )
            elif (event["at"],) > newest.get(event["message_id"], (0,))[:1]:
                newest[event["message_id"]] = event["at"], *_state(event)
    return Expected(
        {
            "events": {cell: tuple(values) for cell, values in totals.items()},
            "hours": {key: cell.row() for key, cell in cells.items()},
            "feedback": feedback,
            "messages": {(message,): state for message, (_, *state) in newest.items() for state in (tuple(state),)},
        },
        records,
    )


def _key(event: Event, hour: int) -> tuple[Any, ...]:
    return (hour, event["tenant"], event["stream"], event["site"], event["source"], event["kind"], event["reason"],
            int(event["attempt"] > 0))  # fmt: skip


def _count(cell: _Cell, event: Event, new: bool) -> None:
    cell.places += 1
    if new:
        cell.events += 1
        cell.bytes += event["size"]
        cell.messages.add(event["message_id"].encode())
        if event["kind"] == "delivered":
            waited = event["at"] - event["accepted_at"]
            octave = waited.bit_length() - 1
            cell.bins[waited if waited < 32 else 32 * (octave - 4) + (waited >> octave - 5 & 31)] += 1


def _state(event: Event) -> tuple[Any, ...]:
    at, accepted = event["at"], event["accepted_at"]
    return (event["kind"], at // 1000, at % 1000, int(event["kind"] in ENDS), event["tenant"], event["site"], event["source"],
            event["reason"], event["attempt"], event["size"], accepted // 1000, accepted % 1000)  # fmt: skip


def of_table(warehouse: Warehouse, table: str) -> Totals:
    """The same cells from one of TABLES. A cell that is there twice is as wrong as one too many."""
    found: Totals = {}
    for row in warehouse.query(TABLES[table]).rows:
        plain = tuple(tuple(value) if isinstance(value, list | tuple) else value for value in row)
        key, values = plain[: _KEYS[table]], plain[_KEYS[table] :]
        found[key] = ("twice",) if key in found else values
    return found
