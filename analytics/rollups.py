"""The rollup `hours`: cells that are recomputed whole from `events`, and so are right however often and by whom that is done.

    roll(warehouse, hours)          what the sink does for the hours it wrote to, about once a minute and on recovery
    rebuild(warehouse, day)         after a repair, a load of data, or for events older than the table: cells may become smaller too
    wrong_cells(warehouse, day)     cells that are not what `events` says

A cell that is computed while rows still come holds fewer places than the next one, and the one with the most places counts: it is the
version of ReplacingMergeTree. Latencies are counted in bins: bin b < 32 holds b ms; above, each doubling has 32 bins of equal width,
so the middle of a bin is within 1.6 % of what is in it. BIN_MIDDLE is that middle, in SQL.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

from analytics import messages
from analytics.clickhouse import Warehouse, WarehouseError
from analytics.cluster import physical
from analytics.sql import quote

HOUR_S, DAY_S = 3600, 86_400
AT_ONCE = 1_000_000  # events that one statement looks at: some 300 MB of the engine's memory
MUTATION_S = 600.0

_LATENCY = "toUInt64(greatest(latency_ms, toInt64(0)))"
_OCTAVE = "toUInt8(greatest(5, floor(log2(waited + 0.5))))"
BIN = (
    f"toUInt16(if(waited < 32, waited, toUInt64(32 * toUInt16({_OCTAVE} - 4)) + bitAnd(bitShiftRight(waited, toUInt8({_OCTAVE} - 5)),"
    " toUInt64(31))))"
)
"""The bin of `waited`, ms as UInt64, in SQL."""
BIN_MIDDLE = (
    "if(bin < 32, toUInt64(bin), intDiv(bitShiftLeft(toUInt64(65 + 2 * bitAnd(bin, 31)), toUInt8(intDiv(greatest(bin, 32), 32) - 1)),"
    " toUInt64(2)))"
)
"""The middle of `bin`, ms, in SQL."""


class Rollup(NamedTuple):
    """`keys`: columns of a cell's key; `values`: what is computed, the version first."""

    table: str
    keys: tuple[str, ...]
    values: tuple[str, ...]

    def select(self, where: str) -> str:
        """The cells of the rows of `events` that `where` names: keys, then values."""
        return _SELECT.format(where=where)


# A row that is there twice (a frozen sink revived) counts once; then a repeat of an event; then events are counted.
_SELECT = f"""
SELECT cell_hour AS hour, tenant, stream, site, source, cell_kind AS kind, reason, tried, sum(repeats) AS places, count() AS events,
    uniqExact(message_id) AS messages, sum(event_size) AS bytes, (sumMap(bins, ones) AS latency).1 AS latency_bins, latency.2 AS latency_counts
FROM
(
    SELECT cell_hour, tenant, stream, site, source, cell_kind, reason, tried, message_id, repeats, event_size,
        if(cell_kind = 'delivered', [{BIN}], emptyArrayUInt16()) AS bins, arrayResize([toUInt64(1)], length(bins)) AS ones
    FROM
    (
        SELECT cell_hour, tenant, stream, site, source, kind AS cell_kind, reason, tried, message_id,
            count() AS repeats, max(size) AS event_size, min(latency) AS waited
        FROM
        (
            SELECT toStartOfHour(ts) AS cell_hour, tenant, stream, site, source, kind, reason, toUInt8(attempt > 0) AS tried, message_id,
                round, attempt, if(kind IN ('reported', 'complained', 'late_bounce'), evidence, '') AS told, size, {_LATENCY} AS latency
            FROM events
            WHERE ({{where}}) AND kind != 'noted' AND message_id != ''
            LIMIT 1 BY k_partition, k_offset
        )
        GROUP BY cell_hour, tenant, stream, site, source, kind, reason, tried, message_id, round, attempt, told
    )
)
GROUP BY hour, tenant, stream, site, source, kind, reason, tried
"""
HOURS = Rollup(
    "hours", ("hour", "tenant", "stream", "site", "source", "kind", "reason", "tried"),
    ("places", "events", "messages", "bytes", "latency_bins", "latency_counts"),
)  # fmt: skip
ROLLUPS = (HOURS,)
_OF_CELL = "cityHash64(tenant, site, source, toInt8(kind))"


def roll(warehouse: Warehouse, hours: Iterable[int]) -> None:
    """Recompute the cells of these hours (their first second since 1970). Raises WarehouseError; then do it again."""
    by_day: dict[int, set[int]] = {}
    for hour in hours:
        by_day.setdefault(hour // DAY_S, set()).add(hour)
    for _, of_day in sorted(by_day.items()):
        listed = ", ".join(map(str, sorted(of_day)))
        _fill(
            warehouse,
            f"{_between('ts', min(of_day), max(of_day) + HOUR_S)} AND toUInt32(toStartOfHour(ts)) IN ({listed})",
        )


def rebuild(warehouse: Warehouse, day: date, cluster: str = "") -> None:
    """Make `hours` and `messages` what the events of a day say, whatever they were before. May be done again, and beside running
    sinks. Raises WarehouseError."""
    first = _second(day)
    where = _between("ts", first, first + DAY_S)
    _fill(warehouse, where)
    if wrong_cells(warehouse, day):  # some hold more than there is now: what was deleted, or should never have been
        delete(warehouse, HOURS.table, _between("hour", first, first + DAY_S), cluster)
        _fill(warehouse, where)
    for part in _parts(warehouse, where, "cityHash64(message_id)"):
        warehouse.command(f"INSERT INTO {messages.TABLE} ({', '.join(messages.COLUMNS)}) {messages.select(part)}")
    columns = ", ".join(messages.FEEDBACK_COLUMNS)
    warehouse.command(f"INSERT INTO {messages.FEEDBACK_TABLE} ({columns}) {messages.feedback(where)}")
    _delete_strays(warehouse, first, cluster)


def wrong_cells(warehouse: Warehouse, day: date) -> list[tuple[Any, ...]]:
    """The keys of the cells of a day that are not what `events` says: missing, other, or too many. Raises WarehouseError."""
    first = _second(day)
    keys = len(HOURS.keys)
    expected = {}
    for part in _parts(warehouse, _between("ts", first, first + DAY_S), _OF_CELL):
        for row in warehouse.query(HOURS.select(part)).rows:
            expected[row[:keys]] = _plain(row[keys:])
    found = warehouse.query(
        f"SELECT {', '.join(HOURS.keys + HOURS.values)} FROM {HOURS.table} FINAL WHERE {_between('hour', first, first + DAY_S)}"
    )
    there = {row[:keys]: _plain(row[keys:]) for row in found.rows}
    return sorted(key for key in expected.keys() | there.keys() if expected.get(key) != there.get(key))


def wrong_messages(warehouse: Warehouse, day: date) -> list[str]:
    """Ids, at most 1000, of messages accepted on a day whose row is missing, too many, or of another step than their newest event.
    Raises WarehouseError."""
    first = _second(day)
    accepted = _between("accepted_at", first, first + DAY_S)
    steps = f"{accepted} AND ts >= toDateTime({max(0, first - DAY_S)}, 'UTC')"
    wrong: list[str] = []
    for part in _parts(warehouse, steps, "cityHash64(message_id)"):
        of_part = part.removeprefix(steps)
        found = warehouse.query(
            f"SELECT message_id FROM (SELECT message_id, max(version) AS newest FROM {messages.TABLE} WHERE {accepted}{of_part}"
            " GROUP BY message_id UNION ALL"
            f" SELECT message_id, max(version) AS newest FROM ({messages.select(part)}) GROUP BY message_id)"
            " GROUP BY message_id HAVING count() != 2 OR min(newest) != max(newest) ORDER BY message_id LIMIT 1000"
        )
        wrong += [message for (message,) in found.rows]
    return wrong[:1000]


def _second(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


def _between(column: str, first: int, end: int) -> str:
    return f"{column} >= toDateTime({first}, 'UTC') AND {column} < toDateTime({min(end, 2**32 - 1)}, 'UTC')"


def _plain(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(list(value) if isinstance(value, list | tuple) else value for value in values)


def _parts(warehouse: Warehouse, where: str, of: str) -> list[str]:
    """`where` in parts of about AT_ONCE events each, divided by the hash `of`."""
    (count,) = warehouse.query(f"SELECT count() FROM events WHERE {where}").rows[0]
    parts = 1 + count // AT_ONCE
    return [where] if parts == 1 else [f"{where} AND {of} % {parts} = {number}" for number in range(parts)]


def _fill(warehouse: Warehouse, where: str) -> None:
    for part in _parts(warehouse, where, _OF_CELL):
        warehouse.command(f"INSERT INTO {HOURS.table} ({', '.join(HOURS.keys + HOURS.values)}) {HOURS.select(part)}")


def _delete_strays(warehouse: Warehouse, first: int, cluster: str) -> None:
    """Messages that are in a state since this day for which there is no event, made anew from all events that they have."""
    day = _between("ts", first, first + DAY_S)
    for part in _parts(warehouse, day, "cityHash64(message_id)"):
        of_part = part.removeprefix(day)
        found = warehouse.query(
            f"SELECT DISTINCT message_id FROM {messages.TABLE} WHERE {_between('state_at', first, first + DAY_S)}{of_part}"
            f" AND (message_id, version) NOT IN (SELECT message_id, version FROM ({messages.steps(part)}))"
        )
        for at in range(0, len(found.rows), 1000):
            listed = ", ".join(quote(message) for (message,) in found.rows[at : at + 1000])
            delete(warehouse, messages.TABLE, f"message_id IN ({listed})", cluster)
            again = messages.select(f"message_id IN ({listed})")
            warehouse.command(f"INSERT INTO {messages.TABLE} ({', '.join(messages.COLUMNS)}) {again}")


def delete(warehouse: Warehouse, table: str, where: str, cluster: str = "") -> None:
    """Rows, and wait until they are gone."""
    warehouse.command(f"ALTER TABLE {physical(table, warehouse.database, cluster)} DELETE WHERE {where}")
    deadline = time.monotonic() + MUTATION_S
    running = "SELECT count() FROM system.mutations WHERE database = {database:String} AND NOT is_done"
    while warehouse.query(running, {"database": warehouse.database}).rows[0][0]:
        if time.monotonic() > deadline:
            raise WarehouseError(f"deleting from {table} takes longer than {MUTATION_S:g} s: look at system.mutations")
        time.sleep(0.05)
