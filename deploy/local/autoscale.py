"""How many replicas a stage should have: the rule of the chart's ScaledObjects, for processes of one machine.

The numbers are the chart's (deploy/helm/postroad/values.yaml, files/road.yaml), and what is made of them is what KEDA's Kafka
scaler and Kubernetes' autoscaler make of them: for each topic the lag, no more than partitions times `lagPerReplica`, over
`lagPerReplica`; the most of all topics; within 10 % nothing changes; fewer replicas only when nothing in the last
`downAfterSeconds` asked for more, and one at a time. `Autoscaler.look` does it for whoever starts and ends workers.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deploy.local import ROOT

CHART = ROOT / "deploy/helm/postroad"
TOLERANCE = 0.1  # of the autoscaler in Kubernetes, unless the cluster is told otherwise


@dataclass(frozen=True)
class Rule:
    """Of one stage. `topics`: partitions of each topic that counts, by its name without prefix; `low`, `high`: replicas."""

    topics: Mapping[str, int]
    lag_per_replica: int
    low: int
    high: int
    up_percent: int
    up_every_s: float
    down_after_s: float
    down_every_s: float

    def wanted(self, lags: Mapping[str, int], replicas: int) -> int:
        """How many replicas this lag asks for, by topic, where there are `replicas` now."""
        most = 0
        for topic, partitions in self.topics.items():
            lag = min(lags.get(topic, 0), partitions * self.lag_per_replica)
            near = replicas and abs(lag / (self.lag_per_replica * replicas) - 1) <= TOLERANCE
            most = max(most, replicas if near else math.ceil(lag / self.lag_per_replica))
        return min(max(most, self.low), self.high)


def rules(partitions: int, values: Mapping[str, Any] | None = None, chart: Path = CHART) -> dict[str, Rule]:
    """The rule of each stage in an installation with so many partitions of keyed topics. `values`: instead of the chart's own."""
    values = values or yaml.safe_load((chart / "values.yaml").read_text("utf-8"))
    road = yaml.safe_load((chart / "files/road.yaml").read_text("utf-8"))
    scaling, found = values["scaling"], {}
    for stage, what in road["stages"].items():
        own = values["stages"][stage]
        reads = {read["topic"]: read.get("partitions") or partitions for read in what["reads"]}
        found[stage] = Rule(
            topics={read["topic"]: reads[read["topic"]] for read in what["reads"] if not read.get("waits")},
            lag_per_replica=own["lagPerReplica"], low=own["min"], high=own["max"] or max(reads.values()),
            up_percent=scaling["upPercent"], up_every_s=scaling["upEverySeconds"],
            down_after_s=scaling["downAfterSeconds"], down_every_s=scaling["downEverySeconds"],
        )  # fmt: skip
    return found


class Scaler:
    """What a rule comes to over time: how fast up, how slowly down. `clock`: seconds."""

    def __init__(self, rule: Rule, clock: Callable[[], float] = time.monotonic):
        self.rule, self._clock = rule, clock
        self._asked: deque[tuple[float, int]] = deque()  # when, how many
        self._changes: deque[tuple[float, int]] = deque()  # when, by how many

    def decide(self, lags: Mapping[str, int], replicas: int) -> int:
        """How many there should be from now on."""
        now, rule = self._clock(), self.rule
        wanted = rule.wanted(lags, replicas)
        if not self._asked:
            self._asked.append((now, replicas))  # as Kubernetes' does when it begins: nothing goes down at once
        self._asked.append((now, wanted))
        while self._asked[0][0] <= now - rule.down_after_s:
            self._asked.popleft()
        if wanted > replicas:
            began = replicas - self._changed(now - rule.up_every_s, 1)
            wanted = min(wanted, math.ceil(began * (1 + rule.up_percent / 100)))
        elif wanted < replicas:
            wanted = max(wanted, min(replicas, max(number for _, number in self._asked)))
            wanted = max(wanted, replicas - 1 - self._changed(now - rule.down_every_s, -1))
        if wanted != replicas:
            self._changes.append((now, wanted - replicas))
        return wanted

    def _changed(self, since: float, sign: int) -> int:
        """By how many in one direction since then; with the sign of that direction."""
        while self._changes and self._changes[0][0] <= self._clock() - max(
            self.rule.up_every_s, self.rule.down_every_s
        ):
            self._changes.popleft()
        return sum(by for at, by in self._changes if at > since and by * sign > 0)


class Autoscaler:
    """Keeps stages at what their rules ask for. `count`: replicas of a stage that run; `resize`: make it so many."""

    def __init__(
        self, rules: Mapping[str, Rule], count: Callable[[str], int], resize: Callable[[str, int], None],
        clock: Callable[[], float] = time.monotonic,
    ):  # fmt: skip
        self._scalers = {stage: Scaler(rule, clock) for stage, rule in rules.items()}
        self._count, self._resize = count, resize

    def look(self, lags: Mapping[str, Mapping[str, int]]) -> Sequence[tuple[str, int, int]]:
        """One look at the lags, by stage and topic; returns what was changed: stage, from, to."""
        changed = []
        for stage, scaler in self._scalers.items():
            replicas = self._count(stage)
            wanted = scaler.decide(lags.get(stage, {}), replicas)
            if wanted != replicas:
                self._resize(stage, wanted)
                changed.append((stage, replicas, wanted))
        return changed
