"""The protocol of send as a property: deliver, table deliveries, attempt, commit. The real stage in real runners on a broker that
loses and delays, and an MX that takes a message and does not say so; killed and frozen at any await. Then classify, and back."""

from __future__ import annotations

import asyncio
import copy
import re
import zlib
from collections import Counter, defaultdict
from dataclasses import dataclass
from random import Random
from typing import Any

from builders import NOW, routed
from conftest import ScriptedServices, loop_time
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from model_broker import Record
from model_faults import Faults, profile
from model_worker import Worker, codec_of

from agents import classify, send
from postroad.events import ENDS
from postroad.smtp import Client, Pool, Reply, ScriptedSession, ScriptedTransport, Step, failed
from tables.deliveries import DELIVERIES
from topics.catalogue import ATTEMPTS, ENDINGS, EVENTS, OUTBOUND, SCHEDULED
from topics.testing import Scripted

ANSWERS = ["taken", "taken", "lost", "grey", "gone"]


@dataclass(eq=False)
class Transaction:
    """One message at the MX. `receipt`: which copy of the message it is, from the final dot on."""

    worker: Worker
    id: str
    reply: asyncio.Future[Step]
    receipt: int = 0


class Session(ScriptedSession):
    transport: Transport

    async def send(self, envelope: Any, message: bytes, laps: Any) -> Step:
        self.sent += 1
        step = await self.transport.outside.transact(asyncio.get_running_loop().worker, envelope)  # type: ignore[attr-defined]
        self.alive = step.outcome == "replied"
        return step


@dataclass
class Transport(ScriptedTransport):
    outside: Any = None

    async def connect(
        self, source: Any, host: str, address: str, port: int, limits: Any, starttls: bool, laps: Any
    ) -> Session:
        return Session(host, address, self)


class Services(ScriptedServices):
    """Of one process."""

    def __init__(self, outside: Any) -> None:
        super().__init__()
        self._client = Client(Pool(Transport(outside=outside), clock=loop_time, wait_s=0.01), self.resolver)

    def messages_at_once(self, key: bytes) -> int:
        return 5


def at_once(work: Any) -> Any:
    """The result of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


class SendProtocol(Faults):
    stage = send.stage

    def __init__(self) -> None:
        super().__init__()
        self.broker.on_append = self.appended
        self.classify = Scripted(classify.stage, ScriptedServices(), NOW)
        self.read: Counter[tuple[str, int]] = Counter()  # how far classify has read
        self.upstream = Worker.__new__(Worker)
        self.rounds: dict[str, int] = {}  # the last that suppress has let through
        self.epochs: dict[int, bytes] = defaultdict(bytes)
        self.delivered: set[str] = set()  # as the table says
        self.at_mx: list[Transaction] = []
        self.receipts: Counter[str] = Counter()
        self.events: list[dict[str, Any]] = []

    def services(self) -> Services:
        return Services(self)

    # -- what must hold --------------------------------------------------------------------------------------------
    def appended(self, sender: Worker, records: list[Record]) -> None:
        for record in records:
            if record.topic == ATTEMPTS.name:
                attempt = codec_of(ATTEMPTS).decode(record.value)
                receipt = re.search(r"receipt (\d+)", attempt["reply"])
                if receipt and int(receipt[1]) > 1:
                    assert attempt["possible_duplicate"], f"taken for the second time, and not flagged: {attempt}"
            elif record.topic == EVENTS.name:
                self.events.append(codec_of(EVENTS).decode(record.value))
            elif record.topic == "changelog" and record.headers[0][1] >= self.epochs[record.partition]:
                self.epochs[record.partition] = record.headers[0][1]
                if record.key[0] == DELIVERIES.number and DELIVERIES.decode(record.value[4:]).delivered:
                    self.delivered.add(record.key[1:].decode())

    async def transact(self, worker: Worker, envelope: Any) -> Step:
        id = envelope.mail_from.partition("@")[0][2:]
        owner = self.broker.group.owners.get(self.partition_of(id))
        # a worker that was frozen on its way to the MX cannot be called back
        if id in self.delivered and owner is worker:
            self.violations.append(f"{id} was recorded as delivered, and is tried again")
        self.at_mx.append(Transaction(worker, id, worker.loop.create_future()))
        return await self.at_mx[-1].reply

    # -- what happens ----------------------------------------------------------------------------------------------
    def partition_of(self, id: str) -> int:
        return zlib.crc32(id.encode()) % self.partitions

    def put(self, message: dict[str, Any]) -> None:
        self.rounds[message["message_id"]] = message["round"]
        raw = codec_of(OUTBOUND).encode(message)
        self.broker.append(
            self.upstream, OUTBOUND.name, self.partition_of(message["message_id"]), [(b"there.test#0", raw, [])]
        )

    @rule(n=st.integers(1, 3))
    def mail(self, n: int) -> None:
        for _ in range(n):
            self.put(routed(message_id=f"m{len(self.rounds)}", round=0))

    @precondition(lambda self: self.rounds)
    @rule(i=st.integers(0, 20))
    def repeat(self, i: int) -> None:
        """Route was done again after a crash."""
        log = self.broker.logs[OUTBOUND.name, i % self.partitions]
        if log:
            again = log[i % len(log)]
            self.broker.append(self.upstream, OUTBOUND.name, i % self.partitions, [(again.key, again.value, [])])

    @precondition(lambda self: self.at_mx)
    @rule(i=st.integers(0, 20))
    def take(self, i: int) -> None:
        """The MX has the message; its reply is under way."""
        one = self.at_mx[i % len(self.at_mx)]
        if not one.receipt:
            self.receipts[one.id] += 1
            one.receipt = self.receipts[one.id]

    @precondition(lambda self: self.at_mx)
    @rule(i=st.integers(0, 20), how=st.sampled_from(ANSWERS))
    def answer(self, i: int, how: str) -> None:
        """The reply arrives, or the end of the connection."""
        i %= len(self.at_mx)
        if how in ("taken", "lost"):
            self.take(i)
        one = self.at_mx.pop(i)
        if one.receipt and how != "lost":
            step = Step("done", "replied", Reply(250, "2.0.0", f"receipt {one.receipt}"))
        elif how == "grey":
            step = Step("rcpt", "replied", Reply(451, "4.7.1", "Greylisted, come back later"))
        elif how == "gone":
            step = failed("rcpt", "connection-lost", "before DATA")
        else:
            step = failed("body", "connection-lost", f"receipt {one.receipt}")
        if not one.reply.done():
            one.reply.set_result(step)

    @rule(twice=st.booleans())
    def classify_and_schedule(self, twice: bool = False) -> None:
        """What send has written is judged; what was put off comes back, each round once."""
        for (topic, partition), log in list(self.broker.logs.items()):
            if topic in (ATTEMPTS.name, ENDINGS.name, SCHEDULED.name):
                fresh, self.read[topic, partition] = log[self.read[topic, partition] :], len(log)
                for record in fresh * (1 + twice):
                    self.judge(topic, record)

    def judge(self, topic: str, record: Record) -> None:
        if topic == SCHEDULED.name:
            self.back(codec_of(SCHEDULED).decode(record.value))
            return
        source = ATTEMPTS if topic == ATTEMPTS.name else ENDINGS
        for output in at_once(self.classify.feed(source, codec_of(source).decode(record.value))):
            if output.topic is EVENTS:
                self.events.append(output.value)
            elif output.topic is SCHEDULED:
                self.back(output.value)

    def back(self, entry: Any) -> None:
        message = copy.deepcopy(entry["message"])
        message["round"] += 1
        if message["round"] > self.rounds[message["message_id"]]:
            self.put(message)

    def work(self, dice: Random) -> None:
        self.mail(1)
        self.repeat(dice.randrange(20))

    def outside(self, dice: Random | None = None) -> None:
        if dice is None:
            while self.at_mx:
                self.answer(0, "taken")
            self.classify_and_schedule()
        elif self.at_mx:
            i = dice.randrange(20)
            self.take(i) if dice.random() < 0.3 else self.answer(i, dice.choice(ANSWERS))

    def ended(self, worker: Worker) -> None:
        self.at_mx = [one for one in self.at_mx if one.worker is not worker]

    # -- in the end ------------------------------------------------------------------------------------------------
    def is_done(self) -> bool:
        committed = self.broker.group.committed
        logs = [(place, log) for place, log in self.broker.logs.items() if place[0] == OUTBOUND.name]
        return all(committed.get(place, 0) == len(log) for place, log in logs)

    def is_right(self) -> None:
        assert self.is_done(), "stuck"
        ends: dict[str, set[str]] = defaultdict(set)
        for event in self.events:
            if event["kind"] in ENDS:
                ends[event["message_id"]].add(event["event_id"])
        assert ends.keys() == self.rounds.keys(), "lost"
        assert all(len(found) == 1 for found in ends.values()), f"two ends: {dict(ends)}"
        flagged = {event["message_id"] for event in self.events if event["possible_duplicate"]}
        assert {id for id, n in self.receipts.items() if n > 1} <= flagged, "a second receipt, and no event says so"


TestSend = SendProtocol.TestCase
TestSend.settings = profile(12, 20)
