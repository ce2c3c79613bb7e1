"""Fairness of effect stages: the order inside a key, crowds, keys that hang, partitions that are given away."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import rule
from model_faults import profile
from test_effects import CODEC, Bench, quiet
from test_protocol import COUNTS, FIRST, SECOND, TARGET, Protocol, more

from loadtest.engine.stages import SCHEMA, SOURCE
from topics import effects
from topics.catalogue import Topic
from topics.consumer import Batch, Consumer
from topics.fair import FairQueue
from topics.stage import EffectStage

OTHER: Topic[Any] = Topic("bench.other", SCHEMA, lambda event: event["actor"])
OWNER = "owner"

PUTS = st.tuples(st.just("put"), st.integers(0, 1), st.sampled_from([b"a", b"b", b"c", b"d"]))
STEPS = st.lists(PUTS | PUTS | st.tuples(st.sampled_from(["pop", "pop_last"]), st.integers(0, 1)), max_size=200)


# -- the queue ---------------------------------------------------------------------------------------------------------
@given(STEPS)
def test_every_record_comes_once_in_fair_order(steps):
    """Lanes first; an owner's own in order; and while a record has k of its owner before it, no other owner has more than k + 1
    turns. What is taken from the end is the newest of an owner who has most."""
    queue: FairQueue[int] = FairQueue()
    waiting: dict[int, dict[bytes, deque[int]]] = {0: defaultdict(deque), 1: defaultdict(deque)}
    before: dict[int, int] = {}  # number -> how many of its owner were before it when it came
    passed: dict[int, Counter[bytes]] = {}  # number -> turns of each owner of its lane since then
    for number, (step, lane, *owner) in enumerate(steps):
        if step == "put":
            queue.put(number, lane, owner[0])
            before[number], passed[number] = len(waiting[lane][owner[0]]), Counter()
            waiting[lane][owner[0]].append(number)
        elif step == "pop":
            left = {n: owners for n, owners in waiting.items() if any(owners.values())}
            if not left:
                with pytest.raises(IndexError):
                    queue.pop()
                continue
            first = min(left)
            found = queue.pop()
            (mine,) = (name for name, own in left[first].items() if own and own[0] == found)
            waiting[first][mine].popleft()
            assert all(turns <= before[found] + 1 for name, turns in passed[found].items() if name != mine)
            for numbers in waiting[first].values():
                for each in numbers:
                    passed[each][mine] += 1
        elif any(waiting[lane].values()):
            found = queue.pop_last(lane)
            most = max(map(len, waiting[lane].values()))
            (mine,) = (name for name, own in waiting[lane].items() if own and own[-1] == found)
            assert len(waiting[lane][mine]) == most
            waiting[lane][mine].pop()
        else:
            with pytest.raises(IndexError):
                queue.pop_last(lane)
        assert len(queue) == sum(len(own) for owners in waiting.values() for own in owners.values())


def test_a_broadcast_delays_another_tenant_by_one_turn():
    queue: FairQueue[str] = FairQueue()
    for n in range(10_000):
        queue.put(f"broadcast {n}", 1, b"loud")
    queue.put("quiet", 1, b"quiet")
    queue.put("transactional", 0, b"quiet")
    assert [queue.pop() for _ in range(3)] == ["transactional", "broadcast 0", "quiet"]


def test_what_had_its_turn_and_could_not_begin_keeps_it():
    queue: FairQueue[str] = FairQueue()
    for owner in "ab":
        for n in range(2):
            queue.put(f"{owner}{n}", 0, owner.encode())
    assert queue.pop() == "a0"
    queue.put("a0", 0, b"a", first=True)
    assert [queue.pop() for _ in range(4)] == ["a0", "b0", "a1", "b1"]


# -- the runner --------------------------------------------------------------------------------------------------------
class Lanes(Bench):
    """Two sources, an owner for each record, a crowd that is told how many are before it."""

    def __init__(self, folder, producer, crowd=True, **changes):
        self.crowd, self.hanging, self.ahead = crowd, set(), []
        super().__init__(folder, producer, reads=[SOURCE, OTHER], owner_header=OWNER, **changes)
        self.offsets = Counter[TP]()

    def start(self):
        stage = self.stage
        perform = stage.performer

        async def hang(value, state, possible_duplicate):
            done = await perform(value, state, possible_duplicate)
            if state.record.key in self.hanging:
                await self.release.wait()
            return done

        stage.perform(hang)
        if self.crowd:

            @stage.crowded
            def crowded(value, state, ahead):
                self.ahead.append((value["seq"], ahead))
                return value["seq"]

        super().start()

    def put(self, numbers, topic=SOURCE, key=b"k", owner=b"", partition=0):
        records = []
        tp = TP(topic.name, partition)
        for number in numbers:
            records.append(SimpleNamespace(
                topic=topic.name, partition=partition, offset=self.offsets[tp], timestamp=5, key=key,
                value=CODEC.encode(quiet(number)), headers=[(OWNER, owner)],
            ))  # fmt: skip
            self.offsets[tp] += 1
        self.runner._accept(Batch(tp, records, 1))

    @property
    def order(self):
        return [number for number, _ in self.performed]


@pytest.fixture
def small(monkeypatch):
    for name, value in {"CROWD": 40, "CROWD_LEFT": 20, "CROWD_KEY": 4}.items():
        monkeypatch.setattr(effects, name, value)


async def test_lanes_and_turns_of_owners(tmp_path, producer):
    bench = Lanes(tmp_path, producer, key_limit=1)
    bench.put(range(6), OTHER, owner=b"loud")
    bench.put([10, 11], OTHER, owner=b"quiet")
    bench.put([20], owner=b"loud")
    await bench.cycles(20)
    assert bench.order == [20, 0, 10, 1, 11, 2, 3, 4, 5]


async def test_a_crowd_is_settled_without_an_effect(tmp_path, producer, small):
    """The last ones of the key that has most; every record has one end, and the offsets move as of any other."""
    bench = Lanes(tmp_path, producer)
    bench.hanging = {b"slow"}
    bench.put(range(100), key=b"slow")
    bench.put([100, 101], key=b"fast")
    await bench.cycles(8)
    told = [number for number, _ in bench.ahead]
    assert set(bench.order) == {0, 1, 100, 101}
    assert len(told) >= 60
    assert told == sorted(told), "in their order, each behind those that stay"
    assert {ahead for _, ahead in bench.ahead} == {10}, "what stays of it, however many are settled with it"
    assert sorted(bench.out) == sorted([*told, 100, 101])
    bench.release.set()
    await bench.cycles(60)
    assert sorted(bench.out) == list(range(102))
    assert not set(told) & set(bench.order)
    assert not bench.runner._queues and not bench.runner._windows[TP(SOURCE.name, 0)].waiting


async def test_a_crowd_takes_nothing_of_what_may_have_been_performed(tmp_path, producer, small):
    """Begun by an owner who died: only an effect, flagged, tells whether an MX has it."""
    bench = Lanes(tmp_path, producer, key_limit=200)
    bench.hanging, bench.runner._at_once[b"k"] = {b"k"}, 200
    bench.put(range(30))
    await bench.cycles()
    assert len(bench.order) == 30
    bench.crash()
    bench.offsets.clear()
    bench.performed.clear()
    bench.put(range(100))
    bench.release.set()
    await bench.cycles(80)
    flagged = {number for number, flag in bench.performed if flag}
    assert flagged == set(range(30))
    assert not {number for number, _ in bench.ahead} & flagged
    assert sorted(bench.out) == list(range(100))


async def test_one_key_in_two_partitions_loses_no_record_to_a_crowd(tmp_path, producer, small):
    """Whoever replays a letter may have chosen the partition, and records without a key are in any."""
    bench = Lanes(tmp_path, producer, key_limit=1)
    bench.hanging = {None}
    bench.put(range(100), key=None)
    bench.put(range(100, 200), key=None, partition=0, topic=OTHER)
    window = effects.Window(TP(SOURCE.name, 1), 0, 0, None)
    bench.runner._windows[window.tp] = window
    batch = Batch(window.tp, [SimpleNamespace(topic=SOURCE.name, partition=1, offset=n, timestamp=5, key=None,
                  value=CODEC.encode(quiet(200 + n)), headers=()) for n in range(50)], 1)  # fmt: skip
    window.batches.append(batch)
    for record in batch.records:
        window.order.append(record.offset)
        bench.runner._enqueue(effects.Item(window, record, batch))
    waited = sum(map(len, bench.runner._queues.values()))
    bench.runner._crowd()
    left = sum(map(len, bench.runner._queues.values()))
    assert waited - left == len(bench.ahead), "what does not wait any more has its result"


async def test_a_crowder_that_raises_is_a_dead_letter(tmp_path, producer, small):
    bench = Lanes(tmp_path, producer, crowd=False)
    bench.stage.crowded(lambda value, state, ahead: 1 // 0)
    bench.hanging = {b"k"}
    bench.put(range(60))
    await bench.cycles(6)
    assert {letter["error"] for letter in bench.dead} == {"ZeroDivisionError"}
    assert all(letter["headers"] == [{"name": OWNER, "value": b""}] for letter in bench.dead), "nothing was performed"


def test_a_full_window_of_broadcasts_does_not_stop_the_other_source():
    consumer, full = Consumer.__new__(Consumer), TP(OTHER.name, 0)
    consumer.app, consumer._held_bytes = SimpleNamespace(outstanding_max=100), Counter()
    batch = SimpleNamespace(first=0, next_offset=100)
    consumer._delivered = {full: deque([batch])}
    assert not consumer._has_room(full)
    assert consumer._has_room(TP(SOURCE.name, 0))


async def test_without_crowded_everything_waits_for_its_effect(tmp_path, producer, small):
    bench = Lanes(tmp_path, producer, crowd=False)
    bench.put(range(100))
    await bench.cycles(70)
    assert sorted(bench.order) == list(range(100))


@pytest.fixture
def clock(monkeypatch):
    """Seconds of the runner; a test moves them."""
    now = [1000.0]
    monkeypatch.setattr(effects.time, "monotonic", lambda: now[0])
    return now


async def test_hanging_keys_leave_the_places_of_a_healthy_one(tmp_path, producer, clock, small):
    """100 sites that say nothing, each with a crowd, one of them known as a good one; a healthy one has all its places."""
    bench = Lanes(tmp_path, producer, limit=200, key_limit=20)
    bench.put(range(100), key=b"healthy")
    bench.put(range(100, 200), key=b"hanging 0")
    await bench.cycles(40)
    bench.hanging = {b"hanging %d" % n for n in range(100)}
    for n in range(100):
        bench.put(range(1000 + 30 * n, 1030 + 30 * n), key=b"hanging %d" % n)
    bench.performed.clear()
    for n in range(10):
        bench.put(range(200 + 20 * n, 220 + 20 * n), key=b"healthy")
        await bench.cycles(3)
        clock[0] += 5 if n < 5 else 0.1
    ended = [number for number in bench.out if 200 <= number < 400]
    assert len(ended) >= 0.9 * 200
    assert len(bench.runner._hung) >= 200


async def test_a_site_that_answers_late_gets_all_its_places(tmp_path, producer, clock):
    """Two seconds to a reply are usual where receivers look at mail closely: it is no site that hangs."""
    bench = Lanes(tmp_path, producer, limit=200, key_limit=20)
    bench.hanging, most = {b"late"}, 0
    bench.put(range(200), key=b"late")
    for _ in range(12):
        await bench.cycles(2)
        most = max(most, bench.runner._per_key[b"late"])
        clock[0] += 2.0
        await bench.cycles(1)
        bench.release.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        bench.release.clear()
        await bench.cycles(1)
    assert most == 20
    for _ in range(2):
        clock[0] += 60
        await bench.cycles(2)
    assert bench.runner._at_once[b"late"] == effects.FEW, "and one that hangs does not keep them"


async def test_a_few_records_of_a_key_that_hangs_do_not_fill_the_window(tmp_path, producer, clock, small):
    """They are no crowd, and yet the first unfinished record; half a window later they are parked."""
    bench = Lanes(tmp_path, producer)
    bench.app.outstanding_max = 100
    bench.hanging = {b"slow"}
    bench.put(range(4), key=b"slow")
    for n in range(4, 100, 4):
        bench.put(range(n, n + 4), key=b"fast")
        await bench.cycles(4)
    await bench.cycles(8)
    assert [number for number, _ in bench.ahead] == [2, 3]
    bench.release.set()
    await bench.cycles(6)
    assert bench.consumer.low == 100
    assert sorted(bench.out) == list(range(100))


async def test_a_partition_is_let_go_in_bounded_time(tmp_path, producer, monkeypatch):
    monkeypatch.setattr(effects, "LOST_SECONDS", 0.01)
    bench, lost = Lanes(tmp_path, producer), []

    @bench.stage.lost
    async def lose(partition, services):
        lost.append(partition)
        await asyncio.Event().wait()

    bench.put([0])
    bench.put([1], OTHER)
    await bench.app.give_up_partitions()
    assert lost == [0], "both sources of a partition are one"
    assert bench.runner.metrics.counts["lost_late"] == 1


async def test_letting_go_may_fail(tmp_path, producer):
    """A connection that breaks while it is closed must not end a rebalance."""
    bench = Lanes(tmp_path, producer)

    @bench.stage.lost
    async def lose(partition, services):
        raise ConnectionResetError("peer")

    bench.put([0])
    await bench.app.give_up_partitions()
    assert bench.runner.metrics.counts["lost_late"] == 1


# -- the protocol, with crowds -------------------------------------------------------------------------------------------
crowding = EffectStage("crowding", reads=[FIRST, SECOND], writes=[TARGET], tables=[COUNTS], limit=4, key_limit=3,
                       identity=lambda value: value["actor"] if value["kind"] == "plain" else None)  # fmt: skip


@crowding.perform
async def perform(value: Any, state: Any, possible_duplicate: bool) -> str:
    return await state.services.perform(asyncio.get_running_loop().worker, value, possible_duplicate)  # type: ignore[attr-defined]


@crowding.crowded
def crowded(value: Any, state: Any, ahead: int) -> str:
    state.services.park(asyncio.get_running_loop().worker, value)  # type: ignore[attr-defined]
    if value["kind"] == "poison":
        raise ValueError("poison")
    return "crowded"


@crowding.settle
def settle(value: Any, result: str, state: Any) -> Any:
    more(value, state)
    yield TARGET.send(value)
    if value["kind"] == "poison":
        raise ValueError("poison")


class CrowdProtocol(Protocol):
    """Everything that may happen to an effect stage, where five records are a crowd."""

    stage = crowding

    def __init__(self) -> None:
        super().__init__()
        self.parked: set[str] = set()
        self.late: set[str] = (
            set()
        )  # performed by a worker that was frozen: it had begun nothing that others could know
        for name, value in {"CROWD": 5, "CROWD_LEFT": 3, "CROWD_KEY": 1, "CROWD_STEP": 2}.items():
            self.patch.setattr(effects, name, value)

    async def perform(self, worker: Any, value: dict[str, str], flag: bool) -> str:
        if worker.thawed:
            self.late.add(value["id"])
        return await super().perform(worker, value, flag)

    def park(self, worker: Any, value: dict[str, str]) -> None:
        # by a worker that was frozen, and is told only by its next write: nobody else's effect is known to it
        if self.performed[value["id"]] and not worker.thawed and value["id"] not in self.late:
            self.violations.append(f"{value['id']} may have been performed, and was parked")
        self.parked.add(value["id"])

    @rule(partition=st.integers(0, 1), source=st.integers(0, 1), n=st.integers(6, 12), seed=st.integers(0, 99))
    def crowd(self, partition: int, source: int, n: int, seed: int) -> None:
        dice = Random(seed)
        self.send([(source, partition, dice.choice("ab"), dice.choice(["plain", "plain", "poison"])) for _ in range(n)])

    def is_right(self) -> None:
        ids = {value["id"] for sent in self.sent.values() for value in sent}
        assert self.performed.keys() | self.parked == ids
        performed = self.performed
        self.performed = defaultdict(list, {id: performed.get(id, []) for id in ids})
        super().is_right()


TestCrowd = CrowdProtocol.TestCase
TestCrowd.settings = profile(40, 30)
