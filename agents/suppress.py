"""Suppress: stop mail to recipients who must not get it, what was cancelled, and repeats of a message.

mail.scored, mail.suppressions, mail.cancellations (key: recipient) -> mail.cleared (key: recipient domain), mail.events,
mail.endings, mail.suppressions, mail.suppressed (key: tenant, address)
"""

from __future__ import annotations

from collections.abc import Iterator

from agents.application import application
from avro.records import Decision, Ending, Message, Suppression
from postroad import suppression
from postroad.events import ending, event
from postroad.suppression import Listed
from tables import cancelled, seen, suppressions
from tables.cancelled import CANCELLED
from tables.seen import SEEN
from tables.suppressions import NOT_IN_FORCE, SUPPRESSED
from topics.catalogue import CANCELLATIONS, CLEARED, ENDINGS, EVENTS, IN_FORCE, SCORED, SUPPRESSIONS, Output
from topics.stage import Stage
from topics.state import View

NAME = "suppress"

stage = Stage(
    NAME,
    reads=[SCORED, SUPPRESSIONS, CANCELLATIONS],
    writes=[CLEARED, EVENTS, ENDINGS, SUPPRESSIONS, IN_FORCE],
    tables=[SUPPRESSED, SEEN, CANCELLED, NOT_IN_FORCE],
)
__getattr__ = application(stage)


@stage.on(SUPPRESSIONS)
def remember(entry: Suppression, state: View) -> Iterator[Output]:
    """An address is added to a list, or taken from it; where that stops mail, or lets it pass, an event says so. An entry that
    came under another key than its recipient's mail has goes to the partition of that mail. Raises ValueError for an entry
    that no list takes."""
    recipient, tenant = suppression.check(entry), entry["tenant"]
    if state.record.key != recipient.encode():
        yield SUPPRESSIONS.send({**entry, "recipient": recipient})
        return
    entry = suppression.dated(entry, state.record.timestamp)
    key, rules = suppressions.key(tenant, recipient), suppression.rules(state.services.tenants.get(tenant, {}))
    before = suppressions.get(state, key)
    after = suppression.apply(before, entry, rules)
    if after == before:
        return
    suppressions.put(state, key, after, rules)
    if suppression.stops(after, state.now) != suppression.stops(before, state.now):
        yield EVENTS.send(suppression.change(entry, recipient, after, state.now, NAME))
    shown = suppression.in_force(tenant, recipient, after)
    if shown is not None:
        yield IN_FORCE.send(shown)
    elif before is not None and before["active"]:
        yield Output(IN_FORCE, key.encode(), None)


@stage.on(CANCELLATIONS)
def cancel(decision: Decision, state: View) -> None:
    """The message ends here when it comes, if it has not left for good."""
    state.cancelled.put(decision["message_id"], decision["reason"], state.now + cancelled.KEPT_MS)


@stage.on(SCORED)
def pass_on(message: Message, state: View) -> Iterator[Output]:
    """Cleared, or an end. What was here before stops without a trace: the same round, or, of a message that somebody
    upstream has handled twice with different outcomes (a crash, and DNS said something else), a copy that was not cleared."""
    message_id, now, round = message["message_id"], state.now, message["round"]
    before = state.seen.get(message_id)
    if before is not None and (round <= before or not message["cleared"]):
        return
    end: Ending | None = None
    if (reason := state.cancelled.get(message_id)) is not None:
        end = ending(message, "cancelled", now, NAME, "cancelled", detail=reason)
    elif now > message["expires_at"]:
        end = ending(message, "expired", now, NAME, "expired")
    elif (found := _suppressed(message, state)) is not None:
        end = ending(message, "dropped", now, NAME, "suppressed", *found)
    state.seen.put(message_id, seen.ENDED if end else round, max(now, message["expires_at"]) + seen.KEPT_MS)
    if end:
        yield ENDINGS.send(end)
        return
    message["cleared"] = True
    yield EVENTS.send(event(message, "cleared", now, NAME))
    yield CLEARED.send(message)


def _suppressed(message: Message, state: View) -> tuple[str, str] | None:
    """The list that stops the message with the reason, and the evidence; None when nothing does."""
    for tenant, scope in (("", "global"), (message["tenant"], "tenant")):
        listed: Listed | None = state.suppressed.get(suppressions.key(tenant, message["recipient"]))
        if listed is not None and suppression.stops(listed, state.now):
            why = ": ".join(filter(None, (listed["stopped_by"] or listed["evidence"][-1], listed["detail"])))
            return f"{scope}:{listed['reason'].replace('_', '-')}", why
    return None
