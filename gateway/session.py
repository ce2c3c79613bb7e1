"""One SMTP connection: aiosmtpd's, with what a host that the whole world talks to needs besides.

RFC 5321, 1870 (SIZE), 3207 (STARTTLS), 6152 (8BITMIME), 6531 (SMTPUTF8).

Only CRLF . CRLF ends a mail, so nothing can be smuggled in behind another host's idea of a line end; within a mail a bare LF stays what
it is. What a peer sends beyond the limits is read and forgotten, so far; memory of a connection is bounded by the size limit.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections import defaultdict
from contextlib import nullcontext
from typing import IO, TYPE_CHECKING, Any

from aiosmtpd.smtp import SMTP

if TYPE_CHECKING:
    from gateway.host import Host

TOO_MANY = "421 4.3.2 too many connections, try again later"
COMMANDS_MAX = 2_000  # of each kind, of one connection
COMMAND_MAX = 1_000  # bytes of one: an address of 254 characters in UTF-8, and parameters
_PLAIN = re.compile(r"<([^\s<>\"(),:;@\\\[\]]+@[^\s<>\"(),:;@\\\[\]]+)>(?:\s+(.*))?")  # without quotes and comments
SMALL = (
    1 << 20
)  # bytes of a mail that is in memory while it comes; larger ones are in a file, and of those few in memory at a time
_WASTE = 4  # times the size limit: who sends more than that after all is cut off


class Busy(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(f"{TOO_MANY}\r\n".encode())
        transport.close()


class Session(SMTP):
    """One connection; `host` decides and stores."""

    def __init__(self, host: Host, **options: Any) -> None:
        #: aiosmtpd's is of the class, and grows with each EHLO of anybody
        self.command_size_limits = defaultdict(lambda: COMMAND_MAX)
        super().__init__(
            host, ident="ESMTP", command_call_limit=COMMANDS_MAX, data_size_limit=host.bounds.size_max, enable_SMTPUTF8=True,
            timeout=host.bounds.timeout_s, loop=asyncio.get_running_loop(), **options,
        )  # fmt: skip
        self.host, self.peer, self.refused = host, "", False
        self.storing = False

    # asyncio's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self.transport is None:  # not the second time, after STARTTLS
            self.peer = (transport.get_extra_info("peername") or ("",))[0]
            if said := self.host.opened(self):
                assert isinstance(transport, asyncio.Transport)
                self.refused = True
                transport.write(f"{said}\r\n".encode())
                transport.close()
                return
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.refused:
            self.host.closed(self)
            super().connection_lost(error)

    def eof_received(self) -> bool | None:
        return None if self.refused else super().eof_received()

    def data_received(self, data: bytes) -> None:
        if not self.refused:
            super().data_received(data)

    def _timeout_cb(self) -> None:
        """At once, and whether or not asyncio tells us of the end: of a connection that is aborted in its TLS handshake it does
        not, and of one whose peer does not read only when it has."""
        if transport := self._original_transport or self.transport:
            assert isinstance(transport, asyncio.Transport)
            transport.abort()
        if self._handler_coroutine is not None:
            self._handler_coroutine.cancel()
        self.host.closed(self)

    def end(self, said: str) -> None:
        """Say good-bye and close."""
        if isinstance(self.transport, asyncio.Transport) and not self.transport.is_closing():
            self.transport.write(f"{said}\r\n".encode())
            self.transport.close()

    # SMTP

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        """As aiosmtpd's, whose parser is slow, and fails in many ways on hostile input."""
        if found := _PLAIN.fullmatch(arg):
            return found[1], found[2] or ""
        try:
            address, rest = super()._getaddr(arg)
        except Exception:
            return None, None
        return address, rest

    async def smtp_MAIL(self, arg: str | None) -> None:
        if said := self.host.mailed(self):
            self.end(said)
        else:
            await super().smtp_MAIL(arg)

    async def smtp_DATA(self, arg: str | None) -> None:
        """As aiosmtpd's, with long lines, and bounded: its own keeps all of a line that never ends."""
        if await self.check_helo_needed():
            return
        assert self.envelope is not None
        if not self.envelope.rcpt_tos:
            await self.push("503 5.5.1 RCPT comes first")
            return
        if arg:
            await self.push("501 5.5.4 DATA takes no argument")
            return
        await self.push("354 End data with <CR><LF>.<CR><LF>")
        with tempfile.SpooledTemporaryFile(SMALL) as spool:
            size = await self._content(spool, self.data_size_limit or 0)
            if size is None:
                await self.push(
                    f"552 5.3.4 the mail is larger than {self.data_size_limit} bytes, which this host takes"
                )
            else:
                self._reset_timeout()
                self.storing = True
                try:
                    async with self.host.large if size > SMALL else nullcontext():
                        spool.seek(0)
                        await self.push(await self.host.take(self, _unstuffed(spool.read())))
                finally:
                    self.storing = False
        self._set_post_data_state()  # type: ignore[no-untyped-call]  # aiosmtpd's

    async def _content(self, spool: IO[bytes], limit: int) -> int | None:
        """Write what comes before the dot, dots still stuffed; its size, or None where it is too large. The reader's buffer holds less than
        a line of the end of data, so chunks are taken as they come."""
        size, end = 0, b"\r\n"  # before the first line: a dot may be all there is
        while True:
            chunk = await self._line()
            if end == b"\r\n" and chunk == b".\r\n":
                return size if size <= limit else None
            size, end = size + len(chunk), (end + chunk)[-2:]  # enough to know where a line begins
            if size <= limit:
                spool.write(chunk)
            elif size > _WASTE * limit:
                self.end("552 5.3.4 too much data")
                raise asyncio.CancelledError  # as aiosmtpd ends a session

    async def _line(self) -> bytes:
        """Up to a CRLF, or a part of a line that is longer than the reader's buffer."""
        try:
            return await self._reader.readuntil(b"\r\n")
        except asyncio.LimitOverrunError as error:
            return await self._reader.readexactly(error.consumed)


def _unstuffed(raw: bytes) -> bytes:
    """RFC 5321 4.5.2."""
    if raw.startswith(b"."):
        raw = raw[1:]
    return raw.replace(b"\r\n.", b"\r\n") if b"\r\n." in raw else raw
