"""What schedule does when a message gets another send-at: one that waits for its own moves, one that is not there yet will wait for it.

A wish may overtake its message, which is on its way through two more topics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from avro.records import Message, Reschedule, Scheduled
from postroad import ids
from postroad.events import event
from tables import due, rescheduled, sites
from tables.due import Waiting
from topics.catalogue import EVENTS, RESCHEDULES, Output
from topics.state import View

SOURCE, TABLE = RESCHEDULES, rescheduled.RESCHEDULED
REASON = "send-at"


def wished(entry: Scheduled, state: View) -> Scheduled:
    """An entry that comes to wait for its send-at, with the one that was asked for before it came."""
    send_at = state.rescheduled.get(entry["message"]["message_id"]) if entry["reason"] == REASON else None
    return entry if send_at is None else _moved(entry, send_at)


def move(
    wish: Reschedule, state: View, stage: str, hold: Callable[[Scheduled, View], Output | None]
) -> Iterator[Output]:
    """Raises ValueError for an id that is none of ours."""
    message_id = wish["message_id"]
    ids.accepted_at(message_id)
    waiting: Waiting | None = state.waiting.get(message_id)
    entry: Scheduled | None = state.due.get(due.key(waiting.due_at, message_id)) if waiting else None
    if entry is not None and entry["message"]["tenant"] != wish["tenant"]:
        return
    state.rescheduled.put(message_id, wish["send_at"], state.now + rescheduled.KEPT_MS)
    if waiting is None or entry is None or entry["reason"] != REASON:
        return
    sites.forget(entry, waiting.due_at, state)
    moved = _moved(entry, wish["send_at"])
    said = event(
        moved["message"], "scheduled", state.now, stage, reason=REASON, rule=wish["by"], due_at=wish["send_at"]
    )
    said["event_id"] += f":{wish['send_at']}"
    yield EVENTS.send(said)
    if (output := hold(moved, state)) is not None:
        yield output


def _moved(entry: Scheduled, send_at: int) -> Scheduled:
    message: Message = {**entry["message"], "send_at": send_at}
    message["expires_at"] += max(0, send_at - (entry["due_at"] or send_at))
    return {**entry, "due_at": send_at, "message": message}
