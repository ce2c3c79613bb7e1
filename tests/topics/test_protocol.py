"""The order of writes as a property: real runners, stores and consumers on a broker that loses, repeats and delays, killed and
frozen at any await. `topics/guarantees.md` says what must hold; it is checked at every append and every commit, and at the end.

HYPOTHESIS_PROFILE=long runs many more examples (minutes; give pytest --timeout=3600).
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from random import Random
from typing import Any

from faust.types import TP
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from model_faults import Faults, profile
from model_worker import Worker

from tables.store import EPOCH, NO_EPOCH, STALE, Overtaken, mark_key, take
from topics.catalogue import DEAD_LETTERS, Topic
from topics.codec import Codec
from topics.effects import Window
from topics.stage import EffectStage, Stage
from topics.state import Table

SCHEMA = {"type": "record", "name": "Thing", "fields": [
    {"name": "id", "type": "string"}, {"name": "actor", "type": "string"}, {"name": "kind", "type": "string"}]}  # fmt: skip
FIRST: Topic[Any] = Topic("first", SCHEMA, lambda value: value["actor"])
SECOND: Topic[Any] = Topic("second", SCHEMA, lambda value: value["actor"])
TARGET: Topic[Any] = Topic("target", SCHEMA, lambda value: value["actor"])
COUNTS: Table[int] = Table(1, "counts", lambda n: b"%d" % n, int)
CODEC, LETTERS = Codec(SCHEMA), Codec("DeadLetter")
KINDS = ["plain"] * 6 + ["poison", "refused"]


def more(value: Any, state: Any) -> None:
    state.counts.put(value["actor"], (state.counts.get(value["actor"]) or 0) + 1)


pure = Stage("pure", reads=[FIRST, SECOND], writes=[TARGET], tables=[COUNTS])


@pure.on(FIRST)
@pure.on(SECOND)
def count(value: Any, state: Any) -> Any:
    more(value, state)
    yield TARGET.send(value)
    if value["kind"] == "poison":
        raise ValueError("poison")


effect = EffectStage("effect", reads=[FIRST], writes=[TARGET], tables=[COUNTS], limit=4, key_limit=3,
                     identity=lambda value: value["actor"] if value["kind"] == "plain" else None)  # fmt: skip


@effect.perform
async def perform(value: Any, state: Any, possible_duplicate: bool) -> str:
    return await state.services.perform(asyncio.get_running_loop().worker, value, possible_duplicate)  # type: ignore[attr-defined]


@effect.settle
def settle(value: Any, result: str, state: Any) -> Any:
    more(value, state)
    yield TARGET.send(value)
    if value["kind"] == "poison":
        raise ValueError("poison")


class Protocol(Faults):
    """What happens, and what must hold whatever happens. Both kinds of stage have the same faults."""

    def __init__(self) -> None:
        super().__init__()
        self.broker.refuses = lambda topic, value: topic == TARGET.name and CODEC.decode(value)["kind"] == "refused"
        self.broker.on_append, self.broker.on_commit = self.appended, self.committed
        self.sent: dict[tuple[str, int], list[dict[str, str]]] = defaultdict(list)  # by place, in order of offsets
        self.arrived: set[str] = set()  # ids in the target, or in the dead letters
        self.dead_letters: set[str] = set()
        self.truth: dict[int, dict[bytes, bytes]] = {p: {} for p in range(self.partitions)}  # what changelogs say
        self.writers: dict[tuple[int, bytes], Worker] = {}  # of each epoch
        self.running: list[tuple[asyncio.Future[str], Worker]] = []  # effects
        self.performed: dict[str, list[bool]] = defaultdict(list)  # id -> flags

    def services(self) -> Protocol:
        return self

    def work(self, dice: Random) -> None:
        self.send([(dice.randrange(2), dice.randrange(self.partitions), dice.choice("ab"), dice.choice(KINDS))])

    def outside(self, dice: Random | None = None) -> None:
        if dice and self.running:
            self.finish(dice.randrange(20))
        while self.running and not dice:
            self.finish(0)

    def ended(self, worker: Worker) -> None:
        self.running = [(future, of) for future, of in self.running if of is not worker]

    # -- what must hold --------------------------------------------------------------------------------------------
    def appended(self, sender: Worker, records: list[Any]) -> None:
        assert not (sender.end and isinstance(sender.end, Overtaken)), "it had to stop"
        for record in records:
            if record.topic == TARGET.name:
                self.arrived.add(CODEC.decode(record.value)["id"])
            elif record.topic == DEAD_LETTERS.name:
                id = CODEC.decode(LETTERS.decode(record.value)["value"])["id"]
                self.arrived.add(id)
                self.dead_letters.add(id)
        if records[0].topic == "changelog":
            self.changed(sender, records)

    def changed(self, sender: Worker, records: list[Any]) -> None:
        """A record batch of a changelog: of the present owner, or void."""
        partition, epoch = records[0].partition, records[0].headers[0][1]
        truth = self.truth[partition]
        if epoch < truth.get(EPOCH, NO_EPOCH):
            return  # readers pass it over
        if records[0].key != EPOCH:
            writer = self.writers.setdefault((partition, epoch), sender)
            assert writer is sender, f"{writer} and {sender} both own {partition}"
        for record in records:
            if record.value is None:
                truth.pop(record.key, None)
            else:
                truth[record.key] = record.value
        finished = self.finished(partition)
        missing = {value["id"] for value in finished} - self.arrived
        assert not missing, f"finished before their outputs were stored: {missing}"
        counts = {key[1:].decode(): int(raw) for key, raw in truth.items() if key[0] == COUNTS.number}
        wanted = Counter(value["actor"] for value in finished if value["kind"] != "poison")
        assert counts == wanted, "changes and progress are one write"

    def finished(self, partition: int) -> list[dict[str, str]]:
        """Inputs that are finished as the changelog of `partition` says."""
        found = []
        for source, topic in enumerate(self.stage.reads):
            raw, sent = self.truth[partition].get(mark_key(source)), self.sent[topic.name, partition]
            if raw is not None and isinstance(self.stage, Stage):
                found += sent[: int.from_bytes(raw, "big") + 1]
            elif raw is not None:
                window = Window(TP(topic.name, partition), 0, source, raw)
                found += [value for offset, value in enumerate(sent) if window.is_finished(offset)]
        return found

    def committed(self, offsets: dict[tuple[str, int], int]) -> None:
        for (topic, partition), offset in offsets.items():
            done = {value["id"] for value in self.finished(partition)}
            early = [value["id"] for value in self.sent[topic, partition][:offset] if value["id"] not in done]
            assert not early, f"committed and not finished: {early}"

    async def perform(self, worker: Worker, value: dict[str, str], flag: bool) -> str:
        before = self.performed[value["id"]]
        # one that was on its way when its worker was frozen cannot be taken back
        if before and not flag and not (worker.thawed and False not in before):
            self.violations.append(f"{value['id']} performed again, and not flagged")
        before.append(flag)
        future: asyncio.Future[str] = worker.loop.create_future()
        self.running.append((future, worker))
        return await future

    # -- what it is about ------------------------------------------------------------------------------------------
    @rule(values=st.lists(st.tuples(st.integers(0, 1), st.integers(0, Faults.partitions - 1), st.sampled_from("ab"),
                                    st.sampled_from(KINDS)), min_size=1, max_size=6))  # fmt: skip
    def send(self, values: list[tuple[int, int, str, str]]) -> None:
        """Somebody upstream writes, acks=all."""
        for source, partition, actor, kind in values:
            topic = self.stage.reads[source % len(self.stage.reads)].name
            sent = self.sent[topic, partition]
            value = {"id": f"{topic}-{partition}-{len(sent)}", "actor": actor, "kind": kind}
            sent.append(value)
            upstream = Worker.__new__(Worker)
            upstream.end = None
            self.broker.append(upstream, topic, partition, [(actor.encode(), CODEC.encode(value), [])])

    @precondition(lambda self: self.running)
    @rule(i=st.integers(0, 20))
    def finish(self, i: int) -> None:
        """An effect ends."""
        future, _ = self.running.pop(i % len(self.running))
        if not future.done():
            future.set_result("done")

    # -- in the end ------------------------------------------------------------------------------------------------
    def at_rest(self) -> None:
        for slot, worker in enumerate(self.workers):  # the next owner claims, and heals what a zombie has left
            if worker is not None:
                self.end(slot)
        self.broker.group.plan = lambda partition, members: members[0]
        self.start(0)
        self.send([(0, partition, "a", "plain") for partition in range(self.partitions)])
        self.settle_down()
        for partition in range(self.partitions):
            last = {record.key: record for record in self.broker.logs["changelog", partition]}
            kept = {k: v for k, v in take(sorted(last.values(), key=lambda r: r.offset), NO_EPOCH) if v is not None}
            right = self.truth[partition]
            assert {k: v for k, v in kept.items() if k[:6] != STALE} == right, "compaction keeps a zombie's record"

    def is_done(self) -> bool:
        committed = self.broker.group.committed
        return all(committed.get(place, 0) == len(sent) for place, sent in self.sent.items())

    def is_right(self) -> None:
        assert self.is_done(), f"stuck: {self.broker.group.committed}, of {dict(self.sent)}"
        values = [value for sent in self.sent.values() for value in sent]
        assert self.arrived == {value["id"] for value in values}
        assert self.dead_letters == {value["id"] for value in values if value["kind"] != "plain"}
        for partition in range(self.partitions):
            assert len(self.finished(partition)) == sum(len(self.sent[t.name, partition]) for t in self.stage.reads)
        if isinstance(self.stage, EffectStage):
            assert self.performed.keys() == {value["id"] for value in values}
            assert all(flags.count(False) <= 1 for flags in self.performed.values())


class PureProtocol(Protocol):
    stage = pure


class EffectProtocol(Protocol):
    stage = effect


TestPure, TestEffect = PureProtocol.TestCase, EffectProtocol.TestCase
TestPure.settings = TestEffect.settings = profile(40, 30)
