"""postroad suspend, resume, flush, bounce, orders: what an operator says about all mail of a site, a tenant or a source."""

from __future__ import annotations

import asyncio
import getpass
import json
import re
import time
from typing import Annotated, Any

import typer

from avro.records import Order, OrderAction
from postroad import orders
from postroad.commands.printing import time_of

DAY_MS = 86_400_000
FOR_MAX_MS = 366 * DAY_MS
_UNITS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": DAY_MS}

Site = Annotated[str, typer.Option(help="Mail to this site, as `postroad queue` names it.")]
Tenant = Annotated[str, typer.Option(help="Mail of this tenant.")]
Source = Annotated[str, typer.Option(help="Mail from this egress source.")]
Reason = Annotated[str, typer.Option(help="Why, for the events and for the next who looks.")]
By = Annotated[str, typer.Option(help="Who; default: the user of this process.")]


def suspend(
    site: Site = "",
    tenant: Tenant = "",
    source: Source = "",
    for_: Annotated[str, typer.Option("--for", help="For so long: 30m, 2h, 1d; default: until `resume`.")] = "",
    reason: Reason = "",
    by: By = "",
) -> None:
    """Try nothing of a site, a tenant, a source, or of several of them together, until a time or `resume`."""
    now = _now()
    made = _order("suspend", by, now, site=site, tenant=tenant, source=source, reason=reason,
                  until=now + _ms(for_) if for_ else None)  # fmt: skip
    _give(made)
    print(f"suspended: {scope(made)} until {time_of(made['until']) if made['until'] else '`postroad resume`'}")


def resume(site: Site = "", tenant: Tenant = "", source: Source = "") -> None:
    """Take a suspension of exactly these scopes back."""
    from postroad.cli import CommandError

    made = _order("suspend", "", 1, site=site, tenant=tenant, source=source)
    known = asyncio.run(_read()).get(made["order_id"])
    if known is None:
        raise CommandError(f"no suspension of {scope(made)}: nothing was done; `postroad orders` lists those that are")
    _give(made, taken_back=True)
    print(f"resumed: {scope(made)}; what was parked comes by itself, `postroad flush` tries it now")


def flush(site: Site = "", tenant: Tenant = "", reason: Reason = "", by: By = "") -> None:
    """Try now what waits for a site or of a tenant; not what is held or has a send-at of its own."""
    made = _order("flush", by, _now(), site=site, tenant=tenant, reason=reason)
    _give(made)
    print(f"flushed: {scope(made)}, whatever began to wait before {time_of(made['at'])}")


def bounce(site: Site = "", tenant: Tenant = "", reason: Reason = "", by: By = "") -> None:
    """End as bounced what waits for a site or of a tenant, or is on its way from before now."""
    made = _order("bounce", by, _now(), site=site, tenant=tenant, reason=reason)
    _give(made)
    print(f"bounced: {scope(made)}, whatever was accepted before {time_of(made['at'])}")


def list_orders(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show the suspensions in force, and the last flush and bounce of each scope."""
    from postroad.cli import _show

    now = _now()
    found = sorted((each for each in asyncio.run(_read()).values() if (each["until"] or now + 1) > now),
                   key=lambda each: (each["action"], each["at"]))  # fmt: skip
    if as_json:
        for each in found:
            print(json.dumps(each))
        return
    _show(["order", "about", "at", "until", "by", "reason"],
          [(each["action"], scope(each), time_of(each["at"]), time_of(each["until"]) if each["until"] else "-", each["by"],
            each["reason"]) for each in found])  # fmt: skip


def scope(order: Order) -> str:
    """The scope of an order in words."""
    names = zip(("site", "tenant", "source"), orders.scope_of(order), strict=True)
    return ", ".join(f"{what} {name}" for what, name in names if name)


def _order(action: OrderAction, by: str, at: int, **scopes: Any) -> Order:
    from postroad.cli import CommandError

    try:
        return orders.order(action, by or getpass.getuser(), at, **scopes)
    except ValueError as error:
        raise CommandError(str(error)) from None


def _give(order: Order, taken_back: bool = False) -> None:
    from postroad.cli import CommandError, _write
    from topics.catalogue import ORDERS

    for said in (order["by"], order["reason"]):
        if len(said) > 500 or not said.isprintable():
            raise CommandError("who and why are one line of at most 500 characters each")
    output = ORDERS.send(order)
    _write([output._replace(value=None) if taken_back else output])


async def _read() -> dict[str, Order]:
    from postroad.cli import _client
    from topics.catalogue import ORDERS

    found: dict[bytes | None, Order | None] = {}
    async with _client() as client:
        async for record, value in client.read(ORDERS, broken=lambda record, error: None):
            found[record.key] = value
    return {order["order_id"]: order for order in found.values() if order is not None}


def _ms(text: str) -> int:
    """Milliseconds of 90s, 30m, 2h, 1d."""
    from postroad.cli import CommandError

    found = re.fullmatch(r"([1-9][0-9]{0,6})([smhd])", text)
    if found is None or (ms := int(found[1]) * _UNITS[found[2]]) > FOR_MAX_MS:
        raise CommandError(f"{text[:40]!r} is not how long: write 90s, 30m, 2h or 7d, at most 366d")
    return ms


def _now() -> int:
    return time.time_ns() // 1_000_000
