"""The inbound MX: takes what comes back to return paths and feedback addresses, and nothing else, into mail.reports.

A mail is answered with 250 when Kafka has its report on all in-sync replicas, its content in the content store where it is large. While
Kafka or the store is away the answer is 451, and the peer keeps the mail. What is sent twice, after an answer that was lost, has
the same report_id, and counts once.

| recipient | answer |
|---|---|
| a feedback address (setting feedback_addresses) | 250 |
| a return path at a domain where tenants have theirs, signed by us | 250 |
| the same, forged | 550 5.1.1 |
| anything else at such a domain | 550 5.1.1 |
| any other domain | 550 5.7.1 |
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from typing import Any, Protocol

from avro.records import Report, Tenant
from gateway.host import STORE_S, Bounds, Host, text
from gateway.session import Session
from postroad.addresses import BadAddress, ascii_domain, key
from postroad.content import ContentStore, ContentUnavailable
from postroad.returnpath import Forged, ReturnPathError
from postroad.settings import Settings

log = logging.getLogger(__name__)

DOMAINS_S = 5.0  # so long the bounce domains of the tenants are not looked up anew
KEPT_MAX = 1 << 20  # bytes kept of a mail: more than what postroad.feedback looks at of a report, and blobs stay small


class Unavailable(Exception):
    """Kafka does not take a record now; try again later."""


class Writer(Protocol):
    """What takes reports (gateway/writer.py)."""

    async def put(self, report: Report) -> None:
        """Return when it is safe. Raises Unavailable."""


class Inbound(Host):
    """The rules, and what connections share. `tenants`: as control.tenants has them. Counts besides: taken, refused_recipients, forged."""

    def __init__(
        self, settings: Settings, tenants: Mapping[str, Tenant], contents: ContentStore, writer: Writer,
        *, tls: ssl.SSLContext | None = None, clock: Callable[[], float] = time.monotonic,
    ):  # fmt: skip
        super().__init__(Bounds(
            settings.inbound_connections, settings.inbound_peer_connections, settings.inbound_peer_per_minute,
            settings.inbound_size_max, settings.inbound_timeout_s,
        ), clock)  # fmt: skip
        self._settings, self._tenants, self._contents, self._writer = settings, tenants, contents, writer
        self._tls = tls
        self._return_paths = settings.return_paths()
        self._feedback = frozenset(settings.feedback_addresses)
        self._domains: frozenset[str] = frozenset()
        self._domains_until = 0.0

    def session(self, encrypted: bool) -> Session:
        """Nobody signs in here."""
        name = self._settings.inbound_host or self._settings.return_path_host or self._settings.ehlo
        return Session(self, hostname=name, tls_context=self._tls, auth_exclude_mechanism=["LOGIN", "PLAIN"])

    async def handle_EHLO(self, server: Any, session: Any, envelope: Any, name: str, said: list[str]) -> list[str]:
        """Nobody signs in here."""
        session.host_name = name
        return [line for line in said if not line.startswith("250-AUTH")]

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        """See the table of the module."""
        if len(envelope.rcpt_tos) >= self._settings.inbound_recipients:
            return f"452 4.5.3 this host takes {self._settings.inbound_recipients} recipients a mail"
        if refusal := self._refusal(address):
            self.counts["refused_recipients"] += 1
            return refusal
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def take(self, server: Session, raw: bytes) -> str:
        """Store a mail; the answer to the dot."""
        session, envelope = server.session, server.envelope
        assert session is not None and envelope is not None
        try:
            async with asyncio.timeout(STORE_S):
                content = await self._contents.put(raw[:KEPT_MAX])  # its report_id is of the whole
                forms: dict[str, str] = {}  # an address once, however it is spelt; as it was said first
                for said in map(text, envelope.rcpt_tos):
                    forms.setdefault(key(said), said)
                reports = [
                    Report(
                        report_id=evidence(rcpt_to, raw), received_at=time.time_ns() // 1_000_000,
                        mail_from=text(envelope.mail_from if envelope.mail_from != "<>" else ""), rcpt_to=rcpt_to, content=content,
                        peer=server.peer, helo=text(session.host_name), tls=_cipher(server), message_id="",
                    )
                    for rcpt_to in forms.values()
                ]  # fmt: skip
                await asyncio.gather(*map(self._writer.put, reports))
        except (ContentUnavailable, Unavailable, TimeoutError) as error:
            self.counts["put_off"] += 1
            log.warning("put off a report: %s", error or "no answer in time")
            return "451 4.3.0 the mail cannot be stored now, try again later"
        self.counts["taken"] += len(reports)
        return f"250 2.0.0 {reports[0]['report_id']}"

    def _refusal(self, address: str) -> str:
        """Why an address is none of ours; empty where it is."""
        if key(address) in self._feedback:
            return ""
        local, _, domain = address.rpartition("@")
        if not local or not self._is_ours(domain):
            return "550 5.7.1 this host takes bounces and complaints of its own mail alone; it relays nothing"
        try:
            self._return_paths.message_of(address)
        except Forged:
            self.counts["forged"] += 1
            return "550 5.1.1 no mail was sent with this return path"
        except ReturnPathError:
            return "550 5.1.1 no such address: this domain has return paths only"
        return ""

    def _is_ours(self, domain: str) -> bool:
        try:
            domain = ascii_domain(domain)
        except BadAddress:
            return False
        if domain not in self._domains and self._clock() >= self._domains_until:
            self._domains = bounce_domains(self._settings, self._tenants.values())
            self._domains_until = self._clock() + DOMAINS_S
        return domain in self._domains


def bounce_domains(settings: Settings, tenants: Iterable[Tenant]) -> frozenset[str]:
    """Where return paths lead: the tenants' domains, and those of the settings."""
    found = {*settings.inbound_domains, *filter(None, [settings.return_path_host])}
    found.update(own.get("return_path") or own["domain"] for tenant in tenants for own in tenant.get("domains", []))
    return frozenset(_a_labels(domain) for domain in found)


def evidence(rcpt_to: str, raw: bytes) -> str:
    """The report_id of a mail to a recipient: the same mail again is the same evidence."""
    return blake2b(
        raw, digest_size=16, person=b"report", key=blake2b(rcpt_to.lower().encode()).digest()[:32]
    ).hexdigest()


def _a_labels(domain: str) -> str:
    try:
        return ascii_domain(domain)
    except BadAddress:
        return domain.lower()


def _cipher(session: Session) -> str:
    found = session.transport.get_extra_info("cipher") if session.transport is not None else None
    return f"{found[1]} {found[0]}" if found else ""
