"""Which fault comes when: from a seed, the same every time.

A round has one fault of every kind; a full run has several rounds, each in an order of its own. A fault begins after a pause
of random length, lasts as long as it says, and the next one waits until the road moves again.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

PAUSE_S = (0.5, 2.5)
LASTING_S = {  # of what is not over in a moment
    "worker-freeze": 6.0,  # beyond the session time-out, which is added
    "broker-kill": 3.0,
    "clickhouse-kill": 5.0,
    "clickhouse-freeze": 7.0,
    "clickhouse-away": 60.0,
    "dns-silent": 8.0,
    "farm-refuse": 8.0,
    "farm-stall": 8.0,
    "farm-close": 4.0,
    "disk-full-content": 6.0,
    "disk-full-tables": 6.0,
    "topic-small": 6.0,
    "network-cut": 8.0,
    "network-slow": 10.0,
    "clock-step": 5.0,
}
BEHIND = ("clickhouse-away",)  # other faults go on while these last
LOADED = ("disk-full-content", "disk-full-tables", "topic-small")  # they bite only where there is something to write
STATEFUL = ("ingest", "suppress", "send", "classify", "schedule")
CUTS = ("broken", "silent", "deaf")  # proxy.py
CLOCK_STEPS_S = (-150, 150)


@dataclass(frozen=True)
class Fault:
    """`target`: a stage, a number of a broker (and how it is cut off), seconds of the clock, as the kind has it; empty for
    none."""

    kind: str
    target: str = ""
    pause_s: float = 0.0
    lasting_s: float = 0.0

    def __str__(self) -> str:
        return f"{self.kind} {self.target}".strip()


def schedule(seed: int, rounds: int, stages: Sequence[str], brokers: int = 3) -> list[Fault]:
    """The faults of a run. A broker's death is followed by another one's, once it is back."""
    dice = random.Random(seed)
    faults: list[Fault] = []

    def fault(kind: str, target: object = "") -> Fault:
        return Fault(kind, str(target), round(dice.uniform(*PAUSE_S), 1), LASTING_S.get(kind, 0.0))

    for _ in range(rounds):
        first, second = dice.sample(range(1, brokers + 1), 2)
        groups = [
            *([fault("worker-kill", stage)] for stage in stages),
            [fault("worker-freeze", dice.choice(stages))],
            [fault("worker-freeze", "send")],
            [fault("join-leave", dice.choice(stages))],
            [fault("state-lost", dice.choice(STATEFUL))],
            [fault("broker-kill", first), fault("broker-kill", second)],
            [fault("clickhouse-kill")],
            [fault("clickhouse-freeze")],
            [fault("clickhouse-away")],
            [fault("dns-silent")],
            [fault("farm-refuse")],
            [fault("farm-stall")],
            [fault("farm-close")],
            [fault("disk-full-content")],
            [fault("disk-full-tables", dice.choice(STATEFUL))],
            [fault("topic-small", dice.choice(("mail.attempts", "mail.cleared", "mail.outbound", "mail.scheduled")))],
            [fault("poison")],
            [fault("network-cut", f"{dice.randint(1, brokers)} {dice.choice(CUTS)}")],
            [fault("network-slow")],
            [fault("clock-step", dice.choice(CLOCK_STEPS_S))],
        ]
        dice.shuffle(groups)
        # early: an outage that others go on under, and what needs load, which may end before the last fault
        early = [group for group in groups if group[0].kind in (*BEHIND, *LOADED)]
        groups = [group for group in groups if group not in early]
        for group in early:
            groups.insert(dice.randrange(len(groups) // 2), group)
        faults += [fault for group in groups for fault in group]
    return faults
