"""Compare ClickHouse with mail.events, row by row, and put right what differs.

    report = await compare(installation, warehouse, committed, since_ms)          what verify tells
    report = await compare(installation, warehouse, committed, day=day, repair=True)

Every record of a range of offsets, up to what the sink has committed, is made a row as the sink makes it (sink.columns_of)
and compared with what the table has at its place, all columns but the time of insertion. Then the table is asked how many
places it has in that range: what nobody wrote to the topic is found so. With a `day`, rows and records of that day alone. Then
`hours` and `messages` of the days met are compared with `events`.

Repair: what is missing is inserted, what is wrong or extra is deleted, what is there twice is merged, and `hours` and `messages` are
made anew from the events of the days touched; each may be done again after a crash, and beside a running sink, for above what the sink
has committed nothing of `events` is touched.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

from analytics import messages
from analytics.clickhouse import Warehouse
from analytics.cluster import physical
from analytics.reading import Reader
from analytics.rolling import WINDOW_S
from analytics.rollups import delete, rebuild, wrong_cells, wrong_messages
from analytics.rows import Row, columns_of, sift
from analytics.sink import TABLE
from postroad.masking import PLAIN, Masking
from topics.catalogue import DAY_MS, EVENTS
from topics.installation import Installation

AT_ONCE = 20_000  # records compared by one query
SHOWN = 20  # differences of each kind that are kept with their places
CLOCKS_MS = 3_600_000  # a writer's clock may be so much ahead of the broker's
BETWEEN_S = 2.0  # a sink may be between its inserts into events and messages
_PROBE: Row = (0, 0, {"message_id": "m", "tenant": "t", "at": 0, "accepted_at": 0, "stream": "transactional", "kind": "accepted",
                      "submission_id": "", "recipient": "", "stage": "", "event_id": ""})  # fmt: skip
COLUMNS = tuple(column for column in columns_of([_PROBE], 0) if column != "ingested_at")
_ARRAYS = frozenset(name for name, values in columns_of([_PROBE], 0).items() if isinstance(values[0], list))
_TIMES = ("ts", "accepted_at", "due_at")
_SELECTED = ", ".join(f"toUInt32({name})" if name in _TIMES else f"toString({name})" if name in ("stream", "kind") else name
                      for name in COLUMNS)  # fmt: skip
_EPOCH = date(1970, 1, 1).toordinal()
_TS = COLUMNS.index("ts")
Place = tuple[int, int]
Progress = Callable[[int, int], object]  # records done, of so many


class Difference(NamedTuple):
    """`kind`: missing, wrong, twice or extra (a row that the topic does not have), of a place; cell, message or feedback, of none."""

    kind: str
    place: Place | None
    detail: str = ""


@dataclass
class Report:
    """`spans`: by partition what was compared, first offset and the one behind the last. `rows`: places that the table has in
    them. `unstorable`: records that are dead letters, so no rows. `behind`: cells of hours that rows came to lately, so that the
    sink may still have to roll them. `days`: of the events, `accepted`: of the messages, that were compared."""

    spans: dict[int, tuple[int, int]]
    records: int = 0
    rows: int = 0
    unstorable: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)
    behind: int = 0
    days: set[date] = field(default_factory=set)
    accepted: set[date] = field(default_factory=set)
    repaired: bool = False

    @property
    def ok(self) -> bool:
        """Whether table and topic are equal."""
        return not self.counts

    def add(self, kind: str, place: Place | None, detail: str = "") -> None:
        """One more; the first of each kind are kept."""
        self.counts[kind] += 1
        if self.counts[kind] <= SHOWN:
            self.differences.append(Difference(kind, place, detail))


async def compare(
    installation: Installation,
    warehouse: Warehouse,
    committed: Mapping[int, int],
    since_ms: int = 0,
    *,
    day: date | None = None,
    repair: bool = False,
    cluster: str = "",
    masking: Masking = PLAIN,
    progress: Progress = lambda done, total: None,
) -> Report:
    """Compare; with `repair` also put right. `committed`: of the sink's group, by partition. Blocks the loop while ClickHouse works:
    for a command. Raises WarehouseError, KafkaError, RegistryUnavailable."""
    first, last = _bounds(day)
    async with Reader(installation, max(since_ms, first - CLOCKS_MS if day else 0)) as reader:
        await reader.note_end(EVENTS, committed)
        spans = {partition: span for partition, span in (await reader.span(EVENTS)).items() if span[0] < span[1]}
        work = Comparison(warehouse, Report(spans), day, repair, cluster, masking)
        total, done = sum(end - begin for begin, end in spans.values()), 0
        batch: list[Row] = []
        async for record, event in reader.read(EVENTS):
            done += 1
            if first <= event["at"] < last:
                batch.append((record.partition, record.offset, event))
            if len(batch) >= AT_ONCE:
                work.look(batch)
                batch = []
            if done % AT_ONCE == 0:
                progress(done, total)
        if batch:
            work.look(batch)
        work.report.unstorable += reader.unreadable if day is None else 0
    work.finish()
    if repair:
        for each in sorted(work.touched | ({day} if day else work.report.days)):
            rebuild(warehouse, each, cluster)
    else:
        compare_derived(warehouse, work.report)
    progress(total, total)
    work.report.repaired = repair
    return work.report


def compare_derived(warehouse: Warehouse, report: Report, now: Callable[[], float] = time.time) -> None:
    """`hours`, `messages` and `feedback` with `events`, of the days in `report`. Raises WarehouseError."""
    for day in sorted(report.days):
        cells = wrong_cells(warehouse, day)
        lately = {
            str(hour)
            for (hour,) in warehouse.query(
                f"SELECT DISTINCT toStartOfHour(ts) FROM {TABLE} WHERE toDate(ts) = toDate('{day}')"
                f" AND ingested_at >= toDateTime({int(now()) - WINDOW_S})"
            ).rows
        } if cells else set()  # fmt: skip
        for cell in cells:
            if str(cell[0]) in lately:
                report.behind += 1
            else:
                report.add("cell", None, " ".join(map(str, cell)))
        of_day = f"toDate(ts) = toDate('{day}')"
        place = "message_id, toString(kind), evidence, at"
        for (message,) in warehouse.query(
            f"SELECT DISTINCT message_id FROM ({messages.feedback(of_day)})"
            f" WHERE ({place}) NOT IN (SELECT {place} FROM {messages.FEEDBACK_TABLE})"
        ).rows:
            report.add("feedback", None, message)
    oldest = warehouse.query(f"SELECT toUInt32(min(ts)) FROM {TABLE}").rows[0][0]
    for day in sorted(report.accepted):
        if day < datetime.fromtimestamp(oldest, UTC).date():  # its beginning went with its days (retention.py)
            continue
        if wrong := set(wrong_messages(warehouse, day)):
            time.sleep(BETWEEN_S)
            for message in sorted(wrong.intersection(wrong_messages(warehouse, day))):
                report.add("message", None, message)


def _bounds(day: date | None) -> tuple[int, int]:
    if day is None:
        return 0, 1 << 62
    first = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000
    return first, first + DAY_MS


def _days(seconds: Iterable[int]) -> set[date]:
    return {date.fromordinal(_EPOCH + number) for number in {second // 86_400 for second in seconds}}


class Comparison:
    """`look` at the records of `report.spans` in the order of the topic, any number at a time; then `finish`."""

    def __init__(
        self, warehouse: Warehouse, report: Report, day: date | None = None, repair: bool = False, cluster: str = "",
        masking: Masking = PLAIN,
    ) -> None:  # fmt: skip
        self._masking = masking
        self.warehouse, self.report, self.repair = warehouse, report, repair
        self._day = f" AND toDate(ts) = toDate('{day}')" if day else ""
        self._cluster = cluster
        self._known: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)  # runs of offsets that the topic has
        self._present = 0  # places that the table has, of those that the topic has
        self._merge: set[date] = set()
        self.touched: set[date] = set()  # days that a repair has deleted rows of

    def look(self, batch: Sequence[Row]) -> None:
        """Compare these, and with `repair` put them right."""
        good, bad = sift(batch)
        self.report.unstorable += len(bad)
        self.report.records += len(good)
        if good:
            self._compare(good)

    def _compare(self, good: Sequence[Row]) -> None:
        columns = columns_of(good, 0, self._masking)
        expected = {
            (row[0], row[1]): row
            for row in zip(
                *([tuple(v) for v in columns[n]] if n in _ARRAYS else columns[n] for n in COLUMNS), strict=True
            )
        }
        for partition, offset in sorted(expected):
            runs = self._known[partition]
            if runs and runs[-1][1] == offset:
                runs[-1] = runs[-1][0], offset + 1
            else:
                runs.append((offset, offset + 1))
        self.report.days |= _days(columns["ts"])
        self.report.accepted |= _days(columns["accepted_at"])
        found = self._rows(
            expected, f" AND ts >= toDateTime({min(columns['ts'])}) AND ts <= toDateTime({max(columns['ts'])})"
        )
        if away := expected.keys() - found.keys():  # or elsewhere in time
            found |= self._rows(away)
        missing, wrong = [], []
        for place, row in expected.items():
            there = found.get(place, [])
            self._present += bool(there)
            if not there:
                self.report.add("missing", place)
                missing.append(place)
            elif any(each != row for each in there):
                other = next(each for each in there if each != row)
                names = [n for n, have, want in zip(COLUMNS, other, row, strict=True) if have != want]
                self.report.add("wrong", place, f"differs in {', '.join(names)}")
                wrong.append(place)
                self.touched |= _days([each[_TS] for each in there])
            elif len(there) > 1:
                self.report.add("twice", place, f"{len(there)} rows")
                self._merge |= _days([row[_TS]])
        if self.repair and (missing or wrong):
            self._delete(wrong)
            again = set(missing) | set(wrong)
            rows = [row for row in good if (row[0], row[1]) in again]
            self.warehouse.insert(TABLE, columns_of(rows, int(time.time()), self._masking))
            self._present += len(missing)

    def _rows(self, places: Iterable[Place], also: str = "") -> dict[Place, list[tuple[Any, ...]]]:
        """What the table has at these places, by place."""
        spans: dict[int, tuple[int, int]] = {}
        wanted = set(places)
        for partition, offset in wanted:
            low, high = spans.get(partition, (offset, offset))
            spans[partition] = min(low, offset), max(high, offset)
        where = " OR ".join(
            f"(k_partition = {p} AND k_offset >= {low} AND k_offset <= {high})" for p, (low, high) in spans.items()
        )
        found: dict[Place, list[tuple[Any, ...]]] = {}
        for row in self.warehouse.query(f"SELECT {_SELECTED} FROM {TABLE} WHERE ({where}){also}").rows:
            if (row[0], row[1]) in wanted:
                each = tuple(tuple(v) if isinstance(v, list) else v for v in row)
                found.setdefault((row[0], row[1]), []).append(each)
        return found

    def finish(self) -> None:
        """What the table has and the topic has not; then what is twice is merged."""
        for partition, (begin, end) in self.report.spans.items():
            where = f"k_partition = {partition} AND k_offset >= {begin} AND k_offset < {end}{self._day}"
            (count,) = self.warehouse.query(f"SELECT uniqExact(k_offset) FROM {TABLE} WHERE {where}").rows[0]
            self.report.rows += count
        if self.report.rows != self._present:
            for partition, span in self.report.spans.items():
                self._extra(partition, *span)
        if self.repair:
            table = physical(TABLE, self.warehouse.database, self._cluster)
            for day in sorted(self._merge):
                self.warehouse.command(f"OPTIMIZE TABLE {table} PARTITION {day:%Y%m%d} FINAL")

    def _extra(self, partition: int, begin: int, end: int) -> None:
        runs = self._known[partition]
        firsts = [first for first, _ in runs]
        extra = []
        for low in range(begin, end, 1_000_000):
            where = (
                f"k_partition = {partition} AND k_offset >= {low} AND k_offset < {min(low + 1_000_000, end)}{self._day}"
            )
            for offset, message, kind in self.warehouse.query(
                f"SELECT k_offset, any(message_id), toString(any(kind)) FROM {TABLE} WHERE {where} GROUP BY k_offset"
            ).rows:
                at = bisect_right(firsts, offset) - 1
                if at < 0 or offset >= runs[at][1]:
                    self.report.add("extra", (partition, offset), f"{kind} of {message}")
                    extra.append((partition, offset))
        if self.repair:
            self._delete(extra)

    def _delete(self, places: Sequence[Place]) -> None:
        """Rows at these places, and wait until they are gone."""
        by_partition: defaultdict[int, list[int]] = defaultdict(list)
        for partition, offset in places:
            by_partition[partition].append(offset)
        for partition, offsets in by_partition.items():
            listed = ", ".join(map(str, sorted(offsets)))
            delete(self.warehouse, TABLE, f"k_partition = {partition} AND k_offset IN ({listed})", self._cluster)
