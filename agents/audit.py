"""Audit: every message's life is followed while it happens, and one that breaks the ledger's rule raises an alarm.

mail.events, mail.attempts (key: message id) -> mail.events

The rule is postroad/ledger.py's. An alarm is an event `reported` of this stage, one for each finding, and a counter; it comes
within two minutes of the moment when the rule says so. Most steps change nothing that has to be kept (`_follow`).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from agents import reading
from agents.application import application
from avro.records import Attempt, Event
from postroad import ids
from postroad.events import NO_STEPS, event
from postroad.ledger import ATTEMPTED, PASSES, WAITS, Allowed, Life, Step, follow, step_of
from tables import due
from tables.audited import AUDITED, BEGINNING, DEADLINES, KEPT_MS, TEXTS, Audited
from topics.catalogue import ATTEMPTS, DAY_MS, EVENTS, Output
from topics.metrics import Metrics
from topics.stage import Stage
from topics.state import View

NAME = "audit"
SLACK_MS = 60_000  # an alarm may be so late: steps that move a deadline by less are not written
TICK_SECONDS = 10.0
LOOKED_AT_ONCE = 200  # per tick and partition; there is a tick at once while more is due
TEXT_MAX = 254  # characters kept of each text, as of an address: what one tick writes fits one changelog batch, whatever they are
STRAYS_MS = EVENTS.retention_ms - DAY_MS  # of older messages the event accepted may be gone

stage = Stage(NAME, reads=[EVENTS, ATTEMPTS], writes=[EVENTS], tables=[AUDITED, DEADLINES, BEGINNING])
__getattr__ = application(stage)

ALARMS = {"orphan": "orphans", "two-ends": "two_ends", "attempt-without-message": "strays"}  # reason: counter
# What this process has seen: accepted, ended, orphans, two_ends, strays; audit_behind, ticks of a partition that were silent because
# it is behind. For graphs and alerts, not for sums: a batch that is computed again counts again. `postroad audit` counts exactly.
metrics = Metrics()


@cache
def _allowed(services: Any) -> Allowed:
    return services.settings.allowed()  # type: ignore[no-any-return]  # services are any in tests


@stage.glance(EVENTS, "round")
def may_matter(head: Event, state: View) -> bool:
    """Not what is no step, nor one on the way of a message that is known, which moves its deadline by less than the slack."""
    if head["kind"] in NO_STEPS or not (known := _known_now(head["message_id"], state)) or head["kind"] not in PASSES:
        return head["kind"] not in NO_STEPS
    deadline = _allowed(state.services).deadline(head["kind"], head["at"], None, head["accepted_at"])
    return not known.life.ends and deadline - known.life.deadline >= SLACK_MS


@stage.glance(ATTEMPTS, "message.message_id")
def is_first_trace(head: Attempt, state: View) -> bool:
    """Whether nothing is known of its message."""
    return _known_now(head["message"]["message_id"], state) is None


def _known_now(id: str, state: View) -> Audited | None:
    """What is known of a message; nothing while we are behind, which `_follow` notes."""
    return None if reading.is_old(state) else state.audited.get(id)


@stage.on(EVENTS)
def hear(told: Event, state: View) -> Output | None:
    """One step of a message; a second end is an alarm."""
    step = step_of(told)
    return _follow(told["message_id"], step, told, state) if step else None


@stage.on(ATTEMPTS)
def hear_attempt(attempt: Attempt, state: View) -> Output | None:
    """Nothing new where the message is known."""
    message = attempt["message"]
    step = Step(ATTEMPTED, attempt["at"], message["accepted_at"], message["round"])
    return _follow(message["message_id"], step, message, state)


def _follow(id: str, step: Step, about: Any, state: View) -> Output | None:
    """Keep what a step changes: a deadline that moves by less than the slack of an alarm is not worth a write. Raises
    ValueError for an id that is none of ours: no tick could write what it does with one that is too long."""
    reading.read(state)
    ids.accepted_at(id)
    known: Audited | None = state.audited.get(id)
    if known is not None and step.state == ATTEMPTED:
        return None
    before = known.life if known else None
    life = follow(before, step, _allowed(state.services))
    if before is not None and step.state not in WAITS and life.hardly_differs(before, SLACK_MS):
        return None
    metrics.count("accepted", life.told and not (before and before.told))
    metrics.count("ended", bool(life.ends) and not (before and before.ends))
    texts = [] if life.ends and life.told else [about[name][:TEXT_MAX] for name in TEXTS]
    _put(id, Audited(life, known.look_at if known else 0, known.stray if known else False, *texts), state)
    second = len(life.ends) > 1 and not (before and len(before.ends) > 1)
    return _alarm("two-ends", life.shown(), id, life, about, state) if second else None


def _put(id: str, known: Audited, state: View) -> None:
    """Keep it, and look at it again when that may be needed."""
    look = known.next_look(_allowed(state.services))
    if look and (not known.look_at or look + SLACK_MS < known.look_at):
        known = known._replace(look_at=look + SLACK_MS)
        state.deadlines.put(due.key(known.look_at, id), b"")
        if known.look_at < (state.beginning.get("") or 0):
            state.beginning.put("", known.look_at)
    state.audited.put(id, known, max(state.now, known.life.deadline) + KEPT_MS)


@stage.every(TICK_SECONDS)
def look(state: View) -> Iterator[Output]:
    """What is overdue. Not while we are behind: the step that is missing may stand in what we have not read."""
    now = state.now
    if reading.is_behind(state, TICK_SECONDS):
        metrics.count("audit_behind")
        return
    for key, _ in state.deadlines.scan(due.key(state.beginning.get("") or 0, ""), limit=LOOKED_AT_ONCE):
        if (at := due.due_at(key)) > now:
            return
        state.deadlines.delete(key)
        state.beginning.put("", at)
        id = key[8:].decode()
        known: Audited | None = state.audited.get(id)
        if known is not None and known.look_at == at:
            yield from _judge(id, known._replace(look_at=0), state)


def _judge(id: str, known: Audited, state: View) -> Iterator[Output]:
    life, about, now = known.life, known._asdict(), state.now
    overdue = known.next_look(_allowed(state.services))
    if overdue and overdue + SLACK_MS <= now:
        if life.accepted:
            yield _alarm("orphan", f"{life.state}, and no step for too long", id, life, about, state)
        elif life.accepted_at > now - STRAYS_MS:
            yield _alarm("attempt-without-message", f"{life.state}, and never accepted", id, life, about, state)
        state.audited.put(id, known._replace(stray=not life.accepted), max(now, life.deadline) + KEPT_MS)
    elif overdue:
        _put(id, known, state)


def _alarm(reason: str, detail: str, id: str, life: Life, about: Any, state: View) -> Output:
    metrics.count(ALARMS[reason])
    own: Any = {"message_id": id, "accepted_at": life.accepted_at, "round": life.round, "content": {"size": 0}}
    message = own | {name: about[name] for name in TEXTS}
    return EVENTS.send(event(message, "reported", state.now, NAME, reason=reason, detail=detail))
