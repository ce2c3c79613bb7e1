"""The ledger: accepted = ended + in flight, and every message that breaks that rule, from the steps of each.

A message is accepted once Kafka has its submission. From then on it has one end, or it is in flight and takes its next step
within the time that its state allows. A step is the same step however often it is told: (message, kind, round, attempt).

| finding | what it is |
|---|---|
| orphan | accepted, no end, and no step for longer than its state allows |
| two ends | two ends of different kind, round or attempt |
| stray | steps or attempts of what was never accepted |
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from avro.records import Event
from postroad.events import ENDS, NO_STEPS

SUBMITTED, ATTEMPTED = "submitted", "attempted"
"""Steps that no event tells: its submission is in the log; a record of mail.attempts names it."""

#: What may stand in a packed life, by number: append only.
STATES: Final = (
    SUBMITTED, ATTEMPTED, "accepted", "validated", "scored", "held", "released", "cleared", "routed", "scheduled", "deferred",
    "delivered", "bounced", "dropped", "rejected", "expired", "cancelled",
)  # fmt: skip
_number = {state: number for number, state in enumerate(STATES)}
WAITS = frozenset({"held", "scheduled", "deferred"})
PASSES = frozenset({"validated", "scored", "cleared", "routed"})
"""Steps that say no more than where a message is, and until when."""
_LONG_MAX, _SHORT_MAX = (1 << 62), (1 << 15) - 1  # what a record says is put into these bounds
_TOLD, _IN_LOG = 1, 2


@dataclass(frozen=True, slots=True)
class Allowed:
    """How long a message may stay in its state, ms. What waits has until its time (`due_at`) and `transit_ms` after it."""

    transit_ms: int = 600_000  # from step to step; a stage that was killed, or an unbalanced group, is back long before
    sending_ms: int = 7_200_000  # routed: one attempt may take 90 minutes, `SmtpTimeouts.longest`
    expires_ms: int = (
        72 * 3_600_000
    )  # held, where its event has no due_at: the setting expires_hours after it was accepted

    def deadline(self, state: str, at: int, due_at: int | None, accepted_at: int) -> int:
        """When (ms) the step after `state`, taken at `at`, is overdue."""
        if due_at is not None:
            return max(at, due_at) + self.transit_ms
        if state == "held":
            return max(at, accepted_at + self.expires_ms) + self.transit_ms
        return at + (self.sending_ms if state == "routed" else self.transit_ms)


class Step(NamedTuple):
    """One step of one message: an event, an attempt, or that its submission is in the log. Times in ms."""

    state: str
    at: int
    accepted_at: int
    round: int = 0
    attempt: int = 0
    due_at: int | None = None


def step_of(event: Event) -> Step | None:
    """The step that an event tells; None for feedback, which comes after an end, and for what is about no message."""
    if event["kind"] in NO_STEPS:
        return None
    return Step(event["kind"], event["at"], event["accepted_at"], event["round"], event["attempt"], event["due_at"])


class Life(NamedTuple):
    """What the steps of one message come to, in any order and however often each is told. Times in ms.

    `state`, `since`, `round`: the step whose time is over last, or the first end; `deadline`: when it is over, 0 after an end.
    `ends`: at most two, each (kind, round, attempt). `told`: there is an event accepted; `in_log`: its submission is there.
    """

    accepted_at: int
    first_at: int
    told: bool = False
    in_log: bool = False
    state: str = SUBMITTED
    since: int = 0
    deadline: int = 0
    round: int = 0
    released: int = -1
    ends: tuple[tuple[str, int, int], ...] = ()

    @property
    def accepted(self) -> bool:
        return self.told or self.in_log

    def findings(self, now: int, allowed: Allowed) -> list[str]:
        """What is wrong with it at `now`: "orphan", "two-ends", "stray"."""
        found = ["two-ends"] if len(self.ends) > 1 else []
        if not self.accepted and self.first_at + allowed.transit_ms < now:
            found.append("stray")
        if self.accepted and not self.ends and self.deadline < now:
            found.append("orphan")
        return found

    def hardly_differs(self, before: Life, slack_ms: int) -> bool:
        """From what it was before: only that its deadline is a little later."""
        facts = (self.told, self.ends, self.released) == (before.told, before.ends, before.released)
        return facts and self.deadline - before.deadline < slack_ms

    def shown(self) -> str:
        """Its state for people; of two ends, both."""
        return " and ".join(f"{kind} ({round}:{attempt})" for kind, round, attempt in self.ends) if len(self.ends) > 1 else self.state  # fmt: skip

    def pack(self) -> bytes:
        """Forty-odd bytes; back by `unpack`."""
        (first, *more) = self.ends or (("", 0, 0),)
        second = more[0] if more else ("", 0, 0)
        return _packed.pack(
            self.told * _TOLD + self.in_log * _IN_LOG, _number[self.state], self.accepted_at, self.first_at, self.since,
            self.deadline, self.round, self.released, _END[first[0]], first[1], first[2],
            _END[second[0]], second[1], second[2],
        )  # fmt: skip


_packed = struct.Struct(">BBqqqqhhBhhBhh")
_END: Final[dict[str, int]] = {"": 0, **{kind: number for kind, number in _number.items() if kind in ENDS}}
PACKED_SIZE = _packed.size


def unpack(raw: bytes) -> Life:
    """Back from `Life.pack`; bytes behind it are passed over."""
    (flags, state, accepted_at, first_at, since, deadline, round, released,
     kind, end_round, end_attempt, kind_2, round_2, attempt_2) = _packed.unpack_from(raw)  # fmt: skip
    ends: tuple[tuple[str, int, int], ...] = ()
    if kind:
        ends = ((STATES[kind], end_round, end_attempt),)
        if kind_2:
            ends = (*ends, (STATES[kind_2], round_2, attempt_2))
    return Life(accepted_at, first_at, bool(flags & _TOLD), bool(flags & _IN_LOG), STATES[state], since, deadline, round,
                released, ends)  # fmt: skip


def follow(life: Life | None, step: Step, allowed: Allowed) -> Life:
    """The life with one step more.

    The latest deadline counts, not the last step: of two copies of a message (a stage was done twice around a crash) one may
    wait for hours while the other one comes to nothing. What an operator has released does not wait any more.
    """
    at, accepted_at = _long(step.at), _long(step.accepted_at)
    round = min(max(step.round, 0), _SHORT_MAX)
    state = step.state
    if life is None:
        life = Life(accepted_at, at)
    elif at < life.first_at:
        life = life._replace(first_at=at)
    if state in ENDS:
        end = (state, round, min(max(step.attempt, 0), _SHORT_MAX))
        if not life.ends:
            return life._replace(state=state, since=at, deadline=0, round=round, ends=(end,))
        if end in life.ends:
            return life._replace(since=min(life.since, at)) if end == life.ends[0] else life
        return life._replace(ends=(life.ends[0], end))
    if state == "accepted":
        life = life._replace(told=True)
    elif state == SUBMITTED:
        life = life._replace(in_log=True)
    if life.ends:
        return life
    deadline = _long(allowed.deadline(state, at, step.due_at, accepted_at))
    if state == "released":
        ahead = life.state in WAITS and life.round <= round
        life = life._replace(released=max(life.released, round))
    else:
        ahead = False
        if state in WAITS and round <= life.released:
            return life
    if ahead or (deadline, _number[state]) > (life.deadline, _number[life.state]):
        return life._replace(state=state, since=at, deadline=deadline, round=round)
    return life


def _long(value: int) -> int:
    return min(max(value, 0), _LONG_MAX)


class Count(NamedTuple):
    """Messages: accepted = ended + in_flight."""

    accepted: int = 0
    ended: int = 0
    in_flight: int = 0


class Finding(NamedTuple):
    """A message that breaks the rule. `state`: where it is, or its ends; `since_ms`: since when; `letter`: id of the open dead
    letter that explains it."""

    id: str
    tenant: str
    stream: str
    state: str
    since_ms: int
    letter: str = ""


Group = tuple[str, str]  # tenant, stream


@dataclass
class Report:
    """What one source says. `settled`: counts of what was accepted, and had ended, before `settled_ms` (accepted, ended): any
    two sources agree on those once the transit time is over. `explained`: orphans that wait in an open dead letter, for an
    operator. `unreadable`: records that do not decode."""

    source: str
    settled_ms: int
    counts: dict[Group, Count] = field(default_factory=dict)
    settled: dict[Group, tuple[int, int]] = field(default_factory=dict)
    orphans: list[Finding] = field(default_factory=list)
    two_ends: list[Finding] = field(default_factory=list)
    strays: list[Finding] = field(default_factory=list)
    explained: list[Finding] = field(default_factory=list)
    unreadable: int = 0

    @property
    def ok(self) -> bool:
        """Nothing breaks the rule."""
        return not (self.orphans or self.two_ends or self.strays)

    @property
    def total(self) -> Count:
        """Over all tenants and streams."""
        return Count(*(sum(each) for each in zip(*self.counts.values(), strict=True))) if self.counts else Count()

    def count(self, group: Group, life: Life, known_to_all: bool = True) -> None:
        """One accepted message more. `known_to_all`: the other source has to have it too, once it is settled."""
        accepted, ended, in_flight = self.counts.get(group, Count())
        has_ended = bool(life.ends)
        self.counts[group] = Count(accepted + 1, ended + has_ended, in_flight + (not has_ended))
        if known_to_all and life.accepted_at <= self.settled_ms:
            before, done = self.settled.get(group, (0, 0))
            self.settled[group] = before + 1, done + (has_ended and life.since <= self.settled_ms)

    def find(self, id: str, group: Group, life: Life, now: int, allowed: Allowed, letter: str = "") -> None:
        """List what is wrong with a message."""
        for what in life.findings(now, allowed):
            since = life.since if life.accepted else life.first_at
            found = Finding(id, *group, life.shown(), since, letter if what == "orphan" else "")
            self._list(what, found).append(found)

    def _list(self, what: str, found: Finding) -> list[Finding]:
        if what == "orphan":
            return self.explained if found.letter else self.orphans
        return self.two_ends if what == "two-ends" else self.strays


def differences(one: Report, other: Report) -> list[str]:
    """Where two sources disagree about what was settled, a line each; what is younger than the transit time is lag."""
    found = []
    for group in sorted({*one.settled, *other.settled}):
        here, there = one.settled.get(group, (0, 0)), other.settled.get(group, (0, 0))
        if here != there:
            found.append(f"{'/'.join(group)}: {_said(one, here)}, {_said(other, there)}")
    return found


def _said(report: Report, settled: tuple[int, int]) -> str:
    return f"{report.source} has {settled[0]:,} accepted and {settled[1]:,} ended"
