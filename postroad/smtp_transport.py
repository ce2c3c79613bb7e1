"""Opens SMTP sessions over TCP, in the clear and inside TLS."""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from postroad.egress import Source
from postroad.reply import failed
from postroad.shaping.limits import Limits
from postroad.smtp_session import AioSession, Failure, Laps
from postroad.smtp_wire import Wire


@lru_cache(maxsize=2)
def tls_context(verify: bool) -> ssl.SSLContext:
    """How certificates are judged: any, or one that a known authority gave to the host's name (RFC 6125).

    MTA-STS needs the second; DANE needs a third kind, which compares with a TLSA record.
    """
    context = ssl.create_default_context() if verify else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@dataclass(frozen=True, slots=True)
class AioTransport:
    """Sessions over TCP, bound to the source's address. `contexts`: for TLS with a certificate to verify, and without."""

    contexts: Callable[[bool], ssl.SSLContext] = tls_context

    async def connect(
        self, source: Source, host: str, address: str, port: int, limits: Limits, starttls: bool, laps: Laps
    ) -> AioSession:
        """As Transport. Opportunistic TLS takes any certificate (RFC 7435): without TLS the mail would go in the clear."""
        loop = asyncio.get_running_loop()
        local = (source.address, 0) if source.address else None
        laps.start()
        try:
            async with asyncio.timeout(limits.timeouts.of("connect")):
                _, wire = await loop.create_connection(Wire, address, port, local_addr=local)
        except TimeoutError:
            raise Failure(failed("connect", "timeout", f"{address} did not answer")) from None
        except OSError as error:
            raise Failure(failed("connect", "connect-failed", str(error))) from None
        finally:
            laps.lap("connect")
        session = AioSession(wire, source, host, address, limits, laps)
        try:
            await session.open(self.contexts(limits.verify and limits.tls == "required") if starttls else None)
        except Failure:
            await _closed(session)
            raise
        except BaseException:
            session.abort()
            raise
        return session


async def _closed(session: AioSession) -> None:
    """Return when the host no longer has the connection, so that it no longer counts."""
    gone = asyncio.Event()
    session.close(gone.set)
    await gone.wait()
