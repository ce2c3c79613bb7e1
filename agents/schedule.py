"""Schedule: hold messages until they are due, or until somebody decides, then put them back on the road.

mail.scheduled, mail.decisions (key: message id) -> mail.accepted, mail.validated, mail.scored (key: recipient), mail.events,
mail.endings

A message comes back with its next round. Released twice, after a crash, it has the same round twice: suppress stops one.
"""

from __future__ import annotations

from collections.abc import Iterator

from agents.application import application
from avro.records import Decision, Scheduled
from postroad.events import ending, event
from tables import due
from tables.due import DUE, NEVER, WAITING, Waiting
from topics.catalogue import ACCEPTED, DECISIONS, ENDINGS, EVENTS, SCHEDULED, SCORED, VALIDATED, Output
from topics.stage import Stage
from topics.state import View

NAME = "schedule"
TICK_SECONDS = 0.25
RELEASED_AT_ONCE = 200  # per tick and partition; there is a tick at once while more is due
BACK = {"accepted": ACCEPTED, "validated": VALIDATED, "scored": SCORED}

stage = Stage(NAME, reads=[SCHEDULED, DECISIONS], writes=[*BACK.values(), EVENTS, ENDINGS], tables=[DUE, WAITING])
__getattr__ = application(stage)


@stage.on(SCHEDULED)
def hold(entry: Scheduled, state: View) -> None:
    """Kept under its time; one that waits for an operator, until it expires."""
    message = entry["message"]
    waiting: Waiting | None = state.waiting.get(message["message_id"])
    if waiting is not None and waiting.round >= message["round"]:
        return  # this round waits already: upstream repeats itself
    if waiting is not None:  # an earlier round was released, and before that could be written the worker died
        _forget(message["message_id"], waiting.due_at, state)
    until = entry["due_at"] if entry["due_at"] is not None else min(message["expires_at"], NEVER)
    state.due.put(due.key(until, message["message_id"]), entry)
    state.waiting.put(message["message_id"], Waiting(message["round"], until))


@stage.on(DECISIONS)
def decide(decision: Decision, state: View) -> Iterator[Output]:
    """A message that waits here goes on or ends; one that does not is somewhere else, and nothing happens."""
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
        yield EVENTS.send(event(message, "released", now, NAME, reason="operator", rule=by, detail=why))
        send_at = message.get("send_at") or 0
        if entry["reason"] == "held" and send_at > now:
            hold({**entry, "due_at": send_at, "reason": "send-at"}, state)
        else:
            yield _back(entry)


@stage.every(TICK_SECONDS)
def release(state: View) -> Iterator[Output]:
    """What is due goes back; what has expired while it waited ends."""
    for key, entry in state.due.scan(limit=RELEASED_AT_ONCE):
        until, message = due.due_at(key), entry["message"]
        if until > state.now:
            return
        _forget(message["message_id"], until, state)
        if state.now > message["expires_at"] or entry["due_at"] is None:
            yield ENDINGS.send(
                ending(message, "expired", state.now, NAME, "expired", detail=f"waited: {entry['reason']}")
            )
        else:
            yield _back(entry)


def _back(entry: Scheduled) -> Output:
    message = entry["message"]
    message["round"] += 1
    return BACK[entry["return_to"]].send(message)


def _forget(message_id: str, until: int, state: View) -> None:
    state.due.delete(due.key(until, message_id))
    state.waiting.delete(message_id)
