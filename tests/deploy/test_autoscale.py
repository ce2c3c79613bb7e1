"""The local autoscaler: the rule, how it goes up and down, and that its numbers are those of the chart's ScaledObjects."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from deploy.local.autoscale import Autoscaler, Rule, Scaler, rules
from tests.deploy.rendered import EVERYTHING, manifests

RULE = Rule({"a": 8, "b": 8}, 100, 1, 8, up_percent=300, up_every_s=15, down_after_s=300, down_every_s=60)


@pytest.mark.parametrize(
    ("lags", "replicas", "wanted"),
    [
        ({}, 1, 1),
        ({"a": 100}, 1, 1),
        ({"a": 109}, 1, 1),  # within the tolerance
        ({"a": 111}, 1, 2),
        ({"a": 150, "b": 320}, 1, 4),  # the most of all topics, not their sum
        ({"a": 10**9}, 1, 8),  # as many as there are partitions
        ({"c": 10**9}, 1, 1),  # nobody asked about it
        ({"a": 390}, 4, 4),
        ({"a": 10}, 4, 1),
    ],
)
def test_lag_over_the_lag_per_replica(lags, replicas, wanted):
    assert RULE.wanted(lags, replicas) == wanted


def test_never_beyond_the_bounds():
    rule = replace(RULE, low=2, high=3)
    assert [rule.wanted({"a": lag}, 2) for lag in (0, 250, 900)] == [2, 3, 3]


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_up_at_most_four_times_in_a_period():
    clock = Time()
    scaler = Scaler(replace(RULE, topics={"a": 64}, high=64), clock)
    assert scaler.decide({"a": 6400}, 1) == 4
    clock.now += 5
    assert scaler.decide({"a": 6400}, 4) == 4
    clock.now += 11
    assert scaler.decide({"a": 6400}, 4) == 16


def test_down_late_and_one_by_one():
    clock = Time()
    scaler, replicas, seen = Scaler(RULE, clock), 1, []
    for second in range(0, 900, 5):
        clock.now = 1000.0 + second
        replicas = scaler.decide({"a": 400 if second < 60 else 0}, replicas)
        if not seen or seen[-1][1] != replicas:
            seen.append((second, replicas))
    assert [number for _, number in seen] == [4, 3, 2, 1]
    assert 350 <= seen[1][0] <= 360  # 300 s after the last look that asked for four
    assert [later[0] - before[0] for before, later in itertools.pairwise(seen[1:])] == [60, 60]


def test_a_short_calm_changes_nothing():
    clock = Time()
    scaler = Scaler(RULE, clock)
    assert scaler.decide({"a": 400}, 1) == 4
    for second in range(5, 250, 5):
        clock.now = 1000.0 + second
        assert scaler.decide({}, 4) == 4
    assert scaler.decide({"a": 420}, 4) == 4


def test_the_autoscaler_does_what_the_rule_says():
    counts = {"send": 1, "route": 1}
    clock = Time()
    scaler = Autoscaler({"send": RULE, "route": RULE}, counts.__getitem__, counts.__setitem__, clock)
    assert scaler.look({"send": {"a": 350}}) == [("send", 1, 4)]
    assert counts == {"send": 4, "route": 1}


@pytest.mark.parametrize("name", ["large", "everything"])
def test_numbers_are_those_of_the_chart(name):
    """What helm renders, and what the rules are for the same values."""
    import yaml

    from deploy.local.autoscale import CHART

    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    layers = [yaml.safe_load((CHART / f"values-{'large' if name == 'large' else 'small'}.yaml").read_text("utf-8"))]
    layers += [EVERYTHING] if name == "everything" else []
    for layer in layers:
        for stage, own in layer.get("stages", {}).items():
            values["stages"][stage] |= own
    partitions = 64 if name == "large" else 8
    prefix = "eu-" if name == "everything" else ""
    made = rules(partitions, values)
    scaled = [one["spec"] for one in manifests(name) if one["kind"] == "ScaledObject"]
    assert len(scaled) == 11
    for spec in scaled:
        stage = spec["scaleTargetRef"]["name"].removeprefix("road-postroad-").replace("-", "_")
        rule = made[stage]
        assert (rule.low, rule.high) == (spec["minReplicaCount"], spec["maxReplicaCount"])
        asked = {
            t["metadata"]["topic"].removeprefix(prefix): int(t["metadata"]["lagThreshold"]) for t in spec["triggers"]
        }
        assert asked == dict.fromkeys(rule.topics, rule.lag_per_replica)
        behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        assert behavior["scaleUp"]["policies"] == [
            {"type": "Percent", "value": rule.up_percent, "periodSeconds": rule.up_every_s}
        ]
        assert behavior["scaleDown"]["stabilizationWindowSeconds"] == rule.down_after_s
        assert behavior["scaleDown"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": rule.down_every_s}]
