"""Schedule: hold messages until they are due, or until somebody decides, then put them back on the road.

mail.scheduled, mail.decisions, mail.reschedules (key: message id), control.orders -> mail.accepted, mail.validated,
mail.scored (key: recipient), mail.events, mail.endings

A message comes back with its next round. Released twice, after a crash, it has the same round twice: suppress stops one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from agents import rescheduling
from agents.application import application
from avro.records import Decision, Order, Scheduled
from postroad import ids, orders
from postroad.events import ending, event
from postroad.orders import Orders
from tables import cancelled, due, sites, traced
from tables.cancelled import CANCELLED
from tables.due import BEGINNING, DUE, NEVER, WAITING, Waiting
from tables.sites import APPLIED, FLUSHED, SITES
from tables.traced import TRACED
from topics.catalogue import ACCEPTED, DECISIONS, ENDINGS, EVENTS, ORDERS, SCHEDULED, SCORED, VALIDATED, Output
from topics.stage import Stage
from topics.state import View

NAME = "schedule"
TICK_SECONDS = 0.25
RELEASED_AT_ONCE = 200  # per tick and partition; there is a tick at once while more is due
OWN_TIME = ("held", "send-at")  # who waits for these does not wait to be tried: no flush lets it go
BACK = {"accepted": ACCEPTED, "validated": VALIDATED, "scored": SCORED}

stage = Stage(NAME, reads=[SCHEDULED, DECISIONS, rescheduling.SOURCE], writes=[*BACK.values(), EVENTS, ENDINGS],
              tables=[DUE, WAITING, CANCELLED, BEGINNING, SITES, APPLIED, FLUSHED, rescheduling.TABLE, TRACED], follows=[ORDERS])  # fmt: skip
__getattr__ = application(stage)


@stage.on(SCHEDULED)
def hold(entry: Scheduled, state: View) -> Output | None:
    """Kept under its time; one that waits for an operator, until it expires. Of two copies of a message (upstream was done
    twice around a crash) the one stays that suppress has let through, since it stops the other; then the later round.
    Raises ValueError for an id that is none of ours: one that is too long could be held, and no tick could let it go."""
    message = (entry := rescheduling.wished(entry, state))["message"]
    ids.accepted_at(message["message_id"])
    message_id, cleared, round = message["message_id"], message["cleared"], message["round"]
    waiting: Waiting | None = state.waiting.get(message_id)
    if waiting is not None and (waiting.cleared, waiting.round) >= (cleared, round):
        return None
    if waiting is not None:
        sites.forget(state.due.get(due.key(waiting.due_at, message_id)) or entry, waiting.due_at, state)
    if (why := state.cancelled.get(message_id)) is not None:
        return ENDINGS.send(ending(message, "cancelled", state.now, NAME, "cancelled", detail=why))
    known, site = Orders(state.services.orders), orders.site_of(message)
    if (order := known.bounced(message, site)) is not None:
        return ENDINGS.send(orders.bounce(message, order, state.now, NAME))
    until = entry["due_at"] if entry["due_at"] is not None else min(message["expires_at"], NEVER)
    flush = sites.flush_of(entry, known, state) if entry["reason"] not in OWN_TIME else None
    until = min(until, state.now) if flush else until
    due.keep(entry, until, state)
    state.sites.put(sites.key(message), until)
    if until < (state.beginning.get("") or 0):
        state.beginning.put("", until)
    return _flushed(entry, flush, state) if flush else None


stage.on(rescheduling.SOURCE)(partial(rescheduling.move, stage=NAME, hold=hold))


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
    sites.forget(entry, waiting.due_at, state)
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
            yield _back(entry, state)


@stage.every(TICK_SECONDS)
def release(state: View) -> Iterator[Output]:
    """What is due goes back; what has expired while it waited ends."""
    for until, entry in due.come(state, RELEASED_AT_ONCE):
        message = entry["message"]
        sites.forget(entry, until, state)
        state.beginning.put("", until)
        if state.now > message["expires_at"] or entry["due_at"] is None:
            why = f"waited: {entry['reason']}"
            yield ENDINGS.send(ending(message, "expired", state.now, NAME, "expired", detail=why))
        else:
            yield _back(entry, state)


@stage.every(TICK_SECONDS)
def obey(state: View) -> Iterator[Output]:
    """What waited when an order came goes on, or ends: each tick some of what one order is about, from where the last one
    stopped, so a million costs no memory, and a crash nothing but the last tick."""
    for order in Orders(state.services.orders).to_do(state.now):
        if (found := sites.next_of(order, state)) is not None:
            for key, until in found:
                yield from _apply(order, key, until, state)
            return


def _apply(order: Order, key: bytes, until: int, state: View) -> Iterator[Output]:
    entry: Scheduled | None = state.due.get(due.key(until, sites.id_in(key)))
    if entry is None:
        state.sites.delete(key)
    elif not orders.is_about(order, entry["message"]):
        return
    elif order["action"] == "bounce" and entry["message"]["accepted_at"] <= order["at"]:
        sites.forget(entry, until, state)
        yield ENDINGS.send(orders.bounce(entry["message"], order, state.now, NAME))
    elif order["action"] == "flush" and entry["at"] <= order["at"] and entry["reason"] not in OWN_TIME:
        sites.forget(entry, until, state)
        yield _flushed(entry, order, state)
        yield _back(entry, state)


def _flushed(entry: Scheduled, order: Order, state: View) -> Output:
    sites.flushed(entry["message"], order, state)
    return EVENTS.send(event(entry["message"], "released", state.now, NAME, reason="flush", rule=order["by"],
                             detail=order.get("reason", "")))  # fmt: skip


def _back(entry: Scheduled, state: View) -> Output:
    message = entry["message"]
    message["round"] += 1
    return BACK[entry["return_to"]].send(message, headers=traced.headers(message, state))
