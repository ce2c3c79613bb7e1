"""Every management action as an event: who, what, from where. No secret and no address of a recipient stands in it."""

from __future__ import annotations

import secrets

from gateway.api.routes import Call
from postroad.events import noted
from topics.catalogue import EVENTS

STAGE = "gateway"


async def tell(call: Call, action: str, what: str, detail: str = "") -> None:
    """Write the event that the caller did `action` (such as key-created) with `what` (an id, a domain)."""
    now = call.door.now()
    said = f"{what}; from {call.peer}" + (f"; {detail}" if detail else "")
    event = noted(
        call.tenant, now, STAGE, f"api:{action}:{now}:{secrets.token_hex(8)}", reason=action, rule=f"key:{call.key['key_id']}",
        detail=said,
    )  # fmt: skip
    await call.door.producer.send(EVENTS, event)
