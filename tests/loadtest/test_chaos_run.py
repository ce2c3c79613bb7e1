"""The schedule of faults, and how standing still is measured."""

from __future__ import annotations

import time
from collections import Counter
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition

from agents.worker import STAGES
from loadtest.chaos.faults import ENDING, EXCUSED, FAULTS
from loadtest.chaos.schedule import BEHIND, LASTING_S, schedule
from loadtest.chaos.watch import Watch
from topics.installation import Installation


def test_a_seed_gives_the_same_faults_and_a_round_has_every_kind():
    faults = schedule(7, 3, STAGES)
    assert faults == schedule(7, 3, STAGES) != schedule(8, 3, STAGES)
    assert {fault.kind for fault in faults} == set(FAULTS)
    kinds = Counter(fault.kind for fault in faults)
    assert min(kinds.values()) == 3 and kinds["worker-kill"] == 3 * len(STAGES)
    assert {fault.target for fault in faults if fault.kind == "worker-kill"} == set(STAGES)
    assert {*LASTING_S, *EXCUSED, *ENDING, *BEHIND} <= set(FAULTS)


def test_a_second_broker_dies_after_the_first_one_and_is_another():
    faults = schedule(3, 5, STAGES)
    for i, fault in enumerate(faults):
        if fault.kind == "broker-kill" and faults[i - 1].kind != "broker-kill":
            assert faults[i + 1].kind == "broker-kill" and faults[i + 1].target != fault.target


class Cluster:
    """What the watch asks: committed offsets of one group, ends of its partitions."""

    def __init__(self):
        self.committed: dict[TopicPartition, int] = {}
        self.ends: dict[TopicPartition, int] = {}

    async def list_consumer_group_offsets(self, group):
        return {tp: SimpleNamespace(offset=offset) for tp, offset in self.committed.items()}

    async def end_offsets(self, tps):
        return {tp: self.ends.get(tp, 0) for tp in tps}


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, first item."""
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    return clock


PLACE = TopicPartition("mail.cleared", 1)


async def test_a_commit_from_before_the_fault_is_no_movement_after_it(now):
    watch, cluster = Watch(Installation("nowhere:1"), ["route"]), Cluster()
    cluster.ends[PLACE] = 10

    async def look(at: float, committed: int) -> None:
        now[0], cluster.committed[PLACE] = at, committed
        await watch._look(cluster, cluster)

    await look(100, 1)
    await look(101, 4)  # committed at some time between 100 and 101
    assert watch.standing(100.5) and not watch.standing(99.0)
    await look(131, 4)
    assert watch.longest_s == pytest.approx(31) and "mail.cleared[1] at 4, 6 behind" in watch.where
    await look(132, 5)
    assert not watch.standing(100.5)
    await look(133, 10)
    assert not watch.standing(132.5), "nothing waits"


async def test_partitions_that_never_committed_count_and_excused_stages_do_not(now):
    watch, cluster = Watch(Installation("nowhere:1"), ["route"]), Cluster()
    cluster.ends[PLACE] = 3
    await watch._look(cluster, cluster)
    now[0] += 40
    watch.excused.add("route")
    await watch._look(cluster, cluster)
    assert watch.longest_s == 0 and not watch.standing(now[0])
    watch.excused.clear()
    now[0] += 20
    await watch._look(cluster, cluster)
    assert watch.longest_s == pytest.approx(20) and watch.lag() == 3 and len(watch.standing(now[0] - 10)) == 1
