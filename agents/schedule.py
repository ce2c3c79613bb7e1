"""Schedule: hold messages until they are due, or until somebody decides, then put them back on the road.

mail.scheduled, mail.decisions (key: message id) -> mail.accepted, mail.validated, mail.scored (key: recipient), mail.events,
mail.endings

A message comes back with its next round. Released twice, after a crash, it has the same round twice: suppress stops one.
"""

from __future__ import annotations

from collections.abc import Iterator

from agents.application import application
from avro.records import Decision, Scheduled
from postroad import ids
from postroad.events import ending, event
from tables import cancelled, due
from tables.cancelled import CANCELLED
from tables.due import BEGINNING, DUE, NEVER, WAITING, Waiting
from topics.catalogue import ACCEPTED, DECISIONS, ENDINGS, EVENTS, SCHEDULED, SCORED, VALIDATED, Output
from topics.stage import Stage
from topics.state import View

NAME = "schedule"
TICK_SECONDS = 0.25
RELEASED_AT_ONCE = 200  # per tick and partition; there is a tick at once while more is due
BACK = {"accepted": ACCEPTED, "validated": VALIDATED, "scored": SCORED}

stage = Stage(NAME, reads=[SCHEDULED, DECISIONS], writes=[*BACK.values(), EVENTS, ENDINGS],
              tables=[DUE, WAITING, CANCELLED, BEGINNING])  # fmt: skip
__getattr__ = application(stage)


@stage.on(SCHEDULED)
def hold(entry: Scheduled, state: View) -> Output | None:
    """Kept under its time; one that waits for an operator, until it expires. Of two copies of a message (upstream was done
    twice around a crash) the one stays that suppress has let through, since it stops the other; then the later round.
    Raises ValueError for an id that is none of ours: one that is too long could be held, and no tick could let it go."""
    message = entry["message"]
    ids.accepted_at(message["message_id"])
    message_id, cleared, round = message["message_id"], message["cleared"], message["round"]
    waiting: Waiting | None = state.waiting.get(message_id)
    if waiting is not None and (waiting.cleared, waiting.round) >= (cleared, round):
        return None
    if waiting is not None:
        _forget(message_id, waiting.due_at, state)
    if (why := state.cancelled.get(message_id)) is not None:
        return ENDINGS.send(ending(message, "cancelled", state.now, NAME, "cancelled", detail=why))
    until = entry["due_at"] if entry["due_at"] is not None else min(message["expires_at"], NEVER)
    state.due.put(due.key(until, message_id), entry)
    state.waiting.put(message_id, Waiting(round, until, cleared))
    if until < (state.beginning.get("") or 0):
        state.beginning.put("", until)
    return None


@stage.on(DECISIONS)
def decide(decision: Decision, state: View) -> Iterator[Output]:
    """A message that waits here goes on or ends. One that does not is somewhere else: nothing happens, but that it is
    cancelled if it comes here. Raises ValueError as `hold`."""
    ids.accepted_at(decision["message_id"])
    if decision["action"] == "cancel":
        state.cancelled.put(decision["message_id"], decision["reason"], state.now + cancelled.KEPT_MS)
    waiting: Waiting | None = state.waiting.get(decision["message_id"])
    entry: Scheduled | None = state.due.get(due.key(waiting.due_at, decision["message_id"])) if waiting else None
    if waiting is None or entry is None:
        return
    message, now = entry["message"], state.now
    _forget(decision["message_id"], waiting.due_at, state)
    by, why = decision["by"], decision["reason"]
    if decision["action"] == "drop":
        yield ENDINGS.send(ending(message, "dropped", now, NAME, "operator", by, why))
    elif decision["action"] == "cancel":
        yield ENDINGS.send(ending(message, "cancelled", now, NAME, "cancelled", by, why))
    else:
        message["released"] = True
        send_at = message.get("send_at") or 0
        until = send_at if entry["reason"] == "held" and send_at > now else None
        yield EVENTS.send(event(message, "released", now, NAME, reason="operator", rule=by, detail=why, due_at=until))
        if until:
            again = hold({**entry, "due_at": until, "reason": "send-at"}, state)
            yield from (again,) if again else ()
        else:
            yield _back(entry)


@stage.every(TICK_SECONDS)
def release(state: View) -> Iterator[Output]:
    """What is due goes back; what has expired while it waited ends."""
    for until, entry in _due(state):
        message = entry["message"]
        _forget(message["message_id"], until, state)
        state.beginning.put("", until)
        if state.now > message["expires_at"] or entry["due_at"] is None:
            yield ENDINGS.send(
                ending(message, "expired", state.now, NAME, "expired", detail=f"waited: {entry['reason']}")
            )
        else:
            yield _back(entry)


def _due(state: View) -> Iterator[tuple[int, Scheduled]]:
    """The next entries whose time has come, with it. Most ticks find none: one is read, then ever more."""
    first, n, left = due.key(state.beginning.get("") or 0, ""), 1, RELEASED_AT_ONCE
    while left:
        found = state.due.scan(first, limit=n)
        for key, entry in found:
            if due.due_at(key) > state.now:
                return
            yield due.due_at(key), entry
        if len(found) < n:
            return
        first, left = found[-1][0] + b"\0", left - n
        n = min(4 * n, left)


def _back(entry: Scheduled) -> Output:
    message = entry["message"]
    message["round"] += 1
    return BACK[entry["return_to"]].send(message)


def _forget(message_id: str, until: int, state: View) -> None:
    state.due.delete(due.key(until, message_id))
    state.waiting.delete(message_id)
