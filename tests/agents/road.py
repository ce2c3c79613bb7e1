"""The road in memory, for properties: every stage scripted, topics as queues, DNS and MX hosts scripted, time by hand.

What can go wrong is drawn by a seeded `random.Random`: the order of topics, repeats of records, and crashes of a stage
after its outputs were stored and before its state was.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

from builders import NOW
from conftest import ScriptedServices

from agents import classify, ingest, route, schedule, score, send, suppress, validate
from postroad.dns import MxAnswer
from postroad.events import ENDS
from postroad.retry import RetrySchedule
from postroad.settings import Settings
from postroad.smtp import Envelope, Reply, Step, failed
from tables.due import due_at
from topics.catalogue import CLEARED, EVENTS, OUTBOUND, SCHEDULED, Output, Topic
from topics.stage import EffectStage
from topics.testing import Scripted

STAGES = [module.stage for module in (ingest, validate, score, suppress, route, send, classify, schedule)]
SECOND, HOUR = 1000, 3_600_000
RECOVERS = NOW + 100 * SECOND  # the name server of slow.test

TIGHT = '[default]\nmessages_per_connection = 1\nnew_connections_per_minute = 10000\n[site."tight.test"]\nmessages_per_second = 0.2\n'


class Road:
    """`repeats`: share of records that are written twice; `crashes`: of batches that are done again."""

    def __init__(self, seed: int, *, repeats: float = 0.0, crashes: float = 0.0) -> None:
        self.random = random.Random(seed)
        self.repeats, self.crashes, self.now = repeats, crashes, NOW
        self.services = ScriptedServices()
        self.services.settings = Settings(ehlo="out.test")
        self.services.shaping.say(TIGHT)
        self.services.clock = lambda: self.now / 1000
        self.services.restarted()
        self.services.retries = RetrySchedule((300, 40_000), 0.1, (60, 40_000))
        self.services.resolver.hosts |= {name: [(10, f"mx.{name}")] for name in ("there.test", "tight.test")}
        self.services.resolver.known = {
            f"mx.{name}": ["127.0.0.1"] for name in ("there.test", "tight.test", "slow.test", "flaky.test")
        }
        self.services.resolver.mx = self._mx
        self.services.transport.answer = self._answer
        self.stages = [Scripted(stage, self.services, NOW) for stage in STAGES]
        self.queues: dict[Topic[Any], list[Any]] = {}
        self.log: list[Output] = []
        self.received: Counter[str] = Counter()  # message id -> copies that an MX has taken
        self._seen: Counter[str] = Counter()

    # -- outside ---------------------------------------------------------------------------------------------------
    async def _mx(self, domain: str) -> MxAnswer:
        if domain == "slow.test" and self.now >= RECOVERS:
            return MxAnswer("hosts", ((10, "mx.slow.test"),), self.now + HOUR)
        if domain == "flaky.test":  # never sure, and never for long
            known = self.random.random() < 0.5
            return MxAnswer("hosts", ((10, "mx.flaky.test"),), self.now + 1) if known else MxAnswer("temporary", (), 0)
        hosts = self.services.resolver.hosts.get(domain, "no-domain")
        return (
            MxAnswer(hosts, (), self.now + HOUR)
            if isinstance(hosts, str)
            else MxAnswer("hosts", tuple(hosts), self.now + HOUR)
        )

    def _answer(self, host: str, envelope: Envelope) -> Step:
        """By the recipient's name. A host may have the message although it did not say so."""
        id, name = envelope.mail_from.partition("@")[0][2:].partition("-")[0], envelope.rcpt_to.partition("@")[0]
        self._seen[id] += 1
        first = self._seen[id] == 1
        if name.startswith("unknown"):
            return Step("rcpt", "replied", Reply(550, "5.1.1", "User unknown"))
        if name.startswith("full"):
            return Step("rcpt", "replied", Reply(552, "5.2.2", "over quota"))
        if name.startswith("never") or (name.startswith("grey") and first):
            return Step("rcpt", "replied", Reply(451, "4.7.1", "Greylisted, come back later"))
        self.received[id] += 1
        if (name.startswith("lost") and first) or (name.startswith("again") and not first):
            return failed("body", "connection-lost", "in the middle of the final dot")
        return Step("done", "replied", Reply(250, "2.0.0", "taken"))

    # -- the road --------------------------------------------------------------------------------------------------
    def put(self, topic: Topic[Any], *values: Any) -> None:
        self.queues.setdefault(topic, []).extend(values)

    async def run(self, until: int) -> None:
        """Until nothing moves any more, or `until` (ms)."""
        while True:
            while any(self.queues.values()):
                await self._step()
            times = [due_at(key) for key, _ in self.stages[-1].state.due.scan(limit=1)]
            if not times or times[0] > until:
                self._clock(max(self.now, until))
                return
            self._clock(max(times[0], self.now + SECOND) + self.random.choice([0, 1, SECOND]))
            self._store(self.stages[-1], await self._work(self.stages[-1], lambda again: self.stages[-1].tick()))

    async def _step(self) -> None:
        topic = self.random.choice([topic for topic, waiting in self.queues.items() if waiting])
        runner = next(runner for runner in self.stages if topic in runner.stage.reads)
        waiting = self.queues[topic]
        n = self.random.randint(1, len(waiting))
        batch, self.queues[topic] = waiting[:n], waiting[n:]
        written, doubt = self.now, isinstance(runner.stage, EffectStage)

        async def work(again: bool) -> list[Output]:
            return await runner.feed(topic, *batch, possible_duplicate=again and doubt, timestamp=written)

        self._store(runner, await self._work(runner, work))

    async def _work(self, runner: Scripted, work: Callable[[bool], Awaitable[list[Output]]]) -> list[Output]:
        """With some luck the outputs, or the first of them, are stored and the state is not; then all is done again, later."""
        outputs: list[Output] = []
        again = False
        while self.random.random() < self.crashes:
            values, keys, offset = dict(runner.database.values), list(runner.database._keys), runner._offset
            done = await work(again)
            outputs += done[: self.random.choice([0, len(done) // 2, len(done), len(done)])]
            runner.database.values, runner.database._keys, runner._offset = values, keys, offset
            self.services.restarted()
            self._clock(self.now + self.random.choice([0, SECOND, 20 * SECOND]))
            again = True
        return outputs + await work(again)

    def _clock(self, now: int) -> None:
        self.now = now
        for runner in self.stages:
            runner.now = now

    def _store(self, runner: Scripted, outputs: list[Output]) -> None:
        for output in outputs:
            self.log.append(output)
            readers = [other for other in self.stages if output.topic in other.stage.reads]
            for _ in readers:
                self.put(output.topic, *[output.value] * (2 if self.random.random() < self.repeats else 1))

    # -- the ledger ------------------------------------------------------------------------------------------------
    @property
    def dead_letters(self) -> list[Any]:
        return [letter for runner in self.stages for letter in runner.dead_letters]

    def waiting(self) -> int:
        """Messages that schedule knows of."""
        return len(self.stages[-1].state.waiting.scan())

    def events(self) -> list[Any]:
        return [output.value for output in self.log if output.topic is EVENTS]

    def accepted(self) -> set[str]:
        return {event["message_id"] for event in self.events() if event["kind"] == "accepted"}

    def ends(self) -> dict[str, set[str]]:
        """Event ids of the ends of each message."""
        found: dict[str, set[str]] = defaultdict(set)
        for event in self.events():
            if event["kind"] in ENDS:
                found[event["message_id"]].add(event["event_id"])
        return found

    def flagged(self) -> set[str]:
        return {event["message_id"] for event in self.events() if event["possible_duplicate"]}

    def passed(self) -> list[str]:
        """The way of the messages, for the text of a failure."""
        shown = (EVENTS, SCHEDULED, CLEARED, OUTBOUND)
        return [f"{output.topic.name} {output.value}"[:300] for output in self.log if output.topic in shown]
