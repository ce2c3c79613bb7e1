"""A client that costs little: requests are made before, of an answer only its status, length and body are looked at."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import NamedTuple

MAIL_BYTES = 2_048


class Answered(NamedTuple):
    """`body`: of the answer; `took_s`: from when it was due."""

    status: int
    body: bytes
    took_s: float


class Connection:
    """One kept connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """(status, body). Raises OSError, EOFError."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            return int(head[9:12]), await reader.readexactly(int(length or 0))
        except (OSError, EOFError, asyncio.IncompleteReadError):
            self.close()
            raise

    def close(self) -> None:
        """Let go."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def request(
    secret: str,
    body: bytes,
    *,
    method: str = "POST",
    path: str = "/v1/send",
    kind: str = "application/json",
    more: str = "",
) -> bytes:
    """The bytes of a request."""
    head = (f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {secret}\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {len(body)}\r\n{more}\r\n")  # fmt: skip
    return head.encode() + body


def mail(number: int) -> bytes:
    """A mail of 2 KB, each to somebody else."""
    made = {"from": "Shop <shop@acme.test>", "to": f"r{number}@there.test", "subject": f"Order {number}", "text": "", "tags": ["order"],
            "metadata": {"order": str(number)}}  # fmt: skip
    made["text"] = "x" * (MAIL_BYTES - len(json.dumps(made)))
    return json.dumps(made).encode()


async def closed(
    ports: list[int], make: Callable[[int], bytes], connections: int, seconds: float
) -> tuple[int, float, list[float]]:
    """As many as go: (how many were answered with 202, seconds, latencies in s)."""
    took, numbers = list[float](), iter(range(1 << 40))
    end = time.perf_counter() + seconds

    async def one(port: int) -> None:
        connection = Connection(port)
        while time.perf_counter() < end:
            began = time.perf_counter()
            status, body = await connection.ask(make(next(numbers)))
            if status != 202:
                raise AssertionError(f"{status}: {body[:500]!r}")
            took.append(time.perf_counter() - began)
        connection.close()

    began = time.perf_counter()
    await asyncio.gather(*(one(ports[n % len(ports)]) for n in range(connections)))
    return len(took), time.perf_counter() - began, took


async def at_rate(
    ports: list[int], make: Callable[[int], bytes], rate: float, seconds: float, connections: int = 200
) -> list[Answered]:
    """So many a second, whether or not those before are answered. What waits for a connection waits on the clock."""
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for n in range(connections):
        free.put_nowait(Connection(ports[n % len(ports)]))
    found: list[Answered] = []
    begin = time.perf_counter()

    async def one(number: int) -> None:
        connection = await free.get()
        try:
            status, body = await connection.ask(make(number))
            found.append(Answered(status, body, time.perf_counter() - begin - number / rate))
        finally:
            free.put_nowait(connection)

    tasks: list[asyncio.Task[None]] = []
    for number in range(int(rate * seconds)):
        if (wait := begin + number / rate - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(one(number)))
    await asyncio.gather(*tasks)
    while not free.empty():
        free.get_nowait().close()
    return found
