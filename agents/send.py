"""Send: DKIM-sign a message and deliver it to its site, within the site's connections and rate.

mail.outbound (key: site#shard) -> mail.attempts (key: message id), mail.events, mail.scheduled

What cannot go now is parked in schedule with the time when it may, so a slow site neither blocks its partition nor fills
memory. `deliveries` is asked before anyone talks to an MX; topics/effects.py says what a crash leaves at each step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import NamedTuple

from agents.application import application
from agents.services import Services
from avro.records import Attempt, Message, Route
from postroad.addresses import domain_of
from postroad.content import ContentMissing, ContentUnavailable
from postroad.dkim import DkimError, sign
from postroad.events import event
from postroad.limits import Limit, reserve
from postroad.mime import needs_smtputf8
from postroad.retry import put_off
from postroad.senders import domain_of_tenant, signing_keys
from postroad.smtp import Envelope, Reply, Result
from tables import deliveries, rate_limits
from tables.deliveries import DELIVERIES, Tried
from tables.rate_limits import RATE_LIMITS
from topics.catalogue import ATTEMPTS, EVENTS, OUTBOUND, SCHEDULED, Output
from topics.stage import EffectStage
from topics.state import View

NAME = "send"
PATIENCE_MS = 1000  # a place in the site's rate that is nearer is waited for, a later one parks the message
BUSY_MS = 3_000  # all connections of the site are in use for longer than its pool waits


class Sent(NamedTuple):
    """An attempt was made."""

    result: Result
    possible_duplicate: bool


class Parked(NamedTuple):
    """Nothing was tried: not before `until` (ms)."""

    until: int
    reason: str
    possible_duplicate: bool  # an earlier life of this worker may have sent it


stage = EffectStage(NAME, reads=[OUTBOUND], writes=[ATTEMPTS, EVENTS, SCHEDULED], tables=[RATE_LIMITS, DELIVERIES],
                    identity=lambda message: message["message_id"])  # fmt: skip
__getattr__ = application(stage)


@stage.perform
async def deliver(message: Message, state: View, possible_duplicate: bool) -> Sent | Parked | None:
    """One attempt; None for a message that was delivered, or was tried in this round before."""
    services, route, flag = state.services, message["route"], possible_duplicate or message["possible_duplicate"]
    tried: Tried | None = state.deliveries.get(message["message_id"])
    if tried is not None and (tried.delivered or tried.round >= message["round"]):
        return None
    pool = services.pools.get(route["pool"]) if route else None
    sources = {source.name: source for source in pool.sources} if pool else {}
    if route is None or (source := sources.get(route["source"])) is None:
        return Sent(_local(Reply(451, "4.3.5", "the egress source it was routed to is not there any more")), flag)
    due, may_go = _take_place(route, state)
    if not may_go:
        return Parked(due, "rate-limit", flag)
    await asyncio.sleep(max(0, due - state.now) / 1000)
    try:
        signed = await _signed(message, services, state.now)
    except ContentUnavailable:
        return Parked(put_off(state.now, message["round"], message["expires_at"]), "content", flag)
    except (ContentMissing, DkimError) as exc:
        return Sent(_local(Reply(554, "5.6.0", str(exc))), flag)
    envelope = Envelope(message["return_path"], message["recipient"], needs_smtputf8(signed))
    site = f"{route['site']}#{route['shard']}"
    result = await services.client(route["site"]).deliver(envelope, signed, route["hosts"], source, site)
    if result.outcome == "connection-limit":
        return Parked(state.now + BUSY_MS + int(message["message_id"][-4:], 32) % BUSY_MS, "connection-limit", flag)
    return Sent(result, flag)


def _local(reply: Reply) -> Result:
    """Our own word about the message, in the phase where the SMTP client has its own: a 5xx ends the message."""
    return Result("mail", "local", reply)


def _rate(route: Route) -> str:
    """Key of a site's rate."""
    return f"{route['site']}#{route['shard']}\0{route['source']}"


def _take_place(route: Route, state: View) -> tuple[int, bool]:
    """The time (ms) of a place in the site's rate, now or soon; else when to come back (False), each later than the last."""
    services, place = state.services, (state.partition, _rate(route))
    limits = services.settings.site(route["site"])
    limit = Limit(limits.rate_per_second / limits.shards, max(1, round(limits.rate_per_second / limits.shards)))
    kept = state.rate_limits.get(place[1]) or 0.0  # what an earlier owner of the partition has used
    due, tat = reserve(max(services.rates.get(place, 0.0), kept), state.now, limit)
    if due - state.now <= PATIENCE_MS:
        services.rates[place] = tat
        return due, True
    until, services.parked[place] = reserve(max(services.parked.get(place, 0.0), tat), state.now, limit)
    return until, False


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
def settle(message: Message, outcome: Sent | Parked | None, state: View) -> Iterator[Output]:
    """Remember the attempt, and hand its result to classify."""
    if outcome is None:
        return
    now, until = state.now, max(state.now, message["expires_at"]) + deliveries.KEPT_MS
    tried = Tried(message["round"], isinstance(outcome, Sent) and outcome.result.delivered)
    state.deliveries.put(message["message_id"], tried, until)
    if isinstance(outcome, Parked):
        due, message["possible_duplicate"] = min(outcome.until, message["expires_at"]), outcome.possible_duplicate
        yield EVENTS.send(event(message, "scheduled", now, NAME, reason=outcome.reason, due_at=due))
        yield SCHEDULED.send(
            {"message": message, "at": now, "due_at": due, "reason": outcome.reason, "return_to": "scored"}
        )
        return
    if (route := message["route"]) and (used := state.services.rates.get((state.partition, _rate(route)))):
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
