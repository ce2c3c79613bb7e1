"""One SMTP connection: opened, used for one message after another, closed. Boundary: `Transport` and `Session`.

RFC 5321 (SMTP), 1870 (SIZE), 2920 (PIPELINING), 3207 (STARTTLS, opportunistic as in RFC 7435), 6152 (8BITMIME), 6531
(SMTPUTF8). The order of commands is here, so that the phase of every failure is known; the bytes are in smtp_wire.
"""

import asyncio
import re
import ssl
from collections.abc import Callable
from typing import Protocol

from aiosmtplib.esmtp import parse_esmtp_extensions

from avro.records import SmtpPhase
from postroad.egress import Source
from postroad.reply import Envelope, Outcome, Reply, Step, failed
from postroad.shaping.limits import Limits
from postroad.smtp_wire import Broken, Wire, blocks

_UNFIT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # controls end a command, surrogates have no encoding
_UNFIT_UNQUOTED = re.compile(r"[\s<>]")
_SIZE = re.compile(r"[0-9]{1,20}")  # RFC 1870 4


class Failure(Exception):
    """A connection that could not be opened, or that ended; carries the step that says how."""

    def __init__(self, step: Step) -> None:
        super().__init__(str(step.reply))
        self.step = step


class Laps:
    """Seconds that an attempt spent in each phase, by a clock of seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._since = clock, clock()
        self._spent: dict[str, float] = {}

    def start(self) -> None:
        """The next phase begins now; what was before it belongs to none."""
        self._since = self._clock()

    def lap(self, phase: SmtpPhase) -> None:
        """A phase, or a part of one, ends now and the next begins."""
        now = self._clock()
        self._spent[phase] = self._spent.get(phase, 0) + now - self._since
        self._since = now

    @property
    def ms(self) -> dict[str, int]:
        """In whole milliseconds."""
        return {phase: round(seconds * 1000) for phase, seconds in self._spent.items()}


class Session(Protocol):
    """An open connection, past EHLO. `tls`: version and cipher, empty for plain text. `sent`: transactions so far."""

    host: str
    address: str
    tls: str
    sent: int

    @property
    def alive(self) -> bool:
        """Whether another message may be tried on it."""

    async def send(self, envelope: Envelope, message: bytes, laps: Laps) -> Step:
        """One transaction, in bounded time; never raises, and is not alive where the connection is no longer of use."""

    def close(self, closed: Callable[[], None]) -> None:
        """Say QUIT; `closed` is called, once, when the host no longer has the connection (some seconds at most)."""


class Transport(Protocol):
    """Opens sessions. `AioTransport` to the world, `ScriptedTransport` in tests."""

    async def connect(
        self, source: Source, host: str, address: str, port: int, limits: Limits, starttls: bool, laps: Laps
    ) -> Session:
        """Connect, read the banner, EHLO; with `starttls`, TLS as the limits say. Raises Failure, in bounded time, when
        the connection is closed."""


class AioSession:
    """A session over a `Wire`."""

    def __init__(self, wire: Wire, source: Source, host: str, address: str, limits: Limits, laps: Laps) -> None:
        self.host, self.address, self.tls, self.sent = host, address, "", 0
        self.extensions: dict[str, str] = {}
        self._wire, self._source, self._limits, self._laps = wire, source, limits, laps
        self._open_transaction = False  # a MAIL that no DATA ended: RSET comes before the next
        self._over = False  # a 421: the host is about to close

    @property
    def alive(self) -> bool:
        return not self._over and self._wire.alive

    def close(self, closed: Callable[[], None]) -> None:
        self._wire.close(closed)

    def abort(self) -> None:
        """Drop the connection at once."""
        self._wire.abort()

    async def open(self, context: ssl.SSLContext | None) -> None:
        """From banner to EHLO, inside TLS where offered and there is a context. Raises Failure."""
        self._need("banner", await self._next("banner"), 220)
        await self._ehlo()
        if context is not None:
            await self._secure(context, self._limits.tls == "required")

    async def _secure(self, context: ssl.SSLContext, required: bool) -> None:
        if "starttls" not in self.extensions:
            if required:
                raise Failure(failed("starttls", "tls-failed", "the host offers no STARTTLS, which is required here"))
            return
        reply = await self._say("starttls", "STARTTLS")
        if reply.code >= 400 and reply.code != 421:  # RFC 3207 4: whether to go on in the clear is the client's choice
            if required:
                raise Failure(failed("starttls", "tls-failed", f"STARTTLS was refused: {reply}"))
            return
        self._need("starttls", reply, 220)
        try:
            await self._wire.start_tls(context, self.host, self._limits.timeouts.of("tls"))
        except Broken as fault:
            raise self._failure("starttls", fault) from None
        self._laps.lap("starttls")
        self.tls = self._wire.cipher
        try:
            await self._ehlo()  # RFC 3207 4.2: what was said before counts no longer
        except Failure as failure:
            if failure.step.reply.code:
                raise
            # TLS 1.3: what the host says to our side of the handshake comes only now
            raise Failure(failed("starttls", "tls-failed", f"after the handshake: {failure.step.reply}")) from None

    async def _ehlo(self) -> None:
        self._ask("ehlo", f"EHLO {self._source.ehlo}")
        code, text = await self._word("ehlo")
        self.extensions = parse_esmtp_extensions(text)[0] if code == 250 else {}
        reply = Reply.parse(code, text)
        if reply.permanent and not self.tls:  # RFC 5321 3.2: a host that knows no EHLO
            reply = await self._say("ehlo", f"HELO {self._source.ehlo}")
        self._need("ehlo", reply, 250)

    async def send(self, envelope: Envelope, message: bytes, laps: Laps) -> Step:
        unfit = self._cannot_take(envelope, message)
        if unfit is not None:
            return unfit
        self.sent += 1
        self._laps = laps
        laps.start()
        try:
            return await self._transaction(envelope, message)
        except Failure as failure:
            return failure.step
        except BaseException:  # cancelled in the middle: nobody knows what the next reply belongs to
            self._wire.abort()
            raise

    def _cannot_take(self, envelope: Envelope, message: bytes) -> Step | None:
        if not (_fits(envelope.mail_from) and _fits(envelope.rcpt_to)):
            return _unfit("local", 553, "5.1.3", "address cannot be put into an SMTP command")
        if envelope.needs_smtputf8 and "smtputf8" not in self.extensions:
            return _unfit(
                "no-smtputf8", 553, "5.6.7", "address or header needs SMTPUTF8, which the host does not offer"
            )
        if "8bitmime" not in self.extensions and not message.isascii():
            text = "message has 8-bit content, and the host does not offer 8BITMIME"
            return _unfit("no-8bitmime", 554, "5.6.3", text)
        limit = self.extensions.get("size", "").strip()
        if _SIZE.fullmatch(limit) and 0 < int(limit) < len(message):
            return _unfit("too-large", 552, "5.3.4", f"message of {len(message)} bytes, the host takes {limit}")
        return None

    async def _transaction(self, envelope: Envelope, message: bytes) -> Step:
        commands: list[tuple[SmtpPhase, str]] = [
            ("mail", self._mail_command(envelope, message)),
            ("rcpt", f"RCPT TO:<{envelope.rcpt_to}>"),
            ("data", "DATA"),
        ]
        if self._open_transaction:
            commands.insert(0, ("mail", "RSET"))
        pipelined = "pipelining" in self.extensions
        if pipelined:
            self._ask("mail", "\r\n".join(command for _, command in commands), len(commands))
        refused: Step | None = None  # the first refusal, which is why; the others follow from it
        started = False
        for phase, command in commands:
            try:
                if not pipelined:
                    self._ask(phase, command)
                reply = await self._next(phase)
                started = reply.code == 354 and phase == "data"
                if command == "RSET":
                    self._need_reset(reply)
                elif reply.code < 400 and not (started or (reply.positive and phase != "data")):
                    raise self._drop(phase, "protocol-error", f"{reply.code} as the reply to {command[:4]}")
            except Failure:
                if refused is None:
                    raise
                return refused
            self._open_transaction = self._open_transaction or (phase == "mail" and reply.positive)
            if reply.code >= 400:
                refused = refused or Step(phase, "replied", reply)
                if reply.code == 421 or not pipelined:
                    return refused
        if refused is not None:
            if started:
                await self._take_back()
            return refused
        reply = await self._send_body(message)
        self._open_transaction = False
        return Step("done" if reply.positive else "body", "replied", reply)

    def _need_reset(self, reply: Reply) -> None:
        if not reply.positive:
            self._over = True
            outcome: Outcome = "replied" if reply.code == 421 else "connection-lost"
            step = failed("mail", outcome, f"RSET was refused: {reply}")
            raise Failure(Step("mail", outcome, reply) if outcome == "replied" else step)
        self._open_transaction = False

    async def _take_back(self) -> None:
        """End a DATA that the host began though it refused MAIL or RCPT: RFC 2920 3.1, a dot alone, never a body."""
        self._open_transaction = True
        try:
            self._ask("data", ".")
            await self._next("data")
        except Failure:
            self._wire.abort()

    def _mail_command(self, envelope: Envelope, message: bytes) -> str:
        command = f"MAIL FROM:<{envelope.mail_from}>"
        if "size" in self.extensions:
            command += f" SIZE={len(message)}"
        if not message.isascii():
            command += " BODY=8BITMIME"
        return command + " SMTPUTF8" if envelope.needs_smtputf8 else command

    async def _send_body(self, message: bytes) -> Reply:
        # Until the last block is written the host cannot have the message: phase data. From then on it may: body.
        pieces = blocks(message)
        last = next(pieces)
        try:
            self._wire.ask(b"")  # the reply is due from here on: a host may refuse before the end
            # All blocks together, too: no drip goes on for hours
            async with asyncio.timeout(self._limits.timeouts.of("body")):
                for following in pieces:
                    self._wire.write(last)
                    await self._wire.drained(self._limits.timeouts.of("block"))
                    if self._wire.answered:
                        return await self._early()
                    last = following
            self._wire.write(last)
        except TimeoutError:
            raise self._drop("data", "timeout", "the host reads the message too slowly") from None
        except Broken as fault:
            raise self._failure("data", fault) from None
        reply = await self._next("body")
        if not reply.positive and reply.code < 400:
            raise self._drop("body", "protocol-error", f"{reply.code} as the reply to the message")
        return reply

    async def _early(self) -> Reply:
        """What the host said before the end of the message: it cannot have taken it."""
        reply = await self._next("data")
        if reply.code < 400:
            raise self._drop("data", "protocol-error", f"{reply.code} before the end of the message")
        self._wire.abort()
        return reply

    # words and replies

    def _ask(self, phase: SmtpPhase, command: str, replies: int = 1) -> None:
        try:
            self._wire.ask(f"{command}\r\n".encode(), replies)
        except Broken as fault:
            raise self._failure(phase, fault) from None

    async def _word(self, phase: SmtpPhase) -> tuple[int, str]:
        try:
            word = await self._wire.reply(self._limits.timeouts.of("tls" if phase == "starttls" else phase))
        except Broken as fault:
            raise self._failure(phase, fault) from None
        finally:
            self._laps.lap(phase)
        if word[0] == 421:  # RFC 5321 3.8
            self._over = True
        return word

    async def _next(self, phase: SmtpPhase) -> Reply:
        return Reply.parse(*await self._word(phase))

    async def _say(self, phase: SmtpPhase, command: str) -> Reply:
        self._ask(phase, command)
        return await self._next(phase)

    def _need(self, phase: SmtpPhase, reply: Reply, code: int) -> None:
        if reply.code >= 400:
            raise Failure(Step(phase, "replied", reply))
        if reply.code != code:
            raise self._drop(phase, "protocol-error", f"{reply.code} in phase {phase}")

    def _failure(self, phase: SmtpPhase, fault: Broken) -> Failure:
        self._wire.abort()
        return Failure(Step(phase, "replied", fault.reply) if fault.reply else failed(phase, fault.outcome, fault.text))

    def _drop(self, phase: SmtpPhase, outcome: Outcome, text: str) -> Failure:
        return self._failure(phase, Broken(outcome, text))


def _unfit(outcome: Outcome, code: int, enhanced: str, text: str) -> Step:
    return Step("mail", outcome, Reply(code, enhanced, f"local: {text}"))


def _fits(address: str) -> bool:
    """Whether an address can stand between angle brackets without ending the command."""
    return not _UNFIT.search(address) and (address.startswith('"') or not _UNFIT_UNQUOTED.search(address))
