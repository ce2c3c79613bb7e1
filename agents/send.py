"""Send: DKIM-sign a message and deliver it to its site, within the site's connections and rate.

mail.outbound (key: site#shard) -> mail.attempts (key: message id), mail.events, mail.scheduled, mail.endings

What cannot go now is parked in schedule with the time when it may, so a slow site neither blocks its partition nor fills
memory. `deliveries` is asked before anyone talks to an MX; topics/effects.py says what a crash leaves at each step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from agents.application import application
from agents.outputs import park
from agents.services import Services
from avro.records import Attempt, Message, Route
from postroad.addresses import domain_of
from postroad.content import ContentMissing, ContentUnavailable
from postroad.dkim import DkimError, sign
from postroad.events import ending
from postroad.limits import Limit
from postroad.mime import needs_smtputf8
from postroad.outcomes import Expired, Parked, Sent, busy, local
from postroad.retry import put_off
from postroad.senders import domain_of_tenant, signing_keys
from postroad.smtp import Envelope, Reply
from tables import deliveries, rate_limits
from tables.deliveries import DELIVERIES, Tried
from tables.rate_limits import RATE_LIMITS
from topics.catalogue import ATTEMPTS, ENDINGS, EVENTS, OUTBOUND, SCHEDULED, Output
from topics.stage import EffectStage
from topics.state import View

NAME = "send"
PATIENCE_MS = 1000  # a place in the site's rate that is nearer is waited for, a later one parks the message


stage = EffectStage(NAME, reads=[OUTBOUND], writes=[ATTEMPTS, EVENTS, SCHEDULED, ENDINGS], tables=[RATE_LIMITS, DELIVERIES],
                    identity=lambda message: message["message_id"],
                    key_limit=lambda key, services: services.messages_at_once(key))  # fmt: skip
__getattr__ = application(stage)


@stage.perform
async def deliver(message: Message, state: View, possible_duplicate: bool) -> Sent | Parked | Expired | None:
    """One attempt; None for a message that was delivered, or was tried in this round before."""
    services, route, flag = state.services, message["route"], possible_duplicate or message["possible_duplicate"]
    tried: Tried | None = state.deliveries.get(message["message_id"])
    if tried is not None and (tried.delivered or tried.round >= message["round"]):
        return None
    if state.now > message["expires_at"]:
        return Expired(flag)
    pool = services.pools.get(route["pool"]) if route else None
    sources = {source.name: source for source in pool.sources} if pool else {}
    if route is None or (source := sources.get(route["source"])) is None:
        return Sent(local(Reply(451, "4.3.5", "the egress source it was routed to is not there any more")), flag)
    client, site = services.client(route["site"]), f"{route['site']}#{route['shard']}"
    if client.pool.is_full(site):
        return busy(message, state.now, flag)
    due, may_go = _take_place(route, state)
    if not may_go:
        return Parked(due, "rate-limit", flag)
    await asyncio.sleep(max(0, due - state.now) / 1000)
    try:
        signed = await _signed(message, services, state.now)
    except ContentUnavailable:
        return Parked(put_off(state.now, message["round"], message["expires_at"]), "content", flag)
    except (ContentMissing, DkimError) as exc:
        return Sent(local(Reply(554, "5.6.0", str(exc))), flag)
    envelope = Envelope(message["return_path"], message["recipient"], needs_smtputf8(signed))
    result = await client.deliver(envelope, signed, route["hosts"], source, site)
    return busy(message, state.now, flag) if result.outcome == "connection-limit" else Sent(result, flag)


def _rate(route: Route) -> str:
    """Key of a site's rate."""
    return f"{route['site']}#{route['shard']}\0{route['source']}"


def _take_place(route: Route, state: View) -> tuple[int, bool]:
    """The time (ms) of a place in the site's rate, now or soon; else when to come back (False), each later than the last."""
    limits, rate = state.services.settings.site(route["site"]), _rate(route)
    per_second = limits.rate_per_second / limits.shards
    limit, kept = Limit(per_second, max(1, round(per_second))), state.rate_limits.get(rate) or 0.0
    taken: tuple[int, bool] = state.services.rates.take((state.partition, rate), kept, state.now, limit, PATIENCE_MS)
    return taken


async def _signed(message: Message, services: Services, now: int) -> bytes:
    """The whole message with a signature by every key of the sender's domain."""
    content = await services.contents.get(message["content"])
    whole = message["top"] + content
    tenant = services.tenants.get(message["tenant"])
    own = domain_of_tenant(tenant, domain_of(message["sender"])) if tenant else None
    if own is None:
        raise DkimError("the sender's domain is not the tenant's any more")
    bh = services.body_hashes.get(message["content"]["hash"], content)
    return sign(whole, own["domain"], signing_keys(own), now_ms=now, bh=bh) + whole


@stage.settle
def settle(message: Message, outcome: Sent | Parked | Expired | None, state: View) -> Iterator[Output]:
    """Remember the attempt, and hand its result to classify."""
    if outcome is None:
        return
    now, until = state.now, max(state.now, message["expires_at"]) + deliveries.KEPT_MS
    tried = Tried(message["round"], isinstance(outcome, Sent) and outcome.result.delivered)
    state.deliveries.put(message["message_id"], tried, until)
    if not isinstance(outcome, Sent):
        message["possible_duplicate"] = outcome.possible_duplicate
    if isinstance(outcome, Expired):
        yield ENDINGS.send(ending(message, "expired", now, NAME, "expired"))
        return
    if isinstance(outcome, Parked):
        yield from park(message, NAME, now, min(outcome.until, message["expires_at"]), outcome.reason)
        return
    if (route := message["route"]) and (used := state.services.rates.used((state.partition, _rate(route)))):
        state.rate_limits.put(_rate(route), used, now + rate_limits.KEPT_MS)
    result, possible_duplicate = outcome
    if result.delivered:  # its body has done its work
        message["content"]["inline"] = None
    attempt: Attempt = {
        "message": message, "at": now, "duration_ms": result.duration_ms, "phase": result.phase,
        "reply_code": result.reply.code, "enhanced_code": result.reply.enhanced, "reply": result.reply.text,
        "mx_host": result.mx_host, "mx_address": result.mx_address, "tls": result.tls,
        "possible_duplicate": possible_duplicate,
    }  # fmt: skip
    yield ATTEMPTS.send(attempt)
