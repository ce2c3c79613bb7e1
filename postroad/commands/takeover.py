"""Region B takes over from the copies of A's topics: what the stages of B may believe, and what has to be done again.

The mirror copies each topic at its own pace. So in B a changelog may be ahead of the outputs that came before it in A, and what it then says
("finished", "let through", "tried", "ended") would pass over mail that is nowhere else. Every such entry is dropped unless `mail.events` of B
tells of the message's end; all other state (lists, quotas, plans, limits, waiting times) stays. Each message that B knows and that has no end
goes on from the furthest record that B has of it, flagged `possible_duplicate`: A may have sent it and no copy tells. What cannot be done
from B's own copies is named, and comes from A's log (`missing`).

1. changelogs: a claim of the next epoch, and deletions behind it; marks too: they are offsets of A
2. offsets of all groups: mail's topics at their ends, the others from some time before
3. messages that are on their way, then submissions that nobody has accepted
4. the note that it was done
Broken off, it is run again before any worker starts: copies that come twice are stopped by the gates of topics/guarantees.md.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from itertools import islice
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from agents.worker import STAGES
from analytics.reading import Reader
from avro.records import Message, Submission
from postroad.events import ENDS, event
from postroad.ids import message_id
from postroad.intake import distinct
from tables.audited import AUDITED
from tables.dedupe import DEDUPE
from tables.deliveries import DELIVERIES
from tables.due import DUE, WAITING, due_at
from tables.ended import ENDED
from tables.seen import SEEN
from tables.store import CHANGELOG_CONFIG, EPOCH, EPOCH_HEADER, MARK, NO_EPOCH, take
from topics import admin
from topics.catalogue import (
    ACCEPTED,
    AGAIN,
    ALL,
    ATTEMPTS,
    BROADCASTS,
    CLEARED,
    ENDINGS,
    EVENTS,
    KNOWN,
    ORIGIN,
    OUTBOUND,
    OUTBOUND_BROADCAST,
    SCHEDULED,
    SCORED,
    SUBMISSIONS,
    VALIDATED,
    Output,
    Topic,
    origin,
    place_of,
)
from topics.client import Client
from topics.installation import Installation
from topics.overview import Overview
from topics.state import Table

DOORS = (SUBMISSIONS, BROADCASTS)
#: Topics of mail on its way, by how far along it is there in one round; SCHEDULED: after whatever has parked it.
ROAD: dict[Topic[Any], int] = {
    ACCEPTED: 0, VALIDATED: 1, SCORED: 2, CLEARED: 3, OUTBOUND: 4, OUTBOUND_BROADCAST: 4, SCHEDULED: 5, ATTEMPTS: 6, ENDINGS: 7,
}  # fmt: skip
FAR = 1 << 40  # an ending is the furthest of all rounds
#: By stage, a table whose keys are message ids and which stops what comes again.
GATES: dict[str, Table[Any]] = {"suppress": SEEN, "send": DELIVERIES, "classify": ENDED}
EXPIRY = 4  # bytes in front of a value that expires
AT_ONCE = 500  # changes that are under way
TAKEN_OVER = "region"  # the group whose commit says that it was done

Rank = tuple[int, int, int]
Who = tuple[str, str, str]  # tenant, submission id, recipient


class RegionError(Exception):
    """It cannot be done so; the text says why and what to do."""


class Seat(NamedTuple):
    """The furthest record of a message in this region: `partition` and `offset` in `topic`, or its entry in `due` (offset -1)."""

    rank: Rank
    topic: Topic[Any]
    partition: int
    offset: int


@dataclass
class Known:
    """What a region has of its mail, by message id. `who`: all of them; `told`: an event says that it was accepted; `seats`: its furthest
    record; `waits`: schedule lets it go in the time to come, by itself."""

    who: dict[str, Who] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    seats: dict[str, Seat] = field(default_factory=dict)
    waits: dict[str, Rank] = field(default_factory=dict)

    @property
    def on_the_way(self) -> dict[str, Seat]:
        """Those without an end, to be put back; what waits in schedule for a time to come stays there."""
        return {id: seat for id, seat in self.seats.items() if id not in self.ended and not self.stays(id)}

    def stays(self, id: str) -> bool:
        """It waits, and nothing of it has gone further."""
        return id in self.waits and (id not in self.seats or self.seats[id].rank <= self.waits[id])

    def forget(self) -> set[str]:
        """What was accepted and of which no record is here: it has to come again. Returns their ids."""
        nowhere = self.told - self.ended - self.seats.keys() - self.waits.keys()
        self.told -= nowhere
        for id in nowhere:
            del self.who[id]
        return nowhere


@dataclass
class Done:
    """What a take-over has done: messages put back, submissions put back, deletions by stage, ids that only A's log can bring."""

    resumed: int = 0
    resubmitted: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    nowhere: list[str] = field(default_factory=list)


class Lacking(NamedTuple):
    """A submission that is to come again, for those of its recipients that have no message; or that only belongs in the log (`known`)."""

    topic: Topic[Any]
    key: bytes
    submission: Submission
    origin: str
    known: bool = False

    @property
    def ids(self) -> list[str]:
        """Of its messages."""
        at, _, place = self.origin.partition(" ")
        one = self.submission
        return [
            message_id(int(at), one["tenant"], one["submission_id"], place, to["address"]) for to in one["recipients"]
        ]


# -- what is here ------------------------------------------------------------------------------------------------------


async def known(reader: Reader, state: dict[str, list[dict[bytes, bytes]]], now: int) -> Known:
    """From the events, the road's topics and schedule's table. About 400 bytes of memory for each message since the reader's time."""
    found = Known()
    async for _, told in reader.read(EVENTS):
        id = told["message_id"]
        if told["kind"] == "accepted":
            found.told.add(id)
            found.who[id] = told["tenant"], told["submission_id"], told["recipient"]
        elif told["kind"] in ENDS:
            found.ended.add(id)
    for topic in ROAD:
        async for record, value in reader.read(topic):
            _sit(found, _message(topic, value), Seat(rank(topic, value), topic, record.partition, record.offset))
    for partition, entries in enumerate(state.get("schedule", [])):
        for key in [key for key in entries if key[:1] == bytes((DUE.number,))]:
            if (entry := await reader.decode(SCHEDULED, entries[key])) is None:
                continue
            place = rank(SCHEDULED, entry)
            if due_at(key[1:]) > now and entry["due_at"] is not None:
                found.waits[_meet(found, entry["message"])] = place
            else:
                _sit(found, entry["message"], Seat(place, SCHEDULED, partition, -1))
    return found


def rank(topic: Topic[Any], value: Any) -> Rank:
    """How far along a message is: its round, its tries, and the stage."""
    message = _message(topic, value)
    return FAR if topic is ENDINGS else message["round"], message["attempt"], ROAD[topic]


def _message(topic: Topic[Any], value: Any) -> Message:
    return value["message"] if topic in (SCHEDULED, ATTEMPTS, ENDINGS) else value  # type: ignore[no-any-return]  # decoded


def _meet(found: Known, message: Message) -> str:
    id = message["message_id"]
    found.who[id] = message["tenant"], message["submission_id"], message["recipient"]
    return id


def _sit(found: Known, message: Message, seat: Seat) -> None:
    before = found.seats.get(id := _meet(found, message))
    if before is None or seat.rank > before.rank:
        found.seats[id] = seat


def lacking(
    found: Known, submissions: Iterable[tuple[Topic[Any], Any, Submission]]
) -> tuple[list[Lacking], set[tuple[str, str]]]:
    """Submissions with recipients for whom there is no message, and (tenant, submission id) of those that are whole. Ids first; then by
    recipient, where offsets differ from A's and so do the ids."""
    rest = Counter(found.who.values())
    unknown: list[tuple[Topic[Any], Any, Submission, list[Any]]] = []
    whole: set[tuple[str, str]] = set()
    for topic, record, submission in submissions:
        pair = submission["tenant"], submission["submission_id"]
        absent = []
        for recipient in distinct(submission["recipients"]):
            id = message_id(
                record.timestamp, *pair, place_of(record.topic, record.partition, record.offset), recipient["address"]
            )
            if id in found.who:
                rest[(*pair, recipient["address"])] -= 1
            else:
                absent.append(recipient)
        if absent:
            unknown.append((topic, record, submission, absent))
        else:
            whole.add(pair)
    found_lacking = []
    for topic, record, submission, absent in unknown:
        pair, still = (submission["tenant"], submission["submission_id"]), []
        for recipient in absent:
            if rest[(*pair, recipient["address"])] > 0:
                rest[(*pair, recipient["address"])] -= 1
            else:
                still.append(recipient)
        if still:
            place = place_of(record.topic, record.partition, record.offset)
            found_lacking.append(
                Lacking(topic, record.key, {**submission, "recipients": still}, f"{record.timestamp} {place}")
            )
        else:
            whole.add(pair)
    return found_lacking, whole


async def submitted(reader: Reader) -> list[tuple[Topic[Any], Any, Submission]]:
    """Every submission here, without those that were put here by a take-over."""
    return [(topic, record, value) for topic in DOORS async for record, value in reader.read(topic)
            if ORIGIN not in dict(record.headers)]  # fmt: skip


# -- the state of the stages -------------------------------------------------------------------------------------------


def stages() -> dict[str, Any]:
    """Every stage, by its name."""
    return {name: import_module(f"agents.{name}").stage for name in STAGES}


def changelog(installation: Installation, stage: str) -> str:
    """Full name of a stage's changelog."""
    return f"{installation.group(stage)}-state-changelog"


async def state_of(installation: Installation, name: str, partitions: int) -> list[dict[bytes, bytes]]:
    """The state in a changelog as a worker would recover it, by partition; EPOCH among its keys."""
    found: list[dict[bytes, bytes]] = [{} for _ in range(partitions)]
    async with _consumer(installation) as consumer:
        tps = [TopicPartition(name, n) for n in range(partitions)]
        consumer.assign(tps)
        await consumer.seek_to_beginning(*tps)
        ends = await consumer.end_offsets(tps)
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            for tp, records in (await consumer.getmany(timeout_ms=200)).items():
                state = found[tp.partition]
                for key, value in take(records, state.get(EPOCH, NO_EPOCH)):
                    if value is None:
                        state.pop(key, None)
                    else:
                        state[key] = value
    return found


def unbelieved(
    stage: str, state: dict[bytes, bytes], found: Known, whole: set[tuple[str, str]]
) -> dict[bytes, bytes | None]:  # fmt: skip
    """What of a stage's state is true in A alone, and what it becomes here: marks go, and so does what would pass over messages of whose
    end B knows nothing."""
    wrong: dict[bytes, bytes | None] = {key: None for key in state if key.startswith(MARK)}
    gate, due = GATES.get(stage), bytes((DUE.number,))
    for key, value in state.items():
        if stage == "schedule" and key[:1] in (due, bytes((WAITING.number,))):
            id = key[9 if key[:1] == due else 1 :].decode()
            if id in found.ended or not found.stays(id):
                wrong[key] = None
        elif gate is not None and key[0] == gate.number:
            id = key[1:].decode()  # of what waits in schedule the gates say what is over
            if id not in found.ended and not found.stays(id):
                wrong[key] = None
        elif stage == "ingest" and key[0] == DEDUPE.number:
            tenant = key[1:].decode().partition("\0")[0]
            if (tenant, DEDUPE.decode(value[EXPIRY:])["submission_id"]) not in whole:
                wrong[key] = None
        elif stage == "audit" and key[0] == AUDITED.number and key[1:].decode() not in found.ended:
            audited = AUDITED.decode(value[EXPIRY:])
            if audited.life.ends:  # the end that it will have is the first that B tells of
                wrong[key] = value[:EXPIRY] + AUDITED.encode(audited._replace(life=audited.life._replace(ends=())))
    return wrong


async def correct(
    producer: AIOKafkaProducer, name: str, partition: int, epoch: bytes, changes: Mapping[bytes, bytes | None]
) -> None:  # fmt: skip
    """A claim of the next epoch, then the changes, confirmed."""
    mine = (int.from_bytes(epoch, "big") + 1).to_bytes(4, "big")
    headers = [(EPOCH_HEADER[0][0], mine)]
    await producer.send_and_wait(name, mine, key=EPOCH, partition=partition, headers=headers)
    left = iter(changes.items())
    while some := list(islice(left, AT_ONCE)):
        sent = [await producer.send(name, value, key=key, partition=partition, headers=headers) for key, value in some]
        await asyncio.gather(*sent)


# -- the steps ---------------------------------------------------------------------------------------------------------


async def prepare(installation: Installation) -> list[str]:
    """Before the mirror begins: the topics, of which those of submissions keep the times that A gave them: ids are made of these.
    Returns what was created."""
    if await taken_over(installation):
        raise RegionError(
            "this region has taken over: it is no target of a mirror any more; make its cluster anew first"
        )
    created = await admin.ensure(installation, [topic for topic in ALL if topic not in DOORS])
    try:
        created += await admin.ensure(installation, DOORS)
    except admin.TopicMismatch as mismatch:
        if not all("message.timestamp.type=CreateTime" in line for line in str(mismatch).splitlines()):
            raise
    else:
        await _set_times(installation, "CreateTime")
    return created


async def _set_times(installation: Installation, kind: str) -> None:
    client = AIOKafkaAdminClient(bootstrap_servers=installation.bootstrap)
    await client.start()
    try:
        await client.alter_configs([
            ConfigResource(ConfigResourceType.TOPIC, installation.name(topic),
                           configs={**topic.configuration(), "message.timestamp.type": kind})
            for topic in DOORS
        ])  # fmt: skip
    finally:
        await client.close()


async def taken_over(installation: Installation) -> bool:
    """Whether `take_over` came to its end here."""
    tp = TopicPartition(installation.name(SUBMISSIONS), 0)
    async with _consumer(installation, installation.group(TAKEN_OVER)) as consumer:
        return await consumer.committed(tp) is not None


async def take_over(installation: Installation, now: int, since_ms: int, again_ms: int) -> Done:
    """All steps. `since_ms`: mail older than that is not looked at; `again_ms`: from when on stages read again what is no mail on its
    way. Raises RegionError where it was done before, or workers run."""
    if await taken_over(installation):
        raise RegionError("this region has taken over already: a second time would pass over what has come since")
    async with Overview(installation.bootstrap, installation.group(""), STAGES) as overview:
        if here := [one.stage for one in await overview.look() if one.replicas]:
            raise RegionError(
                f"workers run here already ({', '.join(here)}): stop them, and start them when this is done"
            )
    await _set_times(installation, "LogAppendTime")
    await admin.ensure(installation)
    kept = {name: stage for name, stage in stages().items() if stage.tables}
    state: dict[str, list[dict[bytes, bytes]]] = {}
    for name, stage in kept.items():
        partitions = installation.partitions_of(stage.reads[0])
        await admin.ensure_changelog(installation, changelog(installation, name), partitions, CHANGELOG_CONFIG)
        state[name] = await state_of(installation, changelog(installation, name), partitions)
    done = Done()
    async with Reader(installation, since_ms) as reader, Client(installation) as client:
        found = await known(reader, state, now)
        nowhere = found.forget()
        lack, whole = lacking(found, await submitted(reader))
        await _believe(installation, state, found, whole, done)
        await _begin(installation, again_ms)
        await _put_back(reader, client, found, state.get("schedule", []), done)
        for one in lack:
            await resubmit(client, one)
        done.resubmitted = len(lack)
        done.nowhere = sorted(nowhere.difference(*(one.ids for one in lack)))
    async with _consumer(installation, installation.group(TAKEN_OVER)) as consumer:
        tp = TopicPartition(installation.name(SUBMISSIONS), 0)
        consumer.assign([tp])
        await consumer.commit({tp: (await consumer.end_offsets([tp]))[tp]})
    return done


async def _believe(
    installation: Installation, state: dict[str, list[dict[bytes, bytes]]], found: Known, whole: set[tuple[str, str]], done: Done
) -> None:  # fmt: skip
    producer = AIOKafkaProducer(bootstrap_servers=installation.bootstrap, acks="all", enable_idempotence=True)
    await producer.start()
    try:
        for name, partitions in state.items():
            for partition, entries in enumerate(partitions):
                wrong = unbelieved(name, entries, found, whole)
                await correct(producer, changelog(installation, name), partition, entries.get(EPOCH, NO_EPOCH), wrong)
                done.dropped[name] = done.dropped.get(name, 0) + len(wrong)
    finally:
        await producer.stop()


async def _begin(installation: Installation, again_ms: int) -> None:
    """Where each group begins."""
    mail = {*ROAD, *DOORS}
    for name, stage in stages().items():
        async with _consumer(installation, installation.group(name)) as consumer:
            at: dict[TopicPartition, int] = {}
            for topic in stage.reads:
                tps = [TopicPartition(installation.name(topic), n) for n in range(installation.partitions_of(topic))]
                ends = await consumer.end_offsets(tps)
                if topic in mail:
                    at |= ends
                elif name == "events_sink":  # it asks its store what is there
                    at |= await consumer.beginning_offsets(tps)
                else:
                    times = await consumer.offsets_for_times(dict.fromkeys(tps, again_ms))
                    at |= {tp: ends[tp] if times[tp] is None else times[tp].offset for tp in tps}
            consumer.assign(list(at))
            await consumer.commit(at)


async def _put_back(
    reader: Reader, client: Client, found: Known, schedule: list[dict[bytes, bytes]], done: Done
) -> None:  # fmt: skip
    """Each message on its way, at the furthest place that is known, flagged."""
    left = found.on_the_way
    places = {(seat.topic, seat.partition, seat.offset): id for id, seat in left.items()}
    for topic in ROAD:
        async for record, value in reader.read(topic):
            if (topic, record.partition, record.offset) in places:
                await _again(client, topic, value, found, done)
    for entries in schedule:
        for key, raw in entries.items():
            if key[:1] != bytes((DUE.number,)):
                continue
            id = key[9:].decode()
            if (seat := left.get(id)) and seat.offset < 0:
                await _again(client, SCHEDULED, await reader.decode(SCHEDULED, raw), found, done)
            elif found.stays(id) and id not in found.told and id not in found.ended:
                await _tell(client, (await reader.decode(SCHEDULED, raw))["message"])


async def _again(client: Client, topic: Topic[Any], value: Any, found: Known, done: Done) -> None:
    message = _message(topic, value)
    if message["message_id"] not in found.told:
        await _tell(client, message)
    message["possible_duplicate"] = True
    output: Output = topic.send(value)
    await client.send(output)
    done.resumed += 1


async def _tell(client: Client, message: Message) -> None:
    """That it was accepted: the event has not come over."""
    await client.send(EVENTS.send(event(message, "accepted", message["accepted_at"], "ingest")))


# -- what only A has ---------------------------------------------------------------------------------------------------


async def missing(lost: Installation, here: Installation, now: int, since_ms: int) -> list[Lacking]:
    """Submissions in the log of the lost region that are not in the log here: each with the recipients that have no message here, and apart
    from it those that have one."""
    partitions = here.partitions_of(SCHEDULED)
    state = {"schedule": await state_of(here, changelog(here, "schedule"), partitions)}
    have = Counter[tuple[str, str, str]]()
    noted: set[str] = set()
    async with Reader(here, since_ms) as reader:
        found = await known(reader, state, now)
        for topic in DOORS:
            async for record, value in reader.read(topic):
                first = origin(record.headers, "", 0)
                if first.place:
                    noted |= set(Lacking(topic, b"", value, f"{first.at} {first.place}").ids)
                else:
                    have[value["tenant"], value["submission_id"], _digest(record.value)] += 1
    found.forget()
    absent: list[Lacking] = []
    async with Reader(lost, since_ms) as reader:
        for topic, record, submission in await submitted(reader):
            pair = submission["tenant"], submission["submission_id"], _digest(record.value)
            if have[pair] > 0:
                have[pair] -= 1
                continue
            place = place_of(record.topic, record.partition, record.offset)
            to = {True: list[Any](), False: list[Any]()}
            for one in distinct(submission["recipients"]):
                id = message_id(record.timestamp, *pair[:2], place, one["address"])
                if id not in noted:
                    to[id in found.who].append(one)
            first_at = f"{record.timestamp} {place}"
            absent += [Lacking(topic, record.key, {**submission, "recipients": some}, first_at, here_too)
                       for here_too, some in to.items() if some]  # fmt: skip
    return absent


async def resubmit(client: Client, one: Lacking) -> None:
    """Into the topic that it came in, with the place and time that its ids are made of."""
    header = f"{one.origin} {KNOWN if one.known else AGAIN}".encode()
    await client.send(Output(one.topic, one.key, one.submission, ((ORIGIN, header),)))


def _digest(raw: bytes) -> str:
    return hashlib.blake2b(raw, digest_size=16).hexdigest()


@asynccontextmanager
async def _consumer(installation: Installation, group: str | None = None) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(bootstrap_servers=installation.bootstrap, group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()
