"""The ledger (postroad/ledger.py) from two sources that know nothing of each other: ClickHouse, and the topics.

    from_clickhouse(warehouse, since_ms, tenant)          blocks; what ClickHouse was told. It counts, we look at what is odd
    await from_topics(installation, since_ms, tenant)     what Kafka has: submissions, events, attempts, dead letters

From the topics, a message is accepted when its submission is in the log: its id is worked out as ingest does. So a submission
that nobody has read is seen, and so is an event accepted of what nobody has submitted. Ends are those of mail.events.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from analytics.clickhouse import Warehouse
from analytics.reading import Reader
from analytics.sql import statements
from postroad import ledger
from postroad.checks import check_limits
from postroad.ids import message_id
from postroad.intake import distinct, told_once
from postroad.ledger import ATTEMPTED, SUBMITTED, Allowed, Count, Group, Life, Report, Step, follow
from topics.catalogue import (
    ACCEPTED,
    ATTEMPTS,
    BROADCASTS,
    CLEARED,
    DAY_MS,
    DEAD_LETTERS,
    ENDINGS,
    EVENTS,
    OUTBOUND,
    OUTBOUND_BROADCAST,
    SCHEDULED,
    SCORED,
    SUBMISSIONS,
    VALIDATED,
    origin,
    place_of,
)  # fmt: skip
from topics.installation import Installation

FOLDER = Path(__file__).parent / "ledger"
DEFAULT = Allowed()
CLOCKS_MS = 3_600_000  # the clocks of brokers and workers differ by less; reading starts so much earlier
_TAKEN = (SUBMISSIONS, BROADCASTS)
_CARRIERS = (
    ACCEPTED,
    VALIDATED,
    SCORED,
    CLEARED,
    OUTBOUND,
    SCHEDULED,
    ENDINGS,
    ATTEMPTS,
    OUTBOUND_BROADCAST,
)  # of a message
_WATCHERS = ("audit", "events_sink")  # a dead letter of theirs stops no message


def _now() -> int:
    return time.time_ns() // 1_000_000


# -- ClickHouse ----------------------------------------------------------------------------------------------------------
def from_clickhouse(
    warehouse: Warehouse, since_ms: int = 0, tenant: str = "", now_ms: int | None = None, allowed: Allowed = DEFAULT
) -> Report:
    """The ledger of what was accepted from `since_ms` on, as ClickHouse has it. Blocks. Raises WarehouseError."""
    now = _now() if now_ms is None else now_ms
    report = Report("clickhouse", settled_ms=now - allowed.transit_ms)
    # steps are in the days after acceptance; a day for clocks and time zones
    window = {
        "tenant": tenant,
        "since_ms": since_ms,
        "since": datetime.fromtimestamp(max(0, since_ms - DAY_MS) / 1000, UTC),
    }
    for of, stream, accepted, ended, before, done in warehouse.query(
        _sql("counts"), {**window, "settled_ms": report.settled_ms}
    ).rows:
        report.counts[of, stream] = Count(int(accepted), int(ended), int(accepted) - int(ended))
        if before:
            report.settled[of, stream] = int(before), int(done)
    times = {
        "now_ms": now,
        "transit_ms": allowed.transit_ms,
        "sending_ms": allowed.sending_ms,
        "expires_ms": allowed.expires_ms,
    }
    suspects = warehouse.query(_sql("suspects"), {**window, **times}).rows
    for id, steps in groupby(suspects, itemgetter(0)):
        life: Life | None = None
        group = ("", "")
        for _, of, stream, kind, round, attempt, at, accepted_at, due in steps:
            group = of, stream
            life = follow(life, Step(kind, at, accepted_at, round, attempt, due or None), allowed)
        if life is not None:
            report.find(id, group, life, now, allowed)
    return report


def _sql(name: str) -> str:
    return statements((FOLDER / f"{name}.sql").read_text(encoding="utf-8"))[0]


# -- the topics ----------------------------------------------------------------------------------------------------------
async def from_topics(
    installation: Installation,
    since_ms: int = 0,
    tenant: str = "",
    now_ms: int | None = None,
    allowed: Allowed = DEFAULT,
) -> Report:
    """The ledger of what was accepted from `since_ms` on, as far as the topics reach back. Raises KafkaError,
    RegistryUnavailable."""
    now = _now() if now_ms is None else now_ms
    report = Report("topics", settled_ms=now - allowed.transit_ms)
    lives = _Lives(since_ms, tenant, allowed)
    async with Reader(installation, max(0, since_ms - CLOCKS_MS)) as reader:
        # effects before causes: what lies behind a step that we read is in its topic before the end that we read to
        for topic in (ATTEMPTS, EVENTS, *_TAKEN, DEAD_LETTERS):
            await reader.note_end(topic)
        letters = await _letters(reader)
        resolved = await _submissions(reader, lives, letters)
        async for _, event in reader.read(EVENTS):
            if step := ledger.step_of(event):
                lives.follow(event["message_id"], (event["tenant"], event["stream"]), step)
        # a submission that was replayed is accepted at its new place; the messages of one that was discarded have ends
        for id, group, step in resolved:
            if id in lives:
                lives.follow(id, group, step)
        async for _, attempt in reader.read(ATTEMPTS, unless=lives.is_told):
            message = attempt["message"]
            step = Step(ATTEMPTED, attempt["at"], message["accepted_at"], message["round"])
            lives.follow(message["message_id"], (message["tenant"], message["stream"]), step)
        complete_from = max([await reader.complete_from(topic) for topic in _TAKEN]) + CLOCKS_MS
        report.unreadable = reader.unreadable
    kept_from = now - EVENTS.retention_ms + DAY_MS  # of what is older the beginning may be gone
    for id, group, life in lives:
        if life.told and not life.in_log and life.accepted_at >= complete_from:
            life = life._replace(told=False)  # nobody has submitted it
        letter = letters.of(id, now, allowed)
        if life.accepted:
            report.count(group, life, known_to_all=life.told or not letter)
        if life.accepted or life.accepted_at >= kept_from:
            report.find(id, group, life, now, allowed, letter)
    return report


class _Lives:
    """All lives of a window, packed: about 200 bytes a message."""

    def __init__(self, since_ms: int, tenant: str, allowed: Allowed) -> None:
        self._since, self._tenant, self._allowed = since_ms, tenant, allowed
        self._lives: dict[bytes, bytes] = {}
        self._groups: dict[Group, bytes] = {}

    def __contains__(self, id: str) -> bool:
        return _key(id) in self._lives

    def follow(self, id: str, group: Group, step: Step) -> None:
        """One step more, where it is in the window."""
        if step.accepted_at < self._since or self._tenant not in ("", group[0]):
            return
        number = self._groups.get(group)
        if number is None:
            number = self._groups[group] = len(self._groups).to_bytes(4, "big")
        key = _key(id)
        raw = self._lives.get(key)
        life = follow(None if raw is None else ledger.unpack(raw), step, self._allowed)
        self._lives[key] = life.pack() + (number if raw is None else raw[ledger.PACKED_SIZE :])

    def is_told(self, key: bytes | None) -> bool:
        """Whether there is an event accepted of the message with this key."""
        return key is not None and (raw := self._lives.get(key)) is not None and ledger.unpack(raw).told

    def __iter__(self) -> Iterator[tuple[str, Group, Life]]:
        groups = list(self._groups)
        for key, raw in self._lives.items():
            group = groups[int.from_bytes(raw[ledger.PACKED_SIZE :], "big")]
            yield key.decode("utf-8", "surrogatepass"), group, ledger.unpack(raw)


def _key(id: str) -> bytes:
    return id.encode("utf-8", "surrogatepass")


async def _submissions(reader: Reader, lives: _Lives, letters: _Letters) -> list[tuple[str, Group, Step]]:
    """Follow the messages of the submissions in the log, by the ids that ingest gives them. Returns those of submissions that
    were dead letters and that an operator has dealt with."""
    resolved = []
    async for record, submission in _taken(reader):
        place = place_of(record.topic, record.partition, record.offset)  # as a letter would name it
        tenant, group = submission["tenant"], (submission["tenant"], submission["stream"])
        try:
            told = told_once(submission) if check_limits(submission) else submission
            recipients = distinct(told["recipients"])
            first = origin(record.headers, place, record.timestamp)
            ids = [
                message_id(first.at, tenant, submission["submission_id"], first.place, each["address"])
                for each in recipients
            ]
        except Exception:  # whatever mail can do to us: ingest makes a dead letter of it
            reader.unreadable += 1
            continue
        step = Step(SUBMITTED, first.at, first.at)
        for id in ids:
            if place in letters.resolved:
                resolved.append((id, group, step))
                continue
            if letter := letters.submissions.get(place):
                letters.open[id] = letter
            lives.follow(id, group, step)
    return resolved


async def _taken(reader: Reader) -> AsyncIterator[tuple[Any, Any]]:
    for topic in _TAKEN:
        async for found in reader.read(topic):
            yield found


@dataclass
class _Letters:
    """The dead letters of a window. `submissions`, `resolved`: by place (`place_of`) of a submission, its open letter,
    and those that an operator has replayed or discarded. `open`: by message id, the letter that the message waits in;
    `moving`: the letter that it has come out of, and when."""

    submissions: dict[str, str] = field(default_factory=dict)
    resolved: set[str] = field(default_factory=set)
    open: dict[str, str] = field(default_factory=dict)
    moving: dict[str, tuple[str, int]] = field(default_factory=dict)

    def of(self, id: str, now: int, allowed: Allowed) -> str:
        """Id of the letter that explains why a message has not moved, empty for none."""
        letter, at = self.moving.get(id, ("", 0))
        return self.open.get(id) or (letter if at + allowed.transit_ms >= now else "")


async def _letters(reader: Reader) -> _Letters:
    """Fold mail.dead-letters: a letter, and later, under the same key, what an operator did with it."""
    name = reader.installation.name
    topics, submissions = {name(topic): topic for topic in (*_CARRIERS, EVENTS)}, set(map(name, _TAKEN))
    named: dict[str, tuple[str, str]] = {}  # letter -> place of a submission, or id of a message
    resolved: dict[str, int] = {}  # letter -> when
    async for record, letter in reader.read(DEAD_LETTERS):
        key = (record.key or b"").decode("utf-8", "replace")
        if letter["resolution"] is not None:
            resolved[key] = letter["resolution"]["at"]
        elif letter["stage"] in _WATCHERS and not letter["source"]:
            pass  # it stops no message
        elif letter["topic"] in submissions:
            named[key] = place_of(letter["topic"], letter["partition"], letter["offset"]), ""
        elif (topic := topics.get(letter["topic"])) and letter["value"] is not None:
            value = await reader.decode(topic, letter["value"])
            if value is not None:
                named[key] = "", value.get("message", value)["message_id"]
    letters = _Letters()
    for key, (place, id) in named.items():
        if place and key in resolved:
            letters.resolved.add(place)
        elif place:
            letters.submissions[place] = key
        elif key in resolved:
            letters.moving[id] = key, resolved[key]
        else:
            letters.open[id] = key
    return letters
