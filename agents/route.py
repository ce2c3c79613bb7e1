"""Route: which site takes the recipient's mail, and from which egress source it is to come.

mail.cleared (key: recipient domain), control.orders, control.standings -> mail.outbound, mail.outbound-broadcast (key: site#shard), mail.events,
mail.scheduled, mail.endings
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agents.application import application
from agents.outputs import TENANT, park
from avro.records import Message
from postroad.departure import candidates
from postroad.egress import Pool
from postroad.events import ending, event
from postroad.orders import Orders, bounce
from postroad.reputation import Standings, again_at, held, pool_of
from postroad.retry import put_off
from postroad.site import LoopsBack, drop_ourselves, order, preferred, shard_of, site_of
from tables import mx_cache
from tables.mx_cache import MX_CACHE
from topics.catalogue import (
    CLEARED,
    ENDINGS,
    EVENTS,
    ORDERS,
    OUTBOUND,
    OUTBOUND_BROADCAST,
    SCHEDULED,
    STANDINGS,
    Output,
)
from topics.stage import Stage
from topics.state import View

NAME = "route"

stage = Stage(NAME, reads=[CLEARED], writes=[OUTBOUND, EVENTS, ENDINGS, SCHEDULED, OUTBOUND_BROADCAST], tables=[MX_CACHE],
              follows=[ORDERS, STANDINGS])  # fmt: skip
__getattr__ = application(stage)


@stage.prepare(CLEARED)
async def look_up(todo: list[tuple[Any, Message]], state: View) -> None:
    """MX of each distinct domain."""
    await mx_cache.ask({message["recipient_domain"] for _, message in todo}, state)


@stage.on(CLEARED)
def direct(message: Message, state: View) -> Iterator[Output]:
    """Routed; put off where DNS has not answered; rejected where there is nowhere to send to or from; ended by an order."""
    now, services, standings = state.now, state.services, Standings(state.services.standings)
    answer = mx_cache.answer(message["recipient_domain"], state)
    if answer is None or answer.kind == "temporary":
        due = put_off(now, message["round"], message["expires_at"])
        yield from park(message, NAME, now, due, "dns")
        return
    if answer.kind != "hosts":  # it had some when validate asked
        reason = "null-mx" if answer.kind == "null-mx" else "no-such-domain"
        yield ENDINGS.send(ending(message, "rejected", now, NAME, reason, "mx"))
        return
    tenant = services.tenants.get(message["tenant"], {})
    pool = services.pools.get(message["egress_pool"] or tenant.get("egress_pool", "default"))
    if pool is None:
        detail = f"no egress pool {message['egress_pool'] or tenant.get('egress_pool')!r}: add it to the settings"
        yield ENDINGS.send(ending(message, "rejected", now, NAME, "egress-pool", detail=detail))
        return
    try:
        hosts = drop_ourselves(answer.hosts, own_names(services.pools))
    except LoopsBack as error:
        yield ENDINGS.send(ending(message, "rejected", now, NAME, "mx-loop", "mx", str(error)))
        return
    policy = services.shaping.policy
    site = policy.site_of(site_of(preferred(hosts), policy.named))
    pool = pool_of(message, pool, services.pools, services.settings.reputation_pool, site, standings, now)
    message["route"] = {
        "site": site,
        "shard": shard_of(message["message_id"], policy.limits(site).shards),
        "hosts": order(hosts, message["message_id"]),
        "pool": pool.name,
        "source": standings.ordered(candidates(pool, message["message_id"]), site, now)[0].name,
    }
    if (said := Orders(services.orders).bounced(message, site)) is not None:
        yield ENDINGS.send(bounce(message, said, now, NAME))
        return
    if held(message, standings, now):
        yield from park(message, NAME, now, again_at(message, now), "reputation")
        return
    yield EVENTS.send(event(message, "routed", now, NAME))
    lane = OUTBOUND_BROADCAST if message["stream"] == "broadcast" else OUTBOUND
    yield lane.send(message, headers=((TENANT, message["tenant"].encode()),))


def own_names(pools: Mapping[str, Pool]) -> frozenset[str]:
    """What our hosts call themselves: an MX host of that name is one of them."""
    return frozenset(source.ehlo for pool in pools.values() for source in pool.sources if source.ehlo)
