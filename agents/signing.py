"""A message as it goes out: the lines of its recipient, the content, and above them the signatures."""

from __future__ import annotations

from agents.services import Services
from avro.records import Message
from postroad.addresses import domain_of
from postroad.dkim import DkimError, sign
from postroad.senders import domain_of_tenant, signing_keys


async def signed_by_tenant(message: Message, services: Services, now: int) -> bytes:
    """The whole message with a signature by every key of the sender's domain."""
    content = await services.contents.get(message["content"])
    whole = message["top"] + content
    tenant = services.tenants.get(message["tenant"])
    own = domain_of_tenant(tenant, domain_of(message["sender"])) if tenant else None
    if own is None:
        raise DkimError("the sender's domain is not the tenant's any more")
    bh = services.body_hashes.get(message["content"]["hash"], content)
    return sign(whole, own["domain"], signing_keys(own), now_ms=now, bh=bh) + whole
