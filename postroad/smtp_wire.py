"""The bytes of one SMTP connection: replies read within bounds, each for a command that asked for it; bodies as blocks.

RFC 5321 4.2 (replies), 4.5.2 (transparency), 2920 (replies to several commands), 3207 4.2 (nothing in the clear counts
after STARTTLS). aiosmtplib's protocol reads one reply per command and drops what comes beside it, which rules out both
pipelining and the certainty that a reply belongs to its command; hence this one.
"""

import asyncio
import re
import ssl
from collections import deque
from collections.abc import Callable, Iterator
from typing import cast

from postroad.reply import Outcome, Reply

CHUNK = 65_536  # bytes of a body between two looks at the time-out
MAX_LINE = 8_192  # bytes of a line of a reply; RFC 5321 4.5.3.1.5 says 512
MAX_REPLY = 32_768  # bytes of a whole reply; the EHLO of a real host is 1 KB at most
MAX_LINES = 500
QUIT_S = 5  # for the host to close after QUIT; it counts against the site's connections until then
ABORT_S = 0.25  # until a host has surely seen that a connection was cut

_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ \t-])(.*))?", re.DOTALL)
_LINE_END = re.compile(rb"\r\n|\n|\r")


class Broken(Exception):
    """The connection is of no more use; `reply`: the host's last word, a 421 that nothing had asked for."""

    def __init__(self, outcome: Outcome, text: str, reply: Reply | None = None) -> None:
        super().__init__(text)
        self.outcome, self.text, self.reply = outcome, text, reply


def blocks(message: bytes, size: int = CHUNK) -> Iterator[bytes]:
    """The bytes after DATA, in blocks of some `size` bytes: lines end in CRLF, leading dots are doubled (RFC 5321 4.5.2),
    the final dot is in the last block.

    A bare CR or LF becomes CRLF, since a host that takes one for a line end could be made to read a second message (SMTP
    smuggling, CVE-2023-51764).
    """
    start, line_start = 0, True
    while True:
        end = start + size
        if message[end - 1 : end + 1] == b"\r\n":  # never cut between the two
            end += 1
        block = message[start:end] if start or end < len(message) else message
        if not block.count(b"\r\n") == block.count(b"\n") == block.count(b"\r"):
            block = _LINE_END.sub(b"\r\n", block)
        dot = line_start and block.startswith(b".")
        block = (b"." if dot else b"") + block.replace(b"\r\n.", b"\r\n..")
        if block:
            line_start = block.endswith(b"\r\n")
        start = end
        if start >= len(message):
            yield block + (b".\r\n" if line_start else b"\r\n.\r\n")
            return
        yield block


class Wire(asyncio.Protocol):
    """A connection after `create_connection`: the banner is the first reply that is due."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._input = bytearray()
        self._lines: list[bytes] = []  # of a reply that is not complete
        self._size = 0
        self._replies: deque[tuple[int, str]] = deque()
        self._due = 1  # replies that were asked for and have not come
        self._fault: Broken | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._paused = self._lost = False
        self._cut = False  # by us, so that the host need not know yet
        self._closed: Callable[[], None] | None = None
        self._linger: asyncio.TimerHandle | None = None

    # asyncio's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by their class

    def data_received(self, data: bytes) -> None:
        if self._fault is None:
            self._input += data
            try:
                self._read()
            except Broken as fault:
                self._fail(fault)
            if self._replies:
                self._wake()

    def eof_received(self) -> bool:
        self._fail(Broken("connection-lost", "the host closed the connection"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._fail(Broken("connection-lost", str(exc) if exc else "the host closed the connection"))
        if not self._cut:
            self._gone()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._wake()

    # what a session does with it

    @property
    def alive(self) -> bool:
        """Whether a command may be written: nothing has failed, and nothing was said that nobody had asked for."""
        return self._fault is None and (self._due > 0 or not (self._input or self._lines))

    @property
    def answered(self) -> bool:
        """A reply waits to be read, or none will come any more."""
        return bool(self._replies) or self._fault is not None

    @property
    def cipher(self) -> str:
        """TLS version and cipher, as "TLSv1.3 TLS_AES_256_GCM_SHA384"; empty in the clear."""
        found = self._transport.get_extra_info("cipher") if self._transport is not None else None
        return f"{found[1]} {found[0]}" if found else ""

    def ask(self, data: bytes, replies: int = 1) -> None:
        """Write what that many replies are due for. Raises Broken."""
        if not self.alive:
            self._fail(Broken("protocol-error", "a reply that nothing had asked for"))
            assert self._fault is not None
            raise self._fault
        self._due += replies
        self.write(data)

    def write(self, data: bytes) -> None:
        """Write a part of what a reply is due for already. Raises Broken."""
        if self._fault is not None:
            raise self._fault
        assert self._transport is not None
        self._transport.write(data)

    async def reply(self, seconds: float) -> tuple[int, str]:
        """Code and text (lines joined by newlines) of the next reply that is due, complete within that time however it drips. Raises Broken."""
        if not self._replies:
            await self._wait(seconds, "no complete reply in time")
        return self._replies.popleft()

    async def drained(self, seconds: float) -> None:
        """Return when the host has read most of what was written, or replied before. Raises Broken."""
        while self._paused and not self._replies:
            await self._wait(seconds, "the host stopped reading the message", any_word=True)

    async def _wait(self, seconds: float, late: str, any_word: bool = False) -> None:
        """Until there is a reply (with `any_word`: until anything happens)."""
        timer = self._loop.call_later(seconds, self._fail, Broken("timeout", late))
        try:
            while not self._replies:
                if self._fault is not None:
                    raise self._fault
                self._waiter = self._loop.create_future()
                await self._waiter
                if any_word:
                    return
        finally:
            timer.cancel()
            self._waiter = None

    async def start_tls(self, context: ssl.SSLContext, host: str, seconds: float) -> None:
        """The handshake, after a positive reply to STARTTLS. Raises Broken.

        Anything that came in the clear after that reply would pass for a word said under TLS: a protocol-error
        (the class of CVE-2011-0411).
        """
        if self._fault is None and (self._input or self._lines or self._replies):
            self._fail(Broken("protocol-error", "plain text between the reply to STARTTLS and the handshake"))
        if self._fault is not None:
            raise self._fault
        assert self._transport is not None
        try:
            transport = await self._loop.start_tls(
                self._transport, self, context,
                server_hostname=host, ssl_handshake_timeout=seconds, ssl_shutdown_timeout=QUIT_S,
            )  # fmt: skip
            if transport is None:
                raise ConnectionResetError("the host closed the connection in the handshake")
        except (OSError, ValueError) as error:  # SSLError is an OSError; ValueError: a name unfit for SNI
            fault = Broken("tls-failed", str(error) or type(error).__name__)
            self._fail(fault)
            raise fault from None
        self._transport = transport

    def abort(self) -> None:
        """Drop the connection at once."""
        self._fail(Broken("connection-lost", "dropped"))
        if not self._lost and not self._cut:
            self._cut = True
            if self._transport is not None:
                self._transport.abort()

    def close(self, closed: Callable[[], None]) -> None:
        """Say QUIT where that makes sense, and call `closed`, once, when the host no longer has the connection."""
        self._closed = closed
        if self._lost and not self._cut:
            self._gone()
        elif self._cut or not self.alive:
            self.abort()
            self._linger = self._loop.call_later(ABORT_S, self._gone)
        else:
            assert self._transport is not None
            self._transport.write(b"QUIT\r\n")
            self._fault = Broken("connection-lost", "closed")  # what comes now is the reply to QUIT
            self._linger = self._loop.call_later(QUIT_S, self.close, closed)

    # reading

    def _read(self) -> None:
        start = 0
        while (end := self._input.find(b"\n", start)) >= 0:
            line = bytes(self._input[start:end])
            start = end + 1
            self._take(line.removesuffix(b"\r"))
        del self._input[:start]
        if len(self._input) > MAX_LINE:
            raise Broken("protocol-error", f"a line of more than {MAX_LINE} bytes")

    def _take(self, line: bytes) -> None:
        self._size += len(line)
        if len(line) > MAX_LINE or self._size > MAX_REPLY or len(self._lines) >= MAX_LINES:
            raise Broken("protocol-error", f"a reply of more than {MAX_REPLY} bytes or {MAX_LINES} lines")
        found = _LINE.fullmatch(line)
        if found is None:
            raise Broken("protocol-error", f"not a reply: {line[:80].decode('ascii', 'replace')}")
        self._lines.append((found[3] or b"").strip())
        if found[2] == b"-":
            return
        code, text = int(found[1]), b"\n".join(self._lines).decode("utf-8", "replace")
        self._lines.clear()
        self._size = 0
        if self._due:
            self._due -= 1
            self._replies.append((code, text))
            return
        reply = Reply.parse(code, text)
        if code == 421:  # RFC 5321 3.8: at any moment
            raise Broken("replied", str(reply), reply)
        raise Broken("protocol-error", f"a reply that nothing had asked for: {reply}")

    def _fail(self, fault: Broken) -> None:
        if self._fault is None:
            self._fault = fault
            self._wake()
            if not self._lost and fault.outcome != "connection-lost":
                self.abort()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _gone(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
        if self._closed is not None:
            closed, self._closed = self._closed, None
            closed()
