"""Send: DKIM-sign a message and deliver it to its site, from a source and at a time that the site's limits allow.

mail.outbound, mail.outbound-broadcast (key: site#shard) -> mail.attempts (key: message id), mail.events, mail.scheduled, mail.endings

What cannot go now is parked in schedule with the time when it may, so a slow site neither blocks its partition nor fills
memory. `deliveries` is asked before anyone talks to an MX; topics/effects.py says what a crash leaves at each step.
"""

from __future__ import annotations

from collections.abc import Iterator

from agents.application import application
from agents.outputs import TENANT, park
from agents.services import Services
from agents.signing import signed_by_tenant
from avro.records import Attempt, Message
from postroad import simulator
from postroad.content import ContentMissing, ContentUnavailable
from postroad.departure import Leave, Wait, place_of
from postroad.dkim import DkimError
from postroad.events import ending, event
from postroad.mime import needs_smtputf8
from postroad.orders import Orders
from postroad.outcomes import Expired, Parked, Sent, busy, local, refused_until, standings, told
from postroad.retry import put_off
from postroad.smtp import Envelope, Place, Reply
from tables import deliveries, shaping, usage
from tables.deliveries import DELIVERIES, Tried
from tables.rate_limits import RATE_LIMITS, WINDOWS
from tables.shaping import SHAPING
from tables.warmup import WARMUP
from topics.catalogue import ATTEMPTS, ENDINGS, EVENTS, OUTBOUND, OUTBOUND_BROADCAST, SCHEDULED, Output
from topics.stage import EffectStage
from topics.state import View

NAME = "send"
SOURCES_MAX = 3  # tried in one attempt, where a site turns sources away

stage = EffectStage(NAME, reads=[OUTBOUND, OUTBOUND_BROADCAST], writes=[ATTEMPTS, EVENTS, SCHEDULED, ENDINGS],
                    tables=[RATE_LIMITS, DELIVERIES, SHAPING, WARMUP, WINDOWS],
                    identity=lambda message: message["message_id"],
                    key_limit=lambda key, services: services.messages_at_once(key), owner_header=TENANT, told=told)  # fmt: skip
__getattr__ = application(stage)


@stage.perform
async def deliver(message: Message, state: View, possible_duplicate: bool) -> Sent | Parked | Expired | None:
    """One attempt; None for a message that was delivered, or was tried in this round before."""
    services, route, flag = state.services, message["route"], possible_duplicate or message["possible_duplicate"]
    if _was_tried(message, state):
        return None
    if state.now > message["expires_at"]:
        return Expired(flag)
    if message["test"]:
        return Sent(simulator.attempt(message), flag)
    pool = services.pools.get(route["pool"]) if route else None
    if route is None or pool is None:
        return Sent(local(Reply(451, "4.3.5", "the egress pool it was routed to is not there any more")), flag)
    place, signed, last = place_of(message), b"", None
    for _ in range(SOURCES_MAX):
        policy, orders = services.shaping.policy, Orders(services.orders)
        found: Leave | Wait = services.departures.leave(message, pool, place, policy, orders, state)
        if isinstance(found, Wait):
            return last or Parked(found.until, found.reason, flag)
        client = services.client()
        try:
            if client.pool.is_full(Place(place, found.source), found.limits):
                found.give_back()
                return last or busy(message, state.now, flag)
            signed = signed or await signed_by_tenant(message, services, state.now)
            envelope = Envelope(message["return_path"], message["recipient"], needs_smtputf8(signed))
            result = await services.departures.deliver(client, found, message, envelope, signed, state)
        except ContentUnavailable:
            found.give_back()
            return Parked(put_off(state.now, message["round"], message["expires_at"]), "content", flag)
        except (ContentMissing, DkimError) as exc:
            found.give_back()
            return Sent(local(Reply(554, "5.6.0", str(exc))), flag)
        except BaseException:
            found.done()
            raise
        if isinstance(result, Wait):
            return last or Parked(result.until, result.reason, flag)
        if result.outcome == "connection-limit":
            return last or busy(message, state.now, flag)
        last = Sent(result, flag, found, last)
        if found.is_lost or not (result.about_us and result.reply.permanent):
            break
        until = refused_until(policy.rules_of(route["site"]), result, state.now)
        services.departures.refuse(found, until)
    return last


def _was_tried(message: Message, state: View) -> bool:
    tried: Tried | None = state.deliveries.get(message["message_id"])
    return tried is not None and (tried.delivered or tried.round >= message["round"])


@stage.crowded
def crowd(message: Message, state: View, ahead: int) -> Parked | None:
    """Many wait for its site: it comes back when those before it have gone, and behind them."""
    if _was_tried(message, state):
        return None
    policy, flag = state.services.shaping.policy, message["possible_duplicate"]
    wait = state.services.departures.crowded(message, place_of(message), policy, ahead, state)
    return Parked(wait.until, wait.reason, flag)


@stage.lost
async def lost(partition: int, services: Services) -> None:
    """Its sites' connections are closed before another worker opens its own."""
    await services.lost(partition)


@stage.settle
def settle(message: Message, outcome: Sent | Parked | Expired | None, state: View) -> Iterator[Output]:
    """Remember the attempt and what it has used and changed, and hand its result to classify."""
    if outcome is None:
        return
    now, until = state.now, max(state.now, message["expires_at"]) + deliveries.KEPT_MS
    tried = Tried(message["round"], isinstance(outcome, Sent) and outcome.result.delivered)
    state.deliveries.put(message["message_id"], tried, until)
    if not isinstance(outcome, Sent):
        message["possible_duplicate"] = outcome.possible_duplicate
    usage.keep(message, outcome, state)
    if isinstance(outcome, Expired):
        yield ENDINGS.send(ending(message, "expired", now, NAME, "expired"))
        return
    if isinstance(outcome, Parked):
        yield from park(message, NAME, now, min(outcome.until, message["expires_at"]), outcome.reason)
        return
    result, decision = outcome.result, ""
    for one, key, standing, action in standings(message, outcome, state.services.shaping.policy, state.shaping, now):
        state.shaping.put(key, standing, now + shaping.KEPT_MS)
        if action is not None:
            decision, detail = action.rule, f"{action} for {max(0, action.until - now) // 1000} s: {one.result.reply}"
            said = event(message, "reported", now, NAME, reason="shaping", rule=action.rule, detail=detail,
                         source=one.source, shaping=one.version)  # fmt: skip
            said["event_id"] += f":shaping:{action.rule}"
            yield EVENTS.send(said)
    if result.delivered:  # its body has done its work
        message["content"]["inline"] = None
    attempt: Attempt = {
        "message": message, "at": now, "duration_ms": result.duration_ms, "phase": result.phase, "reply_code": result.reply.code,
        "enhanced_code": result.reply.enhanced, "reply": result.reply.text, "mx_host": result.mx_host, "mx_address": result.mx_address,
        "tls": result.tls, "possible_duplicate": outcome.possible_duplicate, "source": outcome.source, "shaping": outcome.version, "phases": dict(result.phases), "decision": decision,
    }  # fmt: skip
    yield ATTEMPTS.send(attempt)
    yield from map(EVENTS.send, simulator.feedback(message, result, now, NAME))
