"""The submission door: programs that speak SMTP sign in with a key and hand over whole messages, which become submissions.

The answer 250 means that all in-sync replicas of Kafka have the submission; its text names the message id of each recipient. What cannot be
stored now is 451, and the client keeps it; what will never be accepted is 550 at once, with what is wrong.

| who, what | answer |
|---|---|
| a key or token that is not in force | 535 5.7.8, later each time |
| a key without the scope `send`, or for other streams | 550 5.7.1 |
| MAIL FROM or From of a domain that is not the tenant's | 550 5.7.1 |
| more mail than tenant, key or sender may send now | 451 4.7.1 |
| more than 1,000 recipients | 452 4.5.3 |
| a bare CR or LF, a field of ours that is wrong, any rule of postroad/checks.py | 550 5.6.0 |
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

from avro.records import ApiKey, Submission, Tenant
from gateway.accept import Acceptor
from gateway.host import STORE_S, Bounds, Host, text
from gateway.identity import Identity, Refused
from gateway.inbound import Unavailable
from gateway.limits import Limits
from gateway.session import Session
from gateway.smtp_orders import BadOrder, Orders, has_bare_line_end, take
from gateway.submission_session import SubmissionSession
from gateway.writer import TooLarge
from postroad import keys
from postroad.addresses import BadAddress, normalise
from postroad.checks import RECIPIENTS_MAX, author, check_content, check_lifetime, check_submission
from postroad.content import ContentUnavailable
from postroad.senders import domain_of_tenant
from postroad.settings import Settings

log = logging.getLogger(__name__)

IDS_SHOWN = 400  # characters of the answer to the dot: a line has 512 (RFC 5321 4.5.3.1.5)
NOT_YOURS = "is not a domain of yours: `postroad domains` and POST /v1/domains add one"


class Refusal(Exception):
    """The answer to a command or mail that is not accepted."""


class Submissions(Host):
    """The rules, and what connections share. `limits` know `t:TENANT`, `k:KEY` and `s:TENANT SENDER`. Counts besides: accepted,
    refused, sign_ins, failed_sign_ins."""

    def __init__(
        self, settings: Settings, tenants: Mapping[str, Tenant], identity: Identity, limits: Limits, acceptor: Acceptor,
        *, tls: ssl.SSLContext | None = None, now: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ):  # fmt: skip
        super().__init__(Bounds(
            settings.submission_connections, settings.submission_peer_connections, None, settings.size_max, settings.submission_timeout_s,
        ))  # fmt: skip
        self._settings, self._tenants, self.identity, self._limits = settings, tenants, identity, limits
        self._acceptor, self._tls, self._now = acceptor, tls, now

    def session(self, encrypted: bool) -> Session:
        """Nothing but STARTTLS before TLS."""
        options: dict[str, Any] = {"tls_context": self._tls, "require_starttls": True}
        if encrypted:
            options = {"auth_require_tls": False}
        return SubmissionSession(self, hostname=self._settings.submission_host or self._settings.ehlo, **options)

    async def sign_in(self, password: str, peer: str) -> ApiKey | None:
        """Who a password, which is a key or a token, stands for. A wrong one is answered later each time."""
        try:
            key = await self.identity.key_of(password, peer)
        except Refused:
            self.counts["failed_sign_ins"] += 1
            return None
        self.counts["sign_ins"] += 1
        return key

    async def handle_EHLO(self, server: Any, session: Any, envelope: Any, name: str, said: list[str]) -> list[str]:
        """aiosmtpd does both, and says so of neither."""
        session.host_name = name
        return [*said[:-1], "250-PIPELINING", "250-ENHANCEDSTATUSCODES", said[-1]]

    async def handle_MAIL(
        self, server: SubmissionSession, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        """See the table of the module."""
        try:
            key, tenant = self._who(server)
            if address != "<>":
                self._own_domain(tenant, address, "MAIL FROM")
            sender = text(address).lower()
            verdict = self._limits.take(f"t:{key['tenant']}", f"k:{key['key_id']}", f"s:{key['tenant']} {sender}")
            if not verdict.passes:
                self.counts["put_off"] += 1
                return f"451 4.7.1 too much mail at a time, try again in {verdict.wait_s:.1f} s"
        except Refusal as refusal:
            return self._refused(refusal)
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 OK"

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        """See the table of the module."""
        if len(envelope.rcpt_tos) >= RECIPIENTS_MAX:
            return f"452 4.5.3 a mail has at most {RECIPIENTS_MAX:,} recipients"
        try:
            normalise(address)
        except BadAddress as error:
            self.counts["refused"] += 1
            return f"553 5.1.3 {_line(error.text)}"
        if not address.isascii() and not envelope.smtp_utf8:
            return "553 5.6.7 such an address wants SMTPUTF8 after MAIL FROM"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def take(self, server: Session, raw: bytes) -> str:
        """Check and store a mail; the answer to the dot."""
        assert isinstance(server, SubmissionSession) and server.envelope is not None
        try:
            submission = self._submission(server, list(map(text, server.envelope.rcpt_tos)), raw)
            async with asyncio.timeout(STORE_S):
                ids = await self._acceptor.accept(submission)
        except Refusal as refusal:
            return self._refused(refusal)
        except TooLarge:
            return self._refused(Refusal("552 5.3.4 recipients and header fields have more than 8 MiB together"))
        except (ContentUnavailable, Unavailable, TimeoutError) as error:
            self.counts["put_off"] += 1
            log.warning("put off a submission: %s", error or "no answer in time")
            return "451 4.3.0 the mail cannot be stored now, try again later"
        self.counts["accepted"] += 1
        shown = ids[: max(1, IDS_SHOWN // (len(ids[0]) + 1))]
        more = f" and {len(ids) - len(shown):,} more" if len(ids) > len(shown) else ""
        return f"250 2.0.0 accepted as {' '.join(shown)}{more}"

    def _submission(self, server: SubmissionSession, recipients: list[str], raw: bytes) -> Submission:
        key, tenant = self._who(server)
        if has_bare_line_end(raw):
            raise Refusal("550 5.6.0 a CR or LF stands alone; every line must end with CRLF")
        try:
            orders, raw = take(raw)
        except BadOrder as error:
            raise Refusal(f"550 5.6.0 {_line(str(error))}") from None
        if not keys.may(key, "send", orders.stream):
            raise Refusal(f"550 5.7.1 this key may not send to the stream {orders.stream}")
        if (sender := author(raw)) is None:
            raise Refusal("550 5.6.0 the From field is missing, or no address")
        self._own_domain(tenant, sender["address"], "From")
        submission = _made(key, sender, recipients, raw, orders)
        problem = check_submission(submission) or check_lifetime(submission, self._now())
        domains = [own["domain"] for own in tenant.get("domains", [])]
        if problem := problem or check_content(raw, self._settings.size_max, domains):
            code = "5.7.1" if problem.reason == "sender-domain" else "5.6.0"
            raise Refusal(f"550 {code} {_line(problem.text)} ({problem.rule})")
        return submission

    def _who(self, server: SubmissionSession) -> tuple[ApiKey, Tenant]:
        """A connection may last longer than its key."""
        key = server.key and self.identity.still(server.key)
        if key is None:
            raise Refusal("550 5.7.1 the key is not in force any more: connect with another one")
        if not keys.may(key, "send"):
            raise Refusal("550 5.7.1 this key may not send: it wants the scope `send`")
        return key, self._tenants[key["tenant"]]

    def _own_domain(self, tenant: Tenant, address: str, what: str) -> None:
        try:
            domain = normalise(address).ascii_domain
        except BadAddress as error:
            raise Refusal(f"553 5.1.7 {what}: {_line(error.text)}") from None
        if domain_of_tenant(tenant, domain) is None:
            raise Refusal(f"550 5.7.1 {what}: {_line(domain)} {NOT_YOURS}")

    def _refused(self, refusal: Refusal) -> str:
        self.counts["refused"] += 1
        return str(refusal)


def _made(key: ApiKey, sender: Any, recipients: list[str], raw: bytes, orders: Orders) -> Submission:
    return cast(Submission, {
        "tenant": key["tenant"], "submission_id": f"smtp-{secrets.token_hex(16)}", "stream": orders.stream, "sender": sender,
        "recipients": [{"address": address} for address in recipients], "raw": raw, "tags": list(orders.tags),
        "metadata": orders.metadata, "send_at": orders.send_at, "expires_at": orders.expires_at, "dedupe_id": orders.dedupe_id,
        "test": key.get("test_mode", False),
    })  # fmt: skip


def _line(said: str) -> str:
    """One line of ASCII that a reply may have."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in said)[:300]
