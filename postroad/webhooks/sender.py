"""One try: a POST over a connection that the guard has seen, bounded in time and in what is read of the answer."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from avro.records import Notification, Webhook
from postroad.dns import DnsResolver, Resolver
from postroad.webhooks.guard import BadUrl, Guard, Rules
from postroad.webhooks.sealing import Sealing
from postroad.webhooks.signing import BadSecret, headers, in_force

ANSWER_MAX = 16 << 10  # bytes of a body that are read so that the connection can be kept; more closes it
ERROR_MAX = 200
KEEP_S = 15.0
GONE = 410


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of a try. `status`: 0 where there was no answer."""

    status: int
    error: str
    duration_ms: int
    retry_after_ms: int = 0

    @property
    def delivered(self) -> bool:
        return 200 <= self.status < 300 and not self.error


class _Names(AbstractResolver):
    """aiohttp's look-ups by our resolver: its own uses the few threads of the process, and dead name servers would hold them all."""

    def __init__(self, resolver: Resolver):
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        answer = await self._resolver.addresses(host)
        if not answer.addresses:
            raise OSError(f"no address ({answer.kind})")
        return [
            ResolveResult(hostname=host, host=address, port=port, proto=socket.IPPROTO_TCP, flags=socket.AI_NUMERICHOST,
                          family=socket.AF_INET6 if ":" in address else socket.AF_INET)
            for address in answer.addresses
        ]  # fmt: skip

    async def close(self) -> None: ...


class Sender:
    """The HTTP client of a process. `tls`: another context than the system's, for tests."""

    def __init__(self, rules: Rules, resolver: Resolver | None = None, tls: ssl.SSLContext | None = None):
        self.rules, self.guard = rules, Guard(rules.networks, rules.http)
        self._resolver, self._tls, self._sealing = resolver, tls, Sealing(rules.secret_keys)
        self._session: aiohttp.ClientSession | None = None

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            resolver = self._resolver or DnsResolver(self.rules.dns_servers, min(5.0, self.rules.timeout_s))
            connector = aiohttp.TCPConnector(
                limit=0,  # endpoints have limits of their own: one pool for all is how a dead one delays another
                resolver=_Names(resolver), use_dns_cache=False, socket_factory=self.guard.socket, ssl=self._tls or True,
                keepalive_timeout=KEEP_S,
            )  # fmt: skip
            self._session = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False,
                timeout=aiohttp.ClientTimeout(total=self.rules.timeout_s), headers={"User-Agent": "Postroad-Webhooks/1"},
            )  # fmt: skip
        return self._session

    async def post(self, webhook: Webhook, notification: Notification, now: int) -> Tried:
        """Never raises for what an endpoint, or its record, can do."""
        started = time.monotonic()
        status, error, again = 0, "", 0
        try:
            self.guard.check_url(webhook["url"])
            body = notification.get("body", "").encode()
            secrets = [self._sealing.open(kept) for kept in in_force(webhook, now)]
            signed = headers(secrets, notification["notification_id"], now, body)
            signed["Content-Type"] = "application/json"
            async with self._client().post(
                webhook["url"], data=body, headers=signed, allow_redirects=False
            ) as answer:  # fmt: skip
                status, again = answer.status, _seconds(answer.headers.get("Retry-After", ""))
                if 300 <= status < 400:
                    error = "redirects are not followed"
                elif not 200 <= status < 300:
                    error = f"HTTP status {status}"
                await _drain(answer)
        except TimeoutError:
            error = f"no answer within {self.rules.timeout_s:g} s"
        except (BadUrl, BadSecret, OSError, aiohttp.ClientError, ValueError, UnicodeError) as exc:
            # the body of a 2xx that breaks off has been taken all the same
            error = "" if 200 <= status < 300 else f"{type(exc).__name__}: {exc}"
        return Tried(status, error[:ERROR_MAX], round((time.monotonic() - started) * 1000), again * 1000)

    async def close(self) -> None:
        """Close its connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


async def _drain(answer: Any) -> None:
    """Read a short body, so that the connection can be used again; a long one, or a slow one, ends with its connection."""
    try:
        async with asyncio.timeout(1.0):
            await answer.content.readexactly(ANSWER_MAX)
        answer.close()
    except asyncio.IncompleteReadError:
        pass
    except TimeoutError:
        answer.close()


def _seconds(text: str) -> int:
    return min(int(text), 86_400) if text.isascii() and text.isdecimal() and len(text) < 8 else 0
