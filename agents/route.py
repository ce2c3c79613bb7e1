"""Route: which site takes the recipient's mail, and from which egress source it is to come.

mail.cleared (key: recipient domain) -> mail.outbound (key: site#shard), mail.events, mail.scheduled
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from agents.application import application
from avro.records import Message
from postroad.dns import MxAnswer
from postroad.egress import choose
from postroad.events import event
from postroad.site import preferred, shard_of, site_of
from topics.catalogue import CLEARED, EVENTS, OUTBOUND, SCHEDULED, Output
from topics.stage import Stage
from topics.state import View

NAME = "route"
PUT_OFF_MS = 30_000

stage = Stage(NAME, reads=[CLEARED], writes=[OUTBOUND, EVENTS, SCHEDULED])
__getattr__ = application(stage)


@stage.prepare(CLEARED)
async def look_up(todo: list[tuple[Any, Message]], state: View) -> None:
    """MX of each distinct domain: `found[domain]`."""

    async def domain(name: str) -> None:
        state.found[name] = await state.services.resolver.mx(name)

    await asyncio.gather(*map(domain, {message["recipient_domain"] for _, message in todo}))


@stage.on(CLEARED)
def direct(message: Message, state: View) -> Iterator[Output]:
    """Routed; put off where DNS has not answered; rejected where there is nowhere to send to or from."""
    now, services = state.now, state.services
    answer: MxAnswer | None = state.found.get(message["recipient_domain"])
    if answer is None or answer.kind == "temporary":
        due = now + PUT_OFF_MS
        yield EVENTS.send(event(message, "scheduled", now, NAME, reason="dns", due_at=due))
        yield SCHEDULED.send({"message": message, "at": now, "due_at": due, "reason": "dns", "return_to": "scored"})
        return
    if answer.kind != "hosts":  # it had some when validate asked
        reason = "null-mx" if answer.kind == "null-mx" else "no-such-domain"
        yield EVENTS.send(event(message, "rejected", now, NAME, reason=reason, rule="mx"))
        return
    tenant = services.tenants.get(message["tenant"], {})
    pool = services.pools.get(message["egress_pool"] or tenant.get("egress_pool", "default"))
    if pool is None:
        detail = f"no egress pool {message['egress_pool'] or tenant.get('egress_pool')!r}: add it to the settings"
        yield EVENTS.send(event(message, "rejected", now, NAME, reason="egress-pool", detail=detail))
        return
    site = site_of(preferred(answer.hosts))
    message["route"] = {
        "site": site,
        "shard": shard_of(message["message_id"], services.settings.site(site).shards),
        "hosts": [name for _, name in answer.hosts],
        "pool": pool.name,
        "source": choose(pool, message["message_id"]).name,
    }
    yield EVENTS.send(event(message, "routed", now, NAME))
    yield OUTBOUND.send(message)
