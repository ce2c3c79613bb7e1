"""What happens to the workers of a stage, as rules: steps, broker, kill -9, loss of RocksDB, SIGSTOP, rebalance. A test adds
what they work on, what must hold, and `is_done`."""

from __future__ import annotations

import os
import sys
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from model_broker import SESSION, Broker, Clock
from model_process import Disk, replace_the_outside
from model_worker import Worker

from tables.store import Overtaken
from topics.stage import EffectStage, Stage

WORKERS = 3


def profile(examples: int, steps: int) -> settings:
    """Of a state machine: small and the same each time, or, with HYPOTHESIS_PROFILE=long, fifty times as much and by chance."""
    long = os.environ.get("HYPOTHESIS_PROFILE") == "long"
    return settings(
        max_examples=50 * examples if long else examples, stateful_step_count=2 * steps if long else steps, deadline=None,
        derandomize=not long,
        suppress_health_check=list(HealthCheck), phases=set(Phase) - {Phase.explain},  # it traces every line: minutes
    )  # fmt: skip


class Faults(RuleBasedStateMachine):
    """`stage` on `partitions` partitions, of which all sources have as many."""

    stage: Stage | EffectStage
    partitions = 2

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.clock = pytest.MonkeyPatch(), Clock()
        replace_the_outside(self.patch, self.clock)
        self.broker = Broker(self.clock, self.partitions)
        self.disks: list[dict[int, Disk]] = [{} for _ in range(WORKERS)]
        self.workers: list[Worker | None] = [None] * WORKERS
        self.violations: list[str] = []  # found inside an effect, where an exception would be a dead letter

    def services(self) -> Any:
        """Of a new process."""

    def work(self, dice: Random) -> None:
        """Something is to be done."""
        raise NotImplementedError

    def outside(self, dice: Random | None = None) -> None:
        """The world does what it is asked for: all of it, or one thing by chance."""

    def ended(self, worker: Worker) -> None:
        """The process is no more."""

    def is_done(self) -> bool:
        raise NotImplementedError

    def is_right(self) -> None:
        raise NotImplementedError

    # -- what happens ----------------------------------------------------------------------------------------------
    def alive(self) -> list[Worker]:
        return [worker for worker in self.workers if worker is not None and not worker.dead]

    def look(self) -> None:
        """Ends of workers that ended themselves, and what the group makes of it."""
        assert not self.violations, self.violations
        for slot, worker in enumerate(self.workers):
            if worker is not None and worker.dead:
                if not isinstance(worker.end, Overtaken | TimeoutError):
                    raise AssertionError(f"{worker} failed") from worker.end
                note(f"{worker} ended itself: {worker.end!r}")
                self.end(slot)
        self.broker.group.look()

    def end(self, slot: int, lost: Any = lambda request: True) -> None:
        worker, self.workers[slot] = self.workers[slot], None
        assert worker is not None
        worker.kill()
        self.broker.died(worker, lost)
        self.ended(worker)

    @initialize(both=st.booleans())
    def begin(self, both: bool) -> None:
        self.start(0)
        if both:
            self.start(1)
        self.flow(1.0)

    @rule(slot=st.integers(0, WORKERS - 1), n=st.integers(1, 12), seconds=st.sampled_from([0, 0.01, 0.1]))
    def step(self, slot: int, n: int, seconds: float) -> None:
        """A worker goes on for some iterations of its loop."""
        self.clock.now += seconds
        if (worker := self.workers[slot]) is not None:
            worker.run(n)
        self.look()

    @precondition(lambda self: self.broker.flight)
    @rule(i=st.integers(0, 1000), heard=st.booleans())
    def store(self, i: int, heard: bool) -> None:
        """The broker does what it was asked; whether the worker hears of it now is another matter."""
        request = self.broker.flight[i % len(self.broker.flight)]
        (self.broker.answer if heard else self.broker.land)(request)
        self.look()

    @rule(seed=st.integers(0, 1 << 16), rounds=st.integers(1, 300), faults=st.booleans())
    def weather(self, seed: int, rounds: int, faults: bool) -> None:
        """Work, delays and faults of all kinds; it ends in the middle of things."""
        dice = Random(seed)
        for _ in range(rounds):
            if dice.random() < 0.1:
                self.work(dice)
            for worker in self.alive():
                if dice.random() < 0.7:
                    worker.run(dice.randint(1, 4))
            late = (
                dice.random() < 0.02
            )  # what a worker has sent before it was killed or frozen arrives when others own its work
            able = [request for request in self.broker.flight if request.sender.is_awake() is not late]
            if able and (late or dice.random() < 0.5):
                self.store(self.broker.flight.index(dice.choice(able)), dice.random() < 0.8)
            if dice.random() < 0.3:
                self.outside(dice)
            if faults and dice.random() < 0.12:
                self.fault(dice, dice.randrange(WORKERS))
            self.clock.now += dice.choice([0, 0, 0.01, 0.1, 0.3])
            self.look()

    def fault(self, dice: Random, slot: int) -> None:
        match dice.randrange(6):
            case 0:
                self.kill(slot, dice.choice([0, 1, 3]), dice.choice([0, 0, 0, 1, 5]))
            case 1 | 2:
                self.start(slot, dice.random() < 0.2)
            case 3:
                self.freeze(slot, 0)
            case 4:
                self.thaw(slot)
            case 5:
                self.rebalance(dice.randrange(6))

    @rule(seconds=st.sampled_from([0.05, 0.5, 2.0]))
    def flow(self, seconds: float) -> None:
        """All goes well for a while, but for who is frozen."""
        until = self.clock.now + seconds
        for _ in range(2000):
            moved = False
            for worker in self.alive():
                moved = moved or not (worker.frozen or worker.loop.is_idle())
                worker.run(3)
            mine = [request for request in self.broker.flight if request.sender.is_awake()]
            for request in mine:
                self.broker.answer(request)
            self.outside()
            self.look()
            if not moved and not mine:
                awake = [worker.loop.next_at() for worker in self.alive() if not worker.frozen]
                self.clock.now = min([until, *(max(at, self.clock.now) for at in awake)])
                if self.clock.now >= until:
                    return
        raise AssertionError("does not come to rest")

    @rule(slot=st.integers(0, WORKERS - 1), landing=st.integers(0, 3), lost=st.sampled_from([0, 0, 0, 1, 5]))
    def kill(self, slot: int, landing: int, lost: int) -> None:
        """kill -9. `landing` of its requests are on their way and may land later; `lost`: the end of RocksDB, with the
        machine."""
        if self.workers[slot] is not None:
            keep = [r for r in self.broker.flight if r.sender is self.workers[slot] and not r.landed][:landing]
            self.end(slot, lambda request: request not in keep)
            for disk in self.disks[slot].values():
                disk.lose(min(lost, len(disk.batches)))

    @rule(slot=st.integers(0, WORKERS - 1), empty=st.sampled_from([False, False, True]))
    def start(self, slot: int, empty: bool = False) -> None:
        if self.workers[slot] is None:
            if empty:
                self.disks[slot] = {}
            self.workers[slot] = Worker(self.stage, self.broker, self.disks[slot], self.services())

    @rule(slot=st.integers(0, WORKERS - 1), meanwhile=st.sampled_from([0, SESSION + 1, 3 * SESSION]))
    def freeze(self, slot: int, meanwhile: float) -> None:
        """SIGSTOP; the others go on."""
        if (worker := self.workers[slot]) is not None:
            worker.frozen = True
            self.flow(meanwhile)

    @rule(slot=st.integers(0, WORKERS - 1))
    def thaw(self, slot: int) -> None:
        worker = self.workers[slot]
        if worker is not None and worker.frozen:
            worker.frozen, worker.thawed = False, True

    @rule(slot=st.integers(0, WORKERS - 1), seed=st.integers(0, 1 << 16), how=st.sampled_from(["kill", "freeze"]),
          stored=st.booleans(), again=st.integers(0, WORKERS - 1), meanwhile=st.sampled_from([0.05, SESSION + 1, 3 * SESSION]))  # fmt: skip
    def catch(self, slot: int, seed: int, how: str, stored: bool, again: int, meanwhile: float) -> None:
        """A worker is caught with a changelog write under way: it was `stored`, or lands late, when others own the partition,
        or before the next owner has claimed it."""
        worker, dice = self.workers[slot], Random(seed)
        if worker is None or not worker.is_awake():
            return
        for _ in range(dice.randint(1, 5)):
            self.work(dice)
        for _ in range(300):
            under_way = [r for r in self.broker.flight if r.sender is worker and r.place[0] == "changelog"]
            if under_way:
                break
            for other in self.alive():
                other.run(1)
            for request in self.broker.flight[:]:
                if request.sender.is_awake() and not (request.sender is worker and request.place[0] == "changelog"):
                    self.broker.answer(request)
            self.outside(dice)
            self.look()
            if worker.dead:
                return
            if worker.loop.is_idle():
                self.clock.now = max(self.clock.now, worker.loop.next_at())
        for request in under_way if stored else ():
            self.broker.answer(request)
        if how == "kill":
            self.end(slot, lambda request: request not in under_way)
        else:
            worker.frozen = True
        self.start(again)
        self.flow(meanwhile)
        for request in under_way:
            self.broker.land(request)
        self.thaw(slot)
        if how == "freeze":  # it goes on before the group can tell it that it is no member any more
            worker.run(dice.randint(0, 12))
            self.look()

    @rule(turn=st.integers(0, 5))
    def rebalance(self, turn: int) -> None:
        """Somebody looks in; partitions go elsewhere, or stay."""
        self.broker.group.plan = lambda partition, members: members[(turn >> partition) % len(members)]
        self.broker.group.rebalance()

    # -- in the end ------------------------------------------------------------------------------------------------
    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:  # else this would hide it
                self.settle_down()
                self.at_rest()
        finally:
            for slot, worker in enumerate(self.workers):
                if worker is not None:
                    self.end(slot)
            self.patch.undo()

    def settle_down(self) -> None:
        """All faults are over: it comes to its end without a hand."""
        for request in self.broker.flight[:]:
            if request.sender.dead:
                self.broker.land(request)
        for _ in range(40):
            for slot in range(WORKERS):
                self.thaw(slot)
            self.start(0)
            self.flow(SESSION / 2)
            if self.is_done():
                break
        self.is_right()

    def at_rest(self) -> None:
        """What else is to be looked at in the end."""
