"""/v1/domains: what the tenant sends from. A domain is claimed, its records are published, and once DNS has them it is the tenant's.

Until then nothing is sent from it: whoever has put our key into a zone has the zone. Of two who change one tenant at the same moment the
later wins, as with `postroad domains`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime
from typing import Literal

import msgspec

from avro.records import DomainClaim, SenderDomain, Tenant
from gateway.api import audit
from gateway.api.problems import Problem, not_found, of_field
from gateway.api.routes import Answer, Call, Routes
from gateway.api.send import tenant_of
from gateway.api.status import moment
from postroad import addresses, domains
from postroad.domains import Platform
from topics.catalogue import DOMAIN_CLAIMS, TENANTS

CLAIMS_MAX = 100  # of a tenant

routes = Routes()


class NewDomain(msgspec.Struct, forbid_unknown_fields=True):
    """A domain to send from. `return_path`: a name below it for bounces, such as bounce.example.com."""

    domain: str
    return_path: str = ""


class Record(msgspec.Struct):
    """A record to publish."""

    name: str
    type: str
    value: str
    why: str


class Domain(msgspec.Struct):
    """A domain. claimed: DNS has not confirmed it; verified: mail may be sent from it."""

    domain: str
    return_path: str
    state: Literal["claimed", "verified"]
    claimed_at: datetime | None
    records: list[Record]


class Domains(msgspec.Struct):
    """All domains of the tenant."""

    domains: list[Domain]


class Finding(msgspec.Struct):
    """What is to say about one record: ok, weak, wrong, or unknown where DNS does not answer."""

    level: str
    record: str
    text: str


class Verified(msgspec.Struct):
    """`passes`: mail from the domain would pass everywhere."""

    domain: Domain
    passes: bool
    findings: list[Finding]


@routes.add("POST", "/v1/domains", "manage", body=NewDomain, status=201, answer=Domain, problems=(409,))
async def create_domain(call: Call) -> Answer:
    """Claim a domain: makes its DKIM keys. The records that come back are to be published, then verified."""
    name = _name(call.body.domain, "/domain")
    path = _name(call.body.return_path, "/return_path") if call.body.return_path else ""
    if path and not addresses.lies_in(path, name):
        raise of_field("/return_path", f"must lie below {name}")
    if _own(call, name) is not None:
        raise Problem(409, "exists", f"{name} is your domain already")
    claims = list(_claims(call))
    if any(claim["own"]["domain"] == name for claim in claims):
        raise Problem(409, "exists", f"{name} is claimed already; publish its records, then verify it")
    if len(claims) >= CLAIMS_MAX:
        raise Problem(409, "too-many", f"{CLAIMS_MAX} domains are claimed and not verified: verify or delete some")
    now = call.door.now()
    selector = f"pr{moment(now):%Y%m}"
    keys = await asyncio.to_thread(domains.new_keys, selector, (), active=True)  # RSA takes a while
    claim: DomainClaim = {
        "tenant": call.tenant,
        "own": {"domain": name, "return_path": path, "dkim": keys},
        "claimed_at": now,
    }
    await call.door.producer.send(DOMAIN_CLAIMS, claim)
    await audit.tell(call, "domain-claimed", name)
    return Answer(_shown(call, claim["own"], now), 201)


@routes.add("GET", "/v1/domains", "read", answer=Domains)
async def list_domains(call: Call) -> Answer:
    """The tenant's domains, with their records."""
    verified = [_shown(call, own, None) for own in tenant_of(call).get("domains", [])]
    claimed = [_shown(call, claim["own"], claim["claimed_at"]) for claim in _claims(call)]
    return Answer(Domains(verified + claimed))


@routes.add("GET", "/v1/domains/{domain}", "read", answer=Domain, problems=(404,))
async def get_domain(call: Call) -> Answer:
    """A domain and its records."""
    own, claimed_at = _found(call)
    return Answer(_shown(call, own, claimed_at))


@routes.add("POST", "/v1/domains/{domain}/verify", "manage", answer=Verified, problems=(404, 409))
async def verify_domain(call: Call) -> Answer:
    """Ask DNS for the domain's records. A claimed domain whose DKIM keys stand there is the tenant's from then on."""
    own, claimed_at = _found(call)
    findings = await asyncio.to_thread(domains.verify, own, _platform(call), call.door.dns())
    signed = [finding for finding in findings if finding.record.startswith("DKIM ")]
    if claimed_at is not None and signed and all(finding.level in ("ok", "weak") for finding in signed):
        await _take(call, own)
        claimed_at = None
    told = [Finding(finding.level, finding.record, finding.text) for finding in findings]
    return Answer(Verified(_shown(call, own, claimed_at), domains.passes(findings), told))


@routes.add("DELETE", "/v1/domains/{domain}", "manage", status=204, problems=(404,))
async def delete_domain(call: Call) -> Answer:
    """Give a domain up: nothing more is sent from it."""
    own, claimed_at = _found(call)
    if claimed_at is None:
        tenant = tenant_of(call)
        kept = [each for each in tenant.get("domains", []) if each["domain"] != own["domain"]]
        await call.door.producer.send(TENANTS, {**tenant, "domains": kept})
    else:
        await _forget(call, own["domain"])
    await audit.tell(call, "domain-deleted", own["domain"])
    return Answer(None, 204)


async def _take(call: Call, own: SenderDomain) -> None:
    name, tenant = own["domain"], tenant_of(call)
    for other in call.door.tenants.values():
        if other["tenant"] != call.tenant and any(each["domain"] == name for each in other.get("domains", [])):
            raise Problem(409, "taken", "the domain is in use elsewhere on this platform: ask its operator")
    changed: Tenant = {**tenant, "domains": [*tenant.get("domains", []), own]}
    await call.door.producer.send(TENANTS, changed)
    await _forget(call, name)
    await audit.tell(call, "domain-verified", name)


async def _forget(call: Call, name: str) -> None:
    await call.door.producer.delete(DOMAIN_CLAIMS, f"{call.tenant}\0{name}".encode())


def _found(call: Call) -> tuple[SenderDomain, int | None]:
    """The domain of the path, and since when it is claimed; None: it is verified."""
    try:
        name = addresses.ascii_domain(call.params["domain"])
    except addresses.BadAddress:
        raise not_found("domain") from None
    if (own := _own(call, name)) is not None:
        return own, None
    for claim in _claims(call):
        if claim["own"]["domain"] == name:
            return claim["own"], claim["claimed_at"]
    raise not_found("domain")


def _own(call: Call, name: str) -> SenderDomain | None:
    return next((own for own in tenant_of(call).get("domains", []) if own["domain"] == name), None)


def _claims(call: Call) -> Iterator[DomainClaim]:
    return (claim for claim in call.door.claims.values() if claim["tenant"] == call.tenant)


def _shown(call: Call, own: SenderDomain, claimed_at: int | None) -> Domain:
    records = [Record(one.name, one.kind, one.value, one.why) for one in domains.records(own, _platform(call))]
    return Domain(
        own["domain"], own.get("return_path", ""), "verified" if claimed_at is None else "claimed",
        None if claimed_at is None else moment(claimed_at), records,
    )  # fmt: skip


def _platform(call: Call) -> Platform:
    known = call.door.settings
    sources = [source.address for pool in known.pools().values() for source in pool.sources if source.address]
    return Platform(known.spf_include, known.return_path_host, tuple(dict.fromkeys(sources)))


def _name(given: str, pointer: str) -> str:
    try:
        return addresses.ascii_domain(given)
    except addresses.BadAddress as error:
        raise of_field(pointer, f"{given[:80]!r} is no domain: {error.text}") from None
