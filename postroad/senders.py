"""What a tenant may send from: its domains, their return paths and DKIM keys."""

from __future__ import annotations

from avro.records import SenderDomain, Tenant
from postroad.addresses import lies_in
from postroad.dkim import SigningKey


def domain_of_tenant(tenant: Tenant, domain: str) -> SenderDomain | None:
    """The tenant's domain that `domain` (A-labels, lower case) is, or lies below; the longest where several fit."""
    fitting = [own for own in tenant.get("domains", []) if lies_in(domain, own["domain"])]
    return max(fitting, key=lambda own: len(own["domain"]), default=None)


def return_path_domain(own: SenderDomain | None, domain: str) -> str:
    """Where bounces of mail from `domain` (of the From header) go: RFC 5321's MAIL FROM, which SPF looks at."""
    return domain if own is None else own.get("return_path") or own["domain"]


def signing_keys(own: SenderDomain) -> list[SigningKey]:
    """The DKIM keys that mail from a domain is signed with: the active ones. Raises DkimError for one that cannot be used."""
    return [
        SigningKey.from_pem(key["selector"], key["algorithm"], key["private_key"])
        for key in own.get("dkim", [])
        if key.get("active", True)
    ]
