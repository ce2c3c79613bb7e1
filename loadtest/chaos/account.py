"""The account of a chaos run: four counts that know nothing of each other must say the same.

1. What producers got acknowledged: message ids computed from Kafka's answers and the plan. A record whose write had an unknown
   outcome may lie in the log without an acknowledgement, or a second time: it was accepted all the same, so what lies in
   mail.submissions counts too, by its place.
2. The farm's receipts.
3. The ledger from Kafka: mail.events.
4. The ledger from ClickHouse.

A receipt that was not answered with 250 (the site closed after DATA) is a mail that the recipient has. So it counts among a
message's receipts, and whatever comes after it must be flagged: RFC 1047 says why nobody can do better. But it does not stand
for a delivery: `delivered` is said after a 250 only, so it needs a receipt that was answered.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from agents.worker import STAGES
from analytics import audit
from analytics.clickhouse import Warehouse
from analytics.reading import Reader
from loadtest.chaos import reading
from loadtest.chaos.load import Load
from loadtest.chaos.plan import Planned, plan
from loadtest.chaos.reading import Letters
from loadtest.demo.checks import Acknowledged
from loadtest.demo.ledger import STEPS, Life, gather
from loadtest.mxfarm import Receipt
from postroad import ledger
from postroad.events import ENDS
from postroad.ids import message_id
from postroad.intake import distinct
from postroad.returnpath import named
from topics.catalogue import ALL, EVENTS, SUBMISSIONS, Topic

AUDIT = "audit"
SHOWN = 5  # examples of each kind of difference
KINDS = ("accepted", "deferred", "reported", *sorted(ENDS))  # events that tell of ends, or may admit a second delivery


@dataclass
class Sent:
    """Messages that must have an end, by id; the value says where they come from. `missing`: acknowledged submissions that are
    not in the log at their place; `unacknowledged`: messages that are only in the log."""

    acknowledged: dict[str, str] = field(default_factory=dict)
    unacknowledged: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


@dataclass
class Account:
    """Message ids. `lost`: accepted, and without an end in one of the ledgers, or called delivered without an answered receipt;
    `two_ends`: with more than one; `duplicates`: one entry for each receipt beyond a message's first, `unflagged` those that no
    event admits, `early` those that came before the time that was asked about, `unanswered` how many follow from receipts that
    the site did not answer; `differences`: everything else on which the counts disagree, in words; `counts`: how many of what."""

    lost: list[str] = field(default_factory=list)
    two_ends: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    unflagged: list[str] = field(default_factory=list)
    early: list[str] = field(default_factory=list)
    unanswered: int = 0
    differences: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    ends: Counter[str] = field(default_factory=Counter)


def account(load: Load, warehouse: Warehouse, poisoned: Collection[str] = (), early_s: float = 0.0) -> Account:
    """Count everything of a run that has drained. `poisoned`: places of records that nobody can read, which must be the dead
    letters; `early_s`: seconds since 1970, receipts before it are told apart."""
    return asyncio.run(_account(load, warehouse, poisoned, early_s))


async def _account(load: Load, warehouse: Warehouse, poisoned: Collection[str], early_s: float) -> Account:
    at = load.installation
    letters = await reading.letters(at)
    async with Reader(at) as reader:
        sent = await accepted(reader, load.acknowledgements, plan(load.planned, load.seed), letters)
        kafka, last, alarms = await lives(reader)
    rows = (await asyncio.to_thread(warehouse.query, STEPS, {"kinds": [*KINDS]})).rows
    found = compare(sent, kafka, gather(rows), load.farm.receipts, last, round(early_s * 1000))
    from_topics, from_clickhouse = (
        await audit.from_topics(at),
        await asyncio.to_thread(audit.from_clickhouse, warehouse),
    )
    nobody_reads = tuple(f"{at.name(topic)}[" for topic in ALL if topic not in read_by_stages())
    expected = {place for place in poisoned if not place.startswith(nobody_reads)}
    found.differences += reports(from_topics, from_clickhouse) + put_aside(letters, expected)
    _tell(found, "alarms of the live audit, where nothing is wrong", alarms)
    return found


def read_by_stages() -> set[Topic[Any]]:
    """Topics whose records a stage reads, so that what it cannot process is a dead letter."""
    return {topic for name in STAGES for topic in import_module(f"agents.{name}").stage.reads}


# -- what was accepted -------------------------------------------------------------------------------------------------


async def accepted(
    reader: Reader, acknowledged: Mapping[int, Acknowledged], planned: Iterable[Planned], letters: Letters
) -> Sent:
    """The messages that producers got acknowledged, and those that are in the log beside them. A submission that was a dead
    letter and was put back has its messages, with other ids, at its new place."""
    topic = reader.installation.name(SUBMISSIONS)
    sent = Sent()
    places: dict[tuple[int, int], str] = {}  # of acknowledged records
    somewhere: dict[tuple[str, str], str] = {}  # Kafka has it and does not know where
    for one in planned:
        if (answer := acknowledged.get(one.place)) is None:
            continue
        submission, place = one.submission, (answer["partition"], answer["offset"])
        named = submission["tenant"], submission["submission_id"]
        what = f"{one.kind}, submission {one.place} at {place[0]}:{place[1]}"
        if answer["offset"] < 0:
            somewhere[named] = what
            continue
        places[place] = what
        if f"{topic}[{place[0]}]@{place[1]}" in letters.replayed:
            continue
        for recipient in submission["recipients"]:
            id = message_id(answer["timestamp"], *named, f"{place[0]}:{place[1]}", recipient["address"])
            sent.acknowledged[id] = what
    async for record, submission in reader.read(SUBMISSIONS):
        named = submission["tenant"], submission["submission_id"]
        if places.pop((record.partition, record.offset), None) is not None:
            continue
        acked = somewhere.pop(named, None)
        if reading.place(record) in letters.replayed:
            continue
        if acked is None and ("ingest", reading.place(record)) in letters.inputs:
            continue  # nobody was promised anything about it, and nobody can make messages of it
        into = sent.unacknowledged if acked is None else sent.acknowledged
        at = f"{record.partition}:{record.offset}"
        for recipient in distinct(submission["recipients"]):
            into[message_id(record.timestamp, *named, at, recipient["address"])] = acked or f"{named[1]} at {at}"
    sent.missing = [*places.values(), *somewhere.values()]
    return sent


async def lives(reader: Reader) -> tuple[dict[str, Life], dict[str, str], list[str]]:
    """Every message that has an event in Kafka, as `loadtest.demo.ledger.lives` has it from ClickHouse; its last event; what
    stage audit has found."""
    alarms: list[str] = []
    seen: set[str] = set()
    rows: list[tuple[str, str, str, bool, str, int]] = []
    last: dict[str, str] = {}
    async for _, event in reader.read(EVENTS):
        id, kind = event["message_id"], event["kind"]
        if event["stage"] == AUDIT:
            alarms.append(f"{id}: {event['reason']}")
        if kind not in KINDS:
            last[id] = f"{kind} {event['reason']}".strip()
            continue
        again = event["event_id"] in seen
        if not again or event["possible_duplicate"]:
            seen.add(event["event_id"])
            # the same event a second time tells of the same step: only what it admits may be new
            rows.append(
                (id, "reported" if again else kind, event["reason"], event["possible_duplicate"], event["site"], 0)
            )
        last[id] = f"{kind} {event['reason']}".strip()
    return gather(rows), last, alarms


# -- the comparison, pure ----------------------------------------------------------------------------------------------


def compare(
    sent: Sent, kafka: Mapping[str, Life], clickhouse: Mapping[str, Life], receipts: Iterable[Receipt],
    last: Mapping[str, str] | None = None, early_ms: int = 0,
) -> Account:  # fmt: skip
    """The four counts. `last`: the last event of a message, to say where a lost one was; `early_ms`: see `Account.early`."""
    found, nothing, told = Account(), Life(), last or {}
    mails: dict[str, list[Receipt]] = defaultdict(list)
    for receipt in receipts:
        mails[named(receipt.mail_from)].append(receipt)
    wanted = sent.acknowledged | sent.unacknowledged
    untold: list[str] = []
    for id in wanted.keys() | kafka.keys() | clickhouse.keys():
        lived, stored = kafka.get(id, nothing), clickhouse.get(id, nothing)
        if len(lived.ends) > 1 or len(stored.ends) > 1:
            found.two_ends.append(id)
        taken = mails.get(id, ())
        answered = any(receipt.answered for receipt in taken)
        if not lived.ends or not stored.ends or ("delivered" in (lived.end, stored.end) and not answered):
            found.lost.append(id)
        elif answered and lived.end != "delivered" and not lived.flagged:
            untold.append(f"{id} {lived.ends[0]}")
        found.ends.update([lived.end] if lived.end else [])
    for id, taken in mails.items():
        if len(taken) > 1:
            _count_duplicates(found, id, taken, kafka.get(id, nothing).flagged, early_ms)

    found.lost.sort()
    where = [f"{id} ({wanted.get(id, 'from nowhere')}; last: {told.get(id, 'no event')})" for id in found.lost]
    _tell(found, "lost", where)
    _tell(found, "two ends", [f"{id} {' and '.join(kafka.get(id, nothing).ends)}" for id in found.two_ends])
    _tell(found, "received twice, and no event admits it", found.unflagged)
    _tell(found, "acknowledged by Kafka, but not in its log", sent.missing)
    _tell(found, "taken by a site that said so, ended otherwise, and no event tells of it", untold)
    _tell(found, "mails at the farm that nobody sent", [id or "?" for id in mails.keys() - wanted.keys()])
    _compare_ledgers(found, wanted, kafka, clickhouse)
    found.counts = {
        "acknowledged": len(sent.acknowledged), "unacknowledged": len(sent.unacknowledged),
        "accepted in Kafka": sum(life.accepted for life in kafka.values()), "ended in Kafka": sum(map(_ended, kafka.values())),
        "accepted in ClickHouse": sum(life.accepted for life in clickhouse.values()),
        "ended in ClickHouse": sum(map(_ended, clickhouse.values())),
        "receipts": sum(map(len, mails.values())), "messages at the farm": len(mails),
    }  # fmt: skip
    return found


def _ended(life: Life) -> bool:
    return bool(life.ends)


def _count_duplicates(found: Account, id: str, taken: Sequence[Receipt], flagged: bool, early_ms: int) -> None:
    more = len(taken) - 1
    found.duplicates += [id] * more
    found.unflagged += [] if flagged else [id] * more
    found.early += [id for receipt in sorted(taken, key=lambda one: one.time)[1:] if receipt.time < early_ms]
    found.unanswered += min(more, sum(not receipt.answered for receipt in taken))


def _compare_ledgers(
    found: Account, wanted: Mapping[str, str], kafka: Mapping[str, Life], clickhouse: Mapping[str, Life]
) -> None:
    nothing = Life()
    for name, ledger_of in (("Kafka", kafka), ("ClickHouse", clickhouse)):
        accepted = {id for id, life in ledger_of.items() if life.accepted}
        _tell(found, f"sent, but never accepted in the ledger from {name}", list(wanted.keys() - accepted))
        _tell(found, f"in the ledger from {name}, and nobody sent it", list(ledger_of.keys() - wanted.keys()))
    differ = [
        f"{id}: {', '.join(a.ends) or 'no end'} in Kafka, {', '.join(b.ends) or 'no end'} in ClickHouse"
        for id in kafka.keys() | clickhouse.keys()
        if sorted((a := kafka.get(id, nothing)).ends) != sorted((b := clickhouse.get(id, nothing)).ends)
    ]
    _tell(found, "the two ledgers have other ends", differ)
    flags = [id for id, life in kafka.items() if life.flagged != clickhouse.get(id, nothing).flagged]
    _tell(found, "only one of the two ledgers flags a possible duplicate", flags)


def reports(kafka: ledger.Report, clickhouse: ledger.Report) -> list[str]:
    """What `postroad audit` finds wrong, and where its two sources disagree."""
    found = Account()
    for name, report in (("Kafka", kafka), ("ClickHouse", clickhouse)):
        if not report.ok:
            _tell(found, f"audit of {name}: orphans", [str(one) for one in report.orphans])
            _tell(found, f"audit of {name}: two ends", [str(one) for one in report.two_ends])
            _tell(found, f"audit of {name}: attempts without a message", [str(one) for one in report.strays])
    for key in sorted(kafka.counts.keys() | clickhouse.counts.keys()):
        one, other = kafka.counts.get(key), clickhouse.counts.get(key)
        if one != other:
            found.differences.append(f"audit of {'/'.join(key)}: {one} from Kafka, {other} from ClickHouse")
    return found.differences


def put_aside(letters: Letters, poisoned: Collection[str]) -> list[str]:
    """Dead letters that are no poison and that nobody has resolved, and poison that is nowhere."""
    found = Account()
    _tell(found, "dead letters that nobody has resolved", sorted(letters.open - set(poisoned)))
    _tell(found, "poison that is not in the dead letters", sorted(set(poisoned) - letters.ids))
    return found.differences


def _tell(found: Account, what: str, which: Sequence[str]) -> None:
    if which:
        more = f", and {len(which) - SHOWN} more" if len(which) > SHOWN else ""
        found.differences.append(f"{what}: {len(which)} ({', '.join(which[:SHOWN])}{more})")
