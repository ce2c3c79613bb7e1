"""What a tenant may send from: its domains, their return paths and DKIM keys."""

from __future__ import annotations

from avro.records import SenderDomain, Tenant
from postroad.addresses import lies_in
from postroad.dkim import SigningKey


def domain_of_tenant(tenant: Tenant, domain: str) -> SenderDomain | None:
    """The tenant's domain that `domain` (A-labels, lower case) is, or lies below; the longest where several fit."""
    fitting = [own for own in tenant.get("domains", []) if lies_in(domain, own["domain"])]
    return max(fitting, key=lambda own: len(own["domain"]), default=None)


def return_path(own: SenderDomain | None, domain: str, message_id: str) -> str:
    """The envelope sender of a message: tells the message when a bounce comes back. `domain`: of the From header."""
    if own is not None:
        domain = own.get("return_path") or own["domain"]
    return f"b-{message_id}@{domain}"


def message_of(return_path: str) -> str:
    """The message id inside a return path, empty where there is none."""
    local, _, _ = return_path.partition("@")
    return local.removeprefix("b-") if local.startswith("b-") else ""


def signing_keys(own: SenderDomain) -> list[SigningKey]:
    """The DKIM keys of a domain, ready to sign. Raises DkimError for one that cannot be used."""
    return [SigningKey.from_pem(key["selector"], key["algorithm"], key["private_key"]) for key in own.get("dkim", [])]
