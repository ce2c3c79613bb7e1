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
from postroad.senders import domain_of_tenant, signing_keys
from postroad.smtp import Envelope, Reply, Result
from tables import deliveries, rate_limits
from tables.deliveries import DELIVERIES
from tables.rate_limits import RATE_LIMITS
from topics.catalogue import ATTEMPTS, EVENTS, OUTBOUND, SCHEDULED, Output
from topics.stage import EffectStage
from topics.state import View

NAME = "send"
PATIENCE_MS = 1000  # a place in the site's rate that is nearer is waited for, a later one parks the message
PUT_OFF_MS = 30_000  # the content store is away
BUSY_MS = 3_000  # all connections of the site are in use for longer than its pool waits


class Sent(NamedTuple):
    """An attempt was made."""

    result: Result
    possible_duplicate: bool


class Parked(NamedTuple):
    """Nothing was tried: not before `until` (ms)."""

    until: int
    reason: str


stage = EffectStage(NAME, reads=[OUTBOUND], writes=[ATTEMPTS, EVENTS, SCHEDULED], tables=[RATE_LIMITS, DELIVERIES],
                    identity=lambda message: _delivery(message))  # fmt: skip
__getattr__ = application(stage)


def _delivery(message: Message) -> str:
    return f"{message['message_id']}:{message['round']}"


@stage.perform
async def deliver(message: Message, state: View, possible_duplicate: bool) -> Sent | Parked | None:
    """One attempt; None for a message that was tried in this round before."""
    services, route = state.services, message["route"]
    if state.deliveries.get(_delivery(message)) is not None:
        return None
    if route is None or route["source"] not in (sources := {s.name: s for s in services.pools[route["pool"]].sources}):
        return Sent(_local(Reply(451, "4.3.5", "the egress source it was routed to is not there any more")), False)
    if isinstance(place := _take_place(message, route, state), Parked):
        return place
    await asyncio.sleep(max(0, place - state.now) / 1000)
    try:
        signed = await _signed(message, services, state.now)
    except ContentUnavailable:
        return Parked(state.now + PUT_OFF_MS, "content")
    except (ContentMissing, DkimError) as exc:
        return Sent(_local(Reply(554, "5.6.0", str(exc))), False)
    envelope = Envelope(message["return_path"], message["recipient"], needs_smtputf8(signed))
    site = f"{route['site']}#{route['shard']}"
    result = await services.client(route["site"]).deliver(envelope, signed, route["hosts"], sources[route["source"]], site)
    if result.outcome == "connection-limit":
        return Parked(state.now + BUSY_MS + int(message["message_id"][-4:], 32) % BUSY_MS, "connection-limit")
    return Sent(result, possible_duplicate or message["possible_duplicate"])


def _local(reply: Reply) -> Result:
    return Result("dns", "local", reply)


def _rate(route: Route) -> str:
    """Key of a site's rate."""
    return f"{route['site']}#{route['shard']}\0{route['source']}"


def _take_place(message: Message, route: Route, state: View) -> int | Parked:
    """The time (ms) of a place in the site's rate, now or soon; else when to come back: each later than the one before."""
    services, place = state.services, (state.partition, _rate(route))
    limits = services.settings.site(route["site"])
    limit = Limit(limits.rate_per_second / limits.shards, max(1, round(limits.rate_per_second / limits.shards)))
    kept = state.rate_limits.get(place[1]) or 0.0  # what an earlier owner of the partition has used
    due, tat = reserve(max(services.rates.get(place, 0.0), kept), state.now, limit)
    if due - state.now <= PATIENCE_MS:
        services.rates[place] = tat
        return due
    until, services.parked[place] = reserve(max(services.parked.get(place, 0.0), tat), state.now, limit)
    return Parked(until, "rate-limit")


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
    state.deliveries.put(_delivery(message), outcome.reason if isinstance(outcome, Parked) else outcome.result.phase, until)
    if isinstance(outcome, Parked):
        due = min(outcome.until, message["expires_at"])
        yield EVENTS.send(event(message, "scheduled", now, NAME, reason=outcome.reason, due_at=due))
        yield SCHEDULED.send({"message": message, "at": now, "due_at": due, "reason": outcome.reason, "return_to": "scored"})
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
