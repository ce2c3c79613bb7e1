"""Every table computed again from the topics, by rules of its own, and compared with what the tables hold.

A table is read from its changelog as its owner would recover it, and from RocksDB folders of workers that have stopped. What
the topics say is taken from the outputs of a stage where a table tells of them (an end, a cleared round, a try), and from its
inputs where it is a fold of them (lists, cancellations). To be done when the road has drained: a record that waits is told as
a difference of its own.

| table | is |
|---|---|
| ingest: dedupe | the ids of every submission that got messages on the road; of a dedupe id the last one |
| ingest: tenant_quota | messages let in, of tenants with a quota a day; the rate is a time of the worker's clock |
| suppress: suppressed, not_in_force, cancelled; schedule: cancelled | a fold of mail.suppressions, mail.cancellations, mail.decisions |
| suppress: seen | the highest round in mail.cleared, or that suppress found the end |
| send: deliveries | the last round that was tried or parked, and whether an MX took it |
| classify: ended | the end in mail.events |
| schedule: due, waiting, beginning | each other's mirror; every message that was scheduled and not released, and has no end |

Not counted: content_scores, mx_cache (caches of what can be had again), rate_limits (a clock's), audited (a digest of events
that only alarms are made of).

What is no difference, although table and topics are not the same:

1. Outputs of work that was done again. A batch whose outputs were stored and whose state was not (a crash, a zombie) is done
   again, later, and may then come out differently: expired instead of cleared, 250 instead of a deferral. The topics have both
   outcomes, the table that of the time that counted: it must be ONE of them.
2. Expiry. An entry whose time is over may be there until the sweep comes to it, and an expected one may be gone.
"""

from __future__ import annotations

import struct
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from time import time_ns
from typing import Any, NamedTuple

import rocksdict
from faust.types import TP

from agents.worker import STAGES
from avro.records import Decision
from loadtest.chaos import facts, reading
from loadtest.chaos.facts import Facts
from postroad import suppression
from tables import cancelled, dedupe, ended, seen
from tables.cancelled import CANCELLED
from tables.dedupe import DEDUPE
from tables.deliveries import DELIVERIES
from tables.due import BEGINNING, DUE, WAITING, due_at
from tables.ended import ENDED
from tables.seen import SEEN
from tables.store import EPOCH, MARK, NO_EPOCH, STALE, mark_key, take
from tables.suppressions import NOT_IN_FORCE, SUPPRESSED
from tables.suppressions import key as listed_key
from tables.tenant_quota import TENANT_QUOTA
from topics.catalogue import (
    DAY_MS,
)  # fmt: skip
from topics.consumer import OFFSET_KEY
from topics.effects import Window
from topics.installation import Installation
from topics.outputs import partition_for
from topics.stage import BatchStage, EffectStage
from topics.state import EXPIRY_BUCKET_MS, MAX_NUMBER, Table
from topics.unreadable import Unreadable

CLOCKS_MS = 3_600_000  # the clocks of brokers and workers differ by less, also where they are stepped
WINDOW_S = 86_400  # of a tenant that does not say (dedupe_window_s)
_mark = struct.Struct(">q")  # of a pure stage: the last finished offset

Part = dict[bytes, bytes]  # one partition of a stage's store


class Entry(NamedTuple):
    """A value of a table: where it lies, when its time is over (ms; None: never)."""

    partition: int
    value: Any
    until: int | None


# -- what the tables hold ----------------------------------------------------------------------------------------------


def changelog(installation: Installation, stage: str) -> str:
    """Full name of the changelog of a stage, as tables/store.py has it."""
    return f"{installation.group(stage)}-state-changelog"


async def changelogs(installation: Installation, stage: str, partitions: int) -> list[list[Any]]:
    """The records of a stage's changelog, by partition."""
    parts: list[list[Any]] = [[] for _ in range(partitions)]
    async for records in reading.raw(installation, changelog(installation, stage), partitions):
        for record in records:
            if not isinstance(record, Unreadable):
                parts[record.partition].append(record)
    return parts


def recovered(records: Iterable[Any]) -> Part:
    """What a RocksDB has that read these changelog records, in order; a zombie's records change nothing."""
    part: Part = {}
    for key, value in take(records, NO_EPOCH):
        if key.startswith(STALE):
            continue
        if value is None:
            part.pop(key, None)
        else:
            part[key] = value
    return part


def table(parts: Sequence[Part], of: Table[Any]) -> dict[str, list[Entry]]:
    """The entries of a table by key; an entry of a key in each partition that has it."""
    found: dict[str, list[Entry]] = defaultdict(list)
    for partition, part in enumerate(parts):
        for key, raw in part.items():
            if key[0] == of.number:
                until = int.from_bytes(raw[:4], "big") * EXPIRY_BUCKET_MS if of.expires else None
                value = of.decode(raw[4:] if of.expires else raw)
                found[key[1:].decode("utf-8", "surrogateescape")].append(Entry(partition, value, until))
    return found


# -- the comparison, pure ----------------------------------------------------------------------------------------------


class Compared:
    """Collects differences of one table. `now` (ms): entries whose time is over by then are neither wanted nor wrong."""

    def __init__(self, name: str, held: Mapping[str, list[Entry]], now: int, once: bool = True):
        self.name, self.now, self.lines = name, now, list[str]()
        self.held = {
            key: alive
            for key, entries in held.items()
            if (alive := [entry for entry in entries if entry.until is None or entry.until > now])
        }
        for key, entries in self.held.items():
            if once and len(entries) > 1:
                self.wrong(key, f"is in partitions {', '.join(str(entry.partition) for entry in entries)}")

    def wrong(self, key: str, what: str) -> None:
        self.lines.append(f"{self.name} {key!r}: {what}")

    def missing(self, key: str, until: int | None, what: str) -> None:
        """The table does not have what it should have until `until` (ms) at least."""
        if until is None or until > self.now:
            self.wrong(key, f"not there; the topics say {what}")

    def unknown(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.wrong(key, f"has {self.held[key][0].value!r}; the topics say nothing of it")


def ended_lines(told: Facts, parts: Sequence[Part], now: int) -> list[str]:
    compared = Compared("ended", table(parts, ENDED), now)
    for id, ends in told.ends.items():
        if (entries := compared.held.get(id)) is None:
            compared.missing(id, min(ends.values()) + ended.KEPT_MS, _said(ends))
        elif ((value := entries[0].value)["kind"], value["message"]["round"]) not in ends:
            compared.wrong(
                id, f"has {value['kind']} of round {value['message']['round']}; the topics say {_said(ends)}"
            )
    compared.unknown(compared.held.keys() - told.ends.keys())
    return compared.lines


def _said(ends: Collection[tuple[str, int]]) -> str:
    return " and ".join(f"{kind} of round {round}" for kind, round in ends)


def seen_lines(told: Facts, parts: Sequence[Part], now: int) -> list[str]:
    compared = Compared("seen", table(parts, SEEN), now)
    for id in told.cleared.keys() | told.stopped.keys():
        (round, until), stopped = told.cleared.get(id, (-1, 0)), told.stopped.get(id)
        possible = ({seen.ENDED} if stopped is not None else set()) | ({round} if round >= 0 else set())
        if (entries := compared.held.get(id)) is None:
            compared.missing(id, max(until, stopped or 0) + seen.KEPT_MS, str(possible))
        elif entries[0].value not in possible:
            compared.wrong(id, f"has {entries[0].value}; the topics say {' or '.join(map(str, possible))}")
    compared.unknown(compared.held.keys() - told.cleared.keys() - told.stopped.keys())
    return compared.lines


def suppressed_lines(told: Facts, parts: Sequence[Part], now: int) -> list[str]:
    wanted: dict[str, Any] = {}
    until: dict[str, int] = {}
    for entry in told.entries:
        key, rules = listed_key(entry["tenant"], entry["recipient"]), suppression.rules(told.tenant(entry["tenant"]))
        wanted[key] = suppression.apply(wanted.get(key), entry, rules)
        until[key] = suppression.kept_until(wanted[key], rules)
    active = {key: listed for key, listed in wanted.items() if listed["active"]}
    others = {key: listed for key, listed in wanted.items() if not listed["active"]}
    return [
        *_fold_lines("suppressed", table(parts, SUPPRESSED), active, {}, now),
        *_fold_lines("not_in_force", table(parts, NOT_IN_FORCE), others, until, now),
    ]


def cancelled_lines(decisions: Mapping[str, Decision], parts: Sequence[Part], now: int, stage: str) -> list[str]:
    wanted = {id: decision["reason"] for id, decision in decisions.items()}
    until = {id: decision["at"] + cancelled.KEPT_MS - CLOCKS_MS for id, decision in decisions.items()}
    return _fold_lines(f"cancelled of {stage}", table(parts, CANCELLED), wanted, until, now)


def _fold_lines(
    name: str, held: Mapping[str, list[Entry]], wanted: Mapping[str, Any], until: Mapping[str, int], now: int
) -> list[str]:
    compared = Compared(name, held, now)
    for key, value in wanted.items():
        if (entries := compared.held.get(key)) is None:
            compared.missing(key, until.get(key), repr(value))
        elif entries[0].value != value:
            compared.wrong(key, f"has {entries[0].value!r}; the topics say {value!r}")
    compared.unknown(compared.held.keys() - wanted.keys())
    return compared.lines


def deliveries_lines(told: Facts, parts: Sequence[Part], now: int) -> list[str]:
    """Its partition is the site's, and a domain may move to another site: then both have an entry, and the later counts."""
    compared = Compared("deliveries", table(parts, DELIVERIES), now, once=False)
    for id, tried in told.tries.items():
        if (entries := compared.held.get(id)) is None:
            compared.missing(id, tried.until, f"round {tried.round}")
            continue
        last = max(entry.value for entry in entries)
        if last.round != tried.round or last.delivered not in tried.outcomes:
            outcomes = " or ".join("delivered" if outcome else "not delivered" for outcome in sorted(tried.outcomes))
            compared.wrong(id, f"has {last}; the topics say round {tried.round}, {outcomes}")
    compared.unknown(compared.held.keys() - told.tries.keys())
    return compared.lines


def dedupe_lines(told: Facts, parts: Sequence[Part], now: int) -> list[str]:
    wanted: dict[str, Any] = {}
    until: dict[str, int] = {}
    for one in sorted(told.submitted):
        if not any(id in told.admitted or id in told.over_quota for id, _ in one.messages):
            continue
        key = dedupe.by_submission(one.tenant, one.submission_id)
        wanted[key] = {"submission_id": one.submission_id, "messages": []}
        window_ms = told.tenant(one.tenant).get("dedupe_window_s", WINDOW_S) * 1000
        until[key] = one.at + window_ms - CLOCKS_MS
        if one.dedupe_id is not None:
            key = dedupe.by_dedupe_id(one.tenant, one.dedupe_id)
            wanted[key] = {"submission_id": one.submission_id, "messages": [list(pair) for pair in one.messages]}
            until[key] = one.at + window_ms - CLOCKS_MS
    return _fold_lines("dedupe", table(parts, DEDUPE), wanted, until, now)


def quota_lines(told: Facts, parts: Sequence[Part], now: int) -> list[str]:
    """`used` counts the messages of one day. It is exact where all of a tenant lie within one; else it is at most all of them."""
    compared = Compared("tenant_quota", table(parts, TENANT_QUOTA), now)
    used = Counter(told.admitted.values())
    days: dict[str, set[int]] = defaultdict(set)
    for one in told.submitted:
        days[one.tenant] |= {(one.at - CLOCKS_MS) // DAY_MS, (one.at + CLOCKS_MS) // DAY_MS}
    for tenant, count in used.items():
        daily = told.tenant(tenant).get("quota_per_day", 0)
        if (entries := compared.held.get(tenant)) is None:
            compared.missing(tenant, None, f"{count} messages")
        elif (has := entries[0].value.used) != (count if daily else 0) and not (len(days[tenant]) > 1 and has <= count):
            compared.wrong(
                tenant, f"has {has} messages of day {entries[0].value.day}; the topics say {count if daily else 0}"
            )
    compared.unknown(compared.held.keys() - used.keys())
    return compared.lines


def due_lines(told: Facts, parts: Sequence[Part], now: int) -> list[str]:
    compared = Compared("waiting", table(parts, WAITING), now)
    for partition, part in enumerate(parts):
        compared.lines += _mirror_lines(part, partition)
    for id, round in told.scheduled.items():
        if id in compared.held or id in told.ends or id in told.over or told.released.get(id, -1) > round:
            continue
        compared.wrong(id, f"not there; the topics say that round {round} waits, and nobody has released or ended it")
    compared.unknown(compared.held.keys() - told.scheduled.keys())
    return compared.lines


def _mirror_lines(part: Part, partition: int) -> Iterator[str]:
    """`due`, `waiting` and `beginning` of one partition against each other."""
    waiting = {key[1:]: WAITING.decode(raw) for key, raw in part.items() if key[0] == WAITING.number}
    first = BEGINNING.decode(part[key]) if (key := bytes((BEGINNING.number,))) in part else 0
    for key, raw in part.items():
        if key[0] != DUE.number:
            continue
        at, id = due_at(key[1:]), key[9:]
        message, place = DUE.decode(raw)["message"], waiting.pop(id, None)
        if place is None:
            yield f"due {id.decode()!r}: waits in partition {partition} until {at}, and `waiting` does not know it"
        elif (place.round, place.due_at, place.cleared) != (message["round"], at, message["cleared"]):
            yield f"due {id.decode()!r}: round {message['round']} until {at}, and `waiting` says {place}"
        if at < first:
            yield f"due {id.decode()!r}: waits until {at}, before the beginning at {first}: it is never released"
    for id, place in waiting.items():
        yield f"waiting {id.decode()!r}: {place}, and there is nothing in `due`"


def placed_lines(stage: str, numbers: Collection[int], parts: Sequence[Part]) -> Iterator[str]:
    """Entries under a message id that lie in another partition than the records of that id."""
    for partition, part in enumerate(parts):
        for key in part:
            if key[0] in numbers and partition_for(key[1:], len(parts)) != partition:
                yield f"{stage} {key[1:]!r}: lies in partition {partition}, where no record of it comes"


def mark_lines(stage: str, sources: Sequence[Sequence[int]], effects: bool, parts: Sequence[Part]) -> Iterator[str]:
    """Records that a stage has not finished. `sources`: for each of its topics the end of each partition."""
    for number, ends in enumerate(sources):
        for partition, end in enumerate(ends):
            raw = parts[partition].get(mark_key(number))
            done = 0 if raw is None else (_unfinished(raw, end) if effects else _mark.unpack(raw)[0] + 1)
            if done != end:
                yield f"{stage}: source {number}, partition {partition} is finished up to {done} and ends at {end}"


def _unfinished(raw: bytes, end: int) -> int:
    """The first offset that an effect stage has not finished, `end` where there is none before it."""
    window = Window(TP("", 0), 0, 0, raw)
    return next((offset for offset in range(window.low, end) if not window.is_finished(offset)), max(window.low, end))


def rocks_lines(what: str, part: Part, rocks: Mapping[bytes, bytes]) -> Iterator[str]:
    """A RocksDB against what the changelog says up to the place that it knows."""
    for key in part.keys() | rocks.keys():
        if (0 < key[0] <= MAX_NUMBER or key.startswith(MARK)) and part.get(key) != rocks.get(key):
            yield f"{what} {key!r}: RocksDB has {_short(rocks.get(key))}, the changelog {_short(part.get(key))}"


def _short(raw: bytes | None) -> str:
    return "nothing" if raw is None else f"{raw[:60]!r}"


def lines(told: Facts, stores: Mapping[str, Sequence[Part]], now: int) -> list[str]:
    """All tables against the topics. `stores`: the partitions of each stage's store."""
    found: list[str] = []
    if parts := stores.get("ingest"):
        found += dedupe_lines(told, parts, now) + quota_lines(told, parts, now)
    if parts := stores.get("suppress"):
        found += suppressed_lines(told, parts, now) + seen_lines(told, parts, now)
        found += cancelled_lines(told.cancellations, parts, now, "suppress")
    if parts := stores.get("send"):
        found += deliveries_lines(told, parts, now)
    if parts := stores.get("classify"):
        found += ended_lines(told, parts, now)
        found += placed_lines("classify", {ENDED.number}, parts)
    if parts := stores.get("schedule"):
        found += due_lines(told, parts, now) + cancelled_lines(told.decisions, parts, now, "schedule")
        found += placed_lines("schedule", {WAITING.number, CANCELLED.number}, parts)
    return found


async def recount(installation: Installation, folders: Iterable[Path] = (), now_ms: int | None = None) -> list[str]:
    """One line of words for each difference. `folders`: data folders of workers that have stopped, whose RocksDB is compared
    with the changelog, too."""
    now = time_ns() // 1_000_000 if now_ms is None else now_ms
    told = await facts.read(installation, await reading.letters(installation))
    found: list[str] = []
    stores: dict[str, list[Part]] = {}
    for name in STAGES:
        stage = import_module(f"agents.{name}").stage
        effects = isinstance(stage, EffectStage)
        if isinstance(stage, BatchStage) or not (stage.tables or effects):
            continue
        logs = await changelogs(installation, name, installation.partitions_of(stage.reads[0]))
        stores[name] = [recovered(records) for records in logs]
        ends = [await reading.ends(installation, topic) for topic in stage.reads]
        found += mark_lines(name, ends, effects, stores[name])
        for folder in folders:
            found += _folder_lines(folder, name, logs)
    return found + lines(told, stores, now)


def _folder_lines(folder: Path, stage: str, logs: Sequence[Sequence[Any]]) -> Iterator[str]:
    for partition, records in enumerate(logs):
        path = folder / stage / "v1" / "tables" / f"state-{partition}.db"
        if not (path / "CURRENT").exists():
            continue
        options, access = rocksdict.Options(raw_mode=True), rocksdict.AccessType.read_only()
        rocks = rocksdict.Rdict(str(path), options=options, access_type=access)
        try:
            held = dict(rocks.items())
        finally:
            rocks.close()
        reached = int(held.get(OFFSET_KEY, b"-1"))
        part = recovered(record for record in records if record.offset <= reached)
        part.pop(EPOCH, None)
        yield from rocks_lines(f"{stage}[{partition}] in {folder.name}", part, held)
