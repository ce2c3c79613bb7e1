"""One SMTP connection: opened, used for one message after another, closed. Boundary: `Transport` and `Session`.

RFC 5321 (SMTP), 1870 (SIZE), 3207 (STARTTLS, opportunistic as in RFC 7435), 6152 (8BITMIME), 6531 (SMTPUTF8).
aiosmtplib's protocol reads replies and upgrades to TLS; the order of commands is here, so that the phase of every
failure is known.
"""

import asyncio
import contextlib
import re
import ssl
from collections.abc import Awaitable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from aiosmtplib.errors import SMTPException, SMTPResponseException, SMTPTimeoutError
from aiosmtplib.esmtp import parse_esmtp_extensions
from aiosmtplib.protocol import SMTPProtocol, normalize_message_line_endings
from aiosmtplib.response import SMTPResponse

from avro.records import SmtpPhase
from postroad.egress import Source
from postroad.reply import Envelope, Outcome, Reply, Step, failed

CHUNK = 65_536  # bytes of a body between two looks at the time-out
_UNFIT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # controls end a command, surrogates have no encoding
_UNFIT_UNQUOTED = re.compile(r"[\s<>]")


@dataclass(frozen=True, slots=True)
class SmtpTimeouts:
    """Seconds to wait for each step; a reply must be complete by then. `scale` shortens all of them, for tests.

    `attempt` is an attempt's deadline: once it has passed no further address is tried, so that the tarpits of one domain
    hold a delivery no longer than the slowest of them does.
    """

    connect: float = 30  # Postfix smtp_connect_timeout; TCP itself would try for two minutes
    banner: float = 300  # RFC 5321 4.5.3.2.1
    ehlo: float = 300  # as MAIL: the RFC names no value
    tls: float = 60  # handshake; no RFC value
    mail: float = 300  # 4.5.3.2.2
    rcpt: float = 300  # 4.5.3.2.3
    data: float = 120  # 4.5.3.2.4
    block: float = 180  # 4.5.3.2.5, for each CHUNK
    body: float = 600  # 4.5.3.2.6: the reply after the final dot
    attempt: float = 900  # no RFC value: a banner and an EHLO at the last moment leave time for a second address
    scale: float = 1

    def of(self, step: str) -> float:
        """The scaled time-out of a step."""
        value: float = getattr(self, step)
        return value * self.scale

    @property
    def longest(self) -> float:
        """What an attempt may take at most: a host that says every word at the last moment, begun just before the deadline."""
        stale = 2 * self.mail  # RSET and MAIL on a connection of the pool
        # STARTTLS (its reply, the handshake) fails: once more without; there EHLO is refused, and HELO taken
        opening = 2 * (self.connect + self.banner) + 3 * self.ehlo + 2 * self.tls
        message = self.mail + self.rcpt + self.data + self.body + self.block + self.body  # blocks, the last one, reply
        return (self.attempt + stale + opening + message) * self.scale


class Failure(Exception):
    """A connection that could not be opened, or that ended; carries the step that says how."""

    def __init__(self, step: Step) -> None:
        super().__init__(str(step.reply))
        self.step = step


class Session(Protocol):
    """An open connection, past EHLO. `tls`: version and cipher, empty for plain text. `sent`: transactions so far."""

    host: str
    address: str
    tls: str
    sent: int

    @property
    def alive(self) -> bool:
        """Whether another message may be tried on it."""

    async def send(self, envelope: Envelope, message: bytes) -> Step:
        """One transaction, in bounded time; never raises, and closes itself where the connection is no longer of use."""

    def close(self) -> None:
        """Say QUIT and go, without waiting for the answer."""


class Transport(Protocol):
    """Opens sessions. `AioTransport` to the world, `ScriptedTransport` in tests."""

    @property
    def timeouts(self) -> SmtpTimeouts:
        """How long it and its sessions wait."""

    async def connect(self, source: Source, host: str, address: str, port: int) -> Session:
        """Connect, read the banner, EHLO, STARTTLS where offered. Raises Failure, in bounded time."""


class _Wire(SMTPProtocol):
    """aiosmtplib's protocol, and what it keeps to itself: flow control, and bytes nobody asked for."""

    @property
    def unsolicited(self) -> bool:
        """A second reply came with the last one: from here on replies would be taken for those of other commands."""
        return bool(self._buffer)

    async def write_body(self, wire: bytes, block_timeout: float) -> None:
        """Write (part of) a body in blocks, each within its time-out."""
        self._response_pending = True  # a host may refuse before the end
        for start in range(0, len(wire), CHUNK):
            self.write(wire[start : start + CHUNK])
            async with asyncio.timeout(block_timeout):
                await self._drain_helper()

    def abort(self) -> None:
        """Drop the connection at once."""
        if self.transport is not None and isinstance(self.transport, asyncio.WriteTransport):
            self.transport.abort()


def to_wire(message: bytes) -> bytes:
    """The bytes after DATA: lines end in CRLF, leading dots are doubled (RFC 5321 4.5.2), the final dot is there.

    Content that is CRLF throughout passes unchanged; a bare CR or LF becomes CRLF, since a host that takes one for a
    line end could be made to read a second message (SMTP smuggling, CVE-2023-51764).
    """
    if not message.endswith(b"\r\n") or not message.count(b"\r\n") == message.count(b"\n") == message.count(b"\r"):
        message = normalize_message_line_endings(message)
    message = message.replace(b"\r\n.", b"\r\n..")
    return (b"." if message.startswith(b".") else b"") + message + b".\r\n"


def _fits(address: str) -> bool:
    """Whether an address can stand between angle brackets without ending the command."""
    return not _UNFIT.search(address) and (address.startswith('"') or not _UNFIT_UNQUOTED.search(address))


class AioSession:
    """A session over aiosmtplib's protocol."""

    def __init__(self, wire: _Wire, source: Source, host: str, address: str, timeouts: SmtpTimeouts) -> None:
        self.host, self.address, self.tls, self.sent = host, address, "", 0
        self.extensions: dict[str, str] = {}
        self._wire, self._source, self._timeouts = wire, source, timeouts
        self._open_transaction = False  # a MAIL that no DATA ended: RSET comes before the next

    @property
    def alive(self) -> bool:
        return self._wire.is_connected

    def close(self) -> None:
        if self._wire.is_connected and self._wire.transport is not None:
            self._wire.write(b"QUIT\r\n")
            self._wire.transport.close()

    def abort(self) -> None:
        """Drop the connection at once."""
        self._wire.abort()

    async def open(self, starttls: bool) -> None:
        """From banner to EHLO, inside TLS where offered and wanted. Raises Failure."""
        banner = await self._reply("banner", self._wire.read_response(self._timeouts.of("banner")))
        if banner.code != 220:
            self.close()
            raise Failure(Step("banner", "replied", banner))
        await self._ehlo()
        if starttls and "starttls" in self.extensions:
            timeout = self._timeouts.of("tls")
            upgrade = self._wire.start_tls(_tls_context(), server_hostname=self.host, timeout=timeout)
            await self._reply("starttls", upgrade)
            cipher = self._wire.transport.get_extra_info("cipher") if self._wire.transport is not None else None
            self.tls = f"{cipher[1]} {cipher[0]}" if cipher else "TLS"
            await self._ehlo()  # RFC 3207 4.2: what was said before counts no longer

    async def _ehlo(self) -> None:
        code, text = await self._command("ehlo", f"EHLO {self._source.ehlo}")
        self.extensions = parse_esmtp_extensions(text)[0] if code == 250 else {}
        if 500 <= code < 600:  # RFC 5321 3.2: a host that knows no EHLO
            code, text = await self._command("ehlo", f"HELO {self._source.ehlo}")
        if code != 250:
            self.close()
            raise Failure(Step("ehlo", "replied", Reply.parse(code, text)))

    async def send(self, envelope: Envelope, message: bytes) -> Step:
        unfit = self._cannot_take(envelope, len(message))
        if unfit is not None:
            return Step("mail", "local", unfit)
        self.sent += 1
        try:
            step = await self._transaction(envelope, message)
        except Failure as failure:
            step = failure.step
        except BaseException:  # cancelled in the middle: nobody knows what the next reply belongs to
            self._wire.abort()
            raise
        if step.reply.code == 421:  # RFC 5321 3.8: at any moment; the host closes
            self.close()
        return step

    def _cannot_take(self, envelope: Envelope, size: int) -> Reply | None:
        if not (_fits(envelope.mail_from) and _fits(envelope.rcpt_to)):
            return Reply(553, "5.1.3", "local: address cannot be put into an SMTP command")
        if envelope.needs_smtputf8 and "smtputf8" not in self.extensions:
            return Reply(553, "5.6.7", "local: address or header needs SMTPUTF8, which the host does not offer")
        limit = self.extensions.get("size", "")
        if limit.isdigit() and 0 < int(limit) < size:
            return Reply(552, "5.3.4", f"local: message of {size} bytes, the host takes {limit}")
        return None

    async def _transaction(self, envelope: Envelope, message: bytes) -> Step:
        if self._open_transaction:
            reply = await self._say("mail", "RSET")
            if not reply.positive:
                self.close()
                raise Failure(failed("mail", "connection-lost", f"RSET was refused: {reply}"))
            self._open_transaction = False
        reply = await self._say("mail", self._mail_command(envelope, message))
        if not reply.positive:
            return Step("mail", "replied", reply)
        self._open_transaction = True
        reply = await self._say("rcpt", f"RCPT TO:<{envelope.rcpt_to}>")
        if not reply.positive:
            return Step("rcpt", "replied", reply)
        reply = await self._say("data", "DATA")
        if reply.code != 354:
            if reply.code < 400:
                raise self._drop("data", "protocol-error", f"{reply.code} as the reply to DATA")
            return Step("data", "replied", reply)
        reply = await self._send_body(to_wire(message))
        self._open_transaction = False
        return Step("done" if reply.positive else "body", "replied", reply)

    def _mail_command(self, envelope: Envelope, message: bytes) -> str:
        command = f"MAIL FROM:<{envelope.mail_from}>"
        if "size" in self.extensions:
            command += f" SIZE={len(message)}"
        if "8bitmime" in self.extensions and not message.isascii():
            command += " BODY=8BITMIME"
        return command + " SMTPUTF8" if envelope.needs_smtputf8 else command

    async def _send_body(self, wire: bytes) -> Reply:
        # Until the last block is written the host cannot have the message: phase data. From then on it may: body.
        last = max(len(wire) - CHUNK, 0)
        block = self._timeouts.of("block")
        try:
            if last:
                async with asyncio.timeout(self._timeouts.of("body")):  # the blocks together: no drip goes on for hours
                    await self._wire.write_body(wire[:last], block)
        except TimeoutError:
            raise self._drop("data", "timeout", "the host stopped reading the message") from None
        except (SMTPException, OSError):  # the host closed, maybe after a last word such as 552
            reply = await self._reply("data", self._wire.read_response(block))
            if reply.positive:
                raise self._drop("data", "protocol-error", f"{reply.code} before the end of the message") from None
            return reply
        reply = await self._reply("body", self._finish_body(wire[last:]))
        if reply.code < 400 and not reply.positive:
            raise self._drop("body", "protocol-error", f"{reply.code} as the reply to the message")
        return reply

    async def _finish_body(self, rest: bytes) -> SMTPResponse:
        # A host that closed may have replied before; if it did not, reading says so.
        with contextlib.suppress(SMTPException, ConnectionError):
            await self._wire.write_body(rest, self._timeouts.of("block"))
        return await self._wire.read_response(self._timeouts.of("body"))

    def _drop(self, phase: SmtpPhase, outcome: Outcome, text: str) -> Failure:
        self._wire.abort()
        return Failure(failed(phase, outcome, text))

    async def _say(self, phase: SmtpPhase, command: str) -> Reply:
        return Reply.parse(*await self._command(phase, command))

    async def _command(self, phase: SmtpPhase, command: str) -> SMTPResponse:
        if self._wire.unsolicited:
            raise self._drop(phase, "protocol-error", "a reply that nothing had asked for")
        return await self._response(
            phase, self._wire.execute_command(command.encode(), timeout=self._timeouts.of(phase))
        )

    async def _reply(self, phase: SmtpPhase, reading: Awaitable[SMTPResponse]) -> Reply:
        return Reply.parse(*await self._response(phase, reading))

    async def _response(self, phase: SmtpPhase, reading: Awaitable[SMTPResponse]) -> SMTPResponse:
        """Wait for a response; every way not to get one is a Failure with its name, and the connection is dropped."""
        try:
            response = await reading
        except (SMTPTimeoutError, TimeoutError):
            raise self._drop(phase, "timeout", f"no complete reply in phase {phase}") from None
        except SMTPResponseException as error:
            if error.code <= 0:
                raise self._drop(phase, "protocol-error", error.message) from None
            response = SMTPResponse(error.code, error.message)  # STARTTLS was refused
            self._wire.abort()
            raise Failure(Step(phase, "replied", Reply.parse(*response))) from None
        except (
            SMTPException,
            OSError,
            ValueError,
        ) as error:  # SSLError is an OSError; ValueError: a name unfit for SNI
            outcome: Outcome = "tls-failed" if phase == "starttls" else "connection-lost"
            raise self._drop(phase, outcome, str(error)) from None
        if not 200 <= response.code < 600:
            raise self._drop(phase, "protocol-error", f"reply code {response.code}")
        return response


@lru_cache(maxsize=1)
def _tls_context() -> ssl.SSLContext:
    """Opportunistic TLS (RFC 7435): any certificate, since without TLS the mail would go in the clear."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@dataclass(frozen=True, slots=True)
class AioTransport:
    """Sessions over TCP, bound to the source's address."""

    timeouts: SmtpTimeouts = SmtpTimeouts()

    async def connect(self, source: Source, host: str, address: str, port: int) -> AioSession:
        """As Transport; where STARTTLS fails, once more without it."""
        try:
            return await self._open(source, host, address, port, starttls=True)
        except Failure as failure:
            if failure.step.phase != "starttls" or failure.step.reply.code == 421:
                raise
        return await self._open(source, host, address, port, starttls=False)

    async def _open(self, source: Source, host: str, address: str, port: int, starttls: bool) -> AioSession:
        loop = asyncio.get_running_loop()
        local = (source.address, 0) if source.address else None
        try:
            async with asyncio.timeout(self.timeouts.of("connect")):
                _, wire = await loop.create_connection(_Wire, address, port, local_addr=local)
        except TimeoutError:
            raise Failure(failed("connect", "timeout", f"{address} did not answer")) from None
        except OSError as error:
            raise Failure(failed("connect", "connect-failed", str(error))) from None
        session = AioSession(wire, source, host, address, self.timeouts)
        try:
            await session.open(starttls)
        except BaseException:
            session.abort()
            raise
        return session
