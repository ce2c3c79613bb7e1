"""Orders: what an operator has said about all mail of a site, a tenant, a source, or of several of them together.

| order | is about | until |
|---|---|---|
| suspend | whatever would be tried | its time, or its tombstone (`postroad resume`) |
| flush | what had begun to wait by the time of the order | it was done |
| bounce | what had been accepted by the time of the order, wherever it is | such mail has expired |

The key of an order is its action and its scope. So a message asks for the few orders that could be about it, however many there
are, and a second order of the same kind takes the place of the first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from avro.records import Ending, EventKind, Message, Order, OrderAction
from postroad.events import Fields, ending

REASON = "operator"
BOUNCE = "operator-bounce"  # the reason of such an Ending: its schema knows no kind "bounced", classify makes it one
NAME_MAX = 200
_NAME = re.compile(rf"[!-~]{{1,{NAME_MAX}}}")  # no space: the parts of a key stay apart
_SCOPES = {
    "suspend": ((1, 1, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "flush": ((1, 1, 0), (1, 0, 0), (0, 1, 0)),
    "bounce": ((1, 1, 0), (1, 0, 0), (0, 1, 0)),
}  # fmt: skip


def order_id(action: OrderAction, site: str = "", tenant: str = "", source: str = "") -> str:
    """The key of an order."""
    return f"{action} site={site} tenant={tenant} source={source}"


def order(
    action: OrderAction, by: str, at: int, *, site: str = "", tenant: str = "", source: str = "",
    until: int | None = None, reason: str = "",
) -> Order:  # fmt: skip
    """A checked order. Raises ValueError for one without a scope, for names that are none, and for a time that is over."""
    scope = {"site": site, "tenant": tenant, "source": source}
    for what, name in scope.items():
        if name and not _NAME.fullmatch(name):
            raise ValueError(f"{name[:40]!r} is no {what}: at most {NAME_MAX} visible ASCII characters, without spaces")
    if not any(scope.values()):
        raise ValueError("an order needs a scope: a site, a tenant or a source")
    if action != "suspend" and source:
        raise ValueError(f"{action} is about a site or a tenant: what waits has no source yet")
    if until is not None and until <= at:
        raise ValueError("an order must end after it begins: give it a time above 0")
    return {
        "order_id": order_id(action, **scope), "action": action, "site": site, "tenant": tenant, "source": source, "by": by,
        "at": at, "until": until, "reason": reason,
    }  # fmt: skip


class Orders:
    """Questions about the orders in force. `mapping`: order_id -> Order, as the topic has it at the moment."""

    def __init__(self, mapping: Mapping[str, Order]):
        self._mapping = mapping

    def suspended(self, site: str, tenant: str, source: str, now: int) -> Order | None:
        """The suspension that keeps mail of `tenant` to `site` from leaving from `source` at `now` (ms), the narrowest first."""
        for found in self._about("suspend", site, tenant, source):
            if (until := found.get("until")) is None or until > now:
                return found
        return None

    def bounced(self, message: Message, site: str) -> Order | None:
        """The order that ends a message. `site`: empty where it is not known yet; then only those of its tenant count."""
        for found in self._about("bounce", site, message["tenant"]):
            if message["accepted_at"] <= found["at"]:
                return found
        return None

    def flushed(self, message: Message, site: str, waits_since: int, now: int) -> Order | None:
        """The order by which a message that waits since then (ms) goes on at once. One of a clock that is ahead waits for ours:
        else what it lets go, and comes back before that time, would go round and round."""
        for found in self._about("flush", site, message["tenant"]):
            if waits_since <= found["at"] <= now:
                return found
        return None

    def to_do(self, now: int) -> list[Order]:
        """The flushes and bounces of which the time has come."""
        return [found for found in self._mapping.values()
                if found["action"] in ("flush", "bounce") and found["at"] <= now and is_own(found)]  # fmt: skip

    def _about(self, action: OrderAction, site: str, tenant: str, source: str = "") -> list[Order]:
        if not self._mapping:
            return []
        found = []
        for with_site, with_tenant, with_source in _SCOPES[action]:
            scope = (site if with_site else "", tenant if with_tenant else "", source if with_source else "")
            known = self._mapping.get(order_id(action, *scope))
            if known and any(scope) and is_own(known) and scope_of(known) == scope:
                found.append(known)
        return found


def scope_of(order: Order) -> tuple[str, str, str]:
    """Site, tenant and source of an order, empty for all."""
    return order.get("site", ""), order.get("tenant", ""), order.get("source", "")


def is_own(order: Order) -> bool:
    """Whether an order has the key of its action and scope, as `order` makes it: another is about nothing."""
    scope = scope_of(order)
    return any(scope) and max(map(len, scope)) <= NAME_MAX and order["order_id"] == order_id(order["action"], *scope)


def is_about(order: Order, message: Message) -> bool:
    """Whether a message lies in the scope of a flush or a bounce."""
    site, tenant, _ = scope_of(order)
    return (not site or site == site_of(message)) and (not tenant or tenant == message["tenant"])


def site_of(message: Message) -> str:
    """The site that a message was routed to, empty where it is not known yet."""
    route = message.get("route")
    return route["site"] if route else ""


def bounce(message: Message, order: Order, at: int, stage: str) -> Ending:
    """The end of a message by an order: classify tells of it as bounced, reason "operator", the rule is who ordered it."""
    return ending(message, "dropped", at, stage, BOUNCE, order["by"], order.get("reason", ""))


def told(end: Ending) -> tuple[EventKind, Fields]:
    """The event of an end that some stage has found: its kind, and what it says."""
    bounced = end["reason"] == BOUNCE
    said: Fields = {"reason": REASON if bounced else end["reason"], "rule": end.get("rule", ""), "detail": end.get("detail", ""),
                    "possible_duplicate": end["message"].get("possible_duplicate", False)}  # fmt: skip
    return "bounced" if bounced else end["kind"], said
