"""One connection of HTTP/1.1: uvicorn's protocol with bounds on what it keeps before anybody knows who calls.

httptools collects a header, a request line or a trailer of any length, and uvicorn waits for the end of a head for ever: a client without
a key could fill the memory, or all descriptors.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_MAX = 64 << 10  # bytes of a request line and its headers, or of trailers
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Connection(HttpToolsProtocol):
    """`head_s`: a head that is not whole after so long, from its first byte or from the connection, ends the connection."""

    head_s = 30.0
    _unread = 0  # bytes since the last end of a head, piece of a body, or end of a request
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._late = self.loop.call_later(self.head_s, self._end, _TOO_SLOW)

    def connection_lost(self, exc: Exception | None) -> None:
        self._progress()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unread += len(data)
        super().data_received(data)
        if self._unread > HEAD_MAX:
            self._end(_TOO_LARGE)
        elif self._unread and self._late is None:
            self._late = self.loop.call_later(self.head_s, self._end, _TOO_SLOW)

    def on_headers_complete(self) -> None:
        self._progress()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._progress()
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._progress()
        super().on_message_complete()

    def _progress(self) -> None:
        self._unread = 0
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _end(self, answer: bytes) -> None:
        self._progress()
        if not self.transport.is_closing():
            if self.cycle is None or self.cycle.response_complete:  # not into the middle of another answer
                self.transport.write(answer)
            self.transport.close()


def within(head_s: float) -> type[Connection]:
    """Connections whose heads are whole within so many seconds, as uvicorn takes them."""
    return type("Connection", (Connection,), {"head_s": head_s})
