"""reputation: what classify's partitions have told of each subject, and the step of each.

`parts`: subject, NUL, partition -> History; kept a month, as its counts. `pending`: subject -> nothing: to be judged. `steps`: subject
-> the step that was taken and told, where it is not ok from the beginning.
"""

from __future__ import annotations

from typing import NamedTuple

from postroad.reputation import LEVELS, History, Step
from tables.values import packed
from topics.state import Table


class Stood(NamedTuple):
    """`level`: its place in LEVELS; `since`, `judged_from`: ms, as Step has them; `day`, `complained`: what was told of the day."""

    level: int
    since: int
    judged_from: int
    day: int
    complained: int

    def step(self) -> Step:
        """For postroad.reputation."""
        return Step(LEVELS[min(max(self.level, 0), len(LEVELS) - 1)], self.since, self.judged_from)


PARTS: Table[History] = Table(1, "parts", History.pack, History.unpack, expires=True)
PENDING: Table[bytes] = Table(2, "pending", bytes, bytes, cached=False)
STEPS: Table[Stood] = Table(3, "steps", *packed(Stood, ">bqqqq"))


def key_of(subject: str, partition: int) -> str:
    """Key in `parts`."""
    return f"{subject}\0{partition}"
