"""What a client without a key can keep in memory, or open, of a process."""

import asyncio
import socket
from contextlib import asynccontextmanager, nullcontext
from types import SimpleNamespace

import pytest
import uvicorn

from gateway.api import bodies
from gateway.api.connection import HEAD_MAX, within
from gateway.api.problems import Problem

POST = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


async def _app(scope, receive, send):
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    body = str(size).encode()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]}
    )
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def _served(head_s=30.0):
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(_app, http=within(head_s), ws="none", lifespan="off", log_level="critical"))
    server.capture_signals = lambda: nullcontext()
    serving = asyncio.create_task(server.serve([listening]))
    try:
        yield listening.getsockname()
    finally:
        server.should_exit = True
        await serving


async def _talk(address, *pieces):
    """What is answered until the other side closes."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        async with asyncio.timeout(5):
            return await reader.read()
    except ConnectionError:  # closed while we wrote
        return b"reset"
    finally:
        writer.close()


@pytest.mark.parametrize(
    "head",
    [b"GET / HTTP/1.1\r\nX: ", b"GET /", POST + b"0\r\nX: ", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000],
    ids=["header", "path", "trailer", "headers"],
)
async def test_a_head_without_end_ends_the_connection(head):
    async with _served() as address:
        answer = await _talk(address, head, *(b"x" * HEAD_MAX for _ in range(4)))
        assert answer == b"reset" or b" 431 " in answer or answer == b""


@pytest.mark.parametrize("start", [b"", b"GET / HTTP/1.1\r\nX"], ids=["nothing", "half"])
async def test_a_head_that_does_not_come_ends_the_connection(start):
    async with _served(head_s=0.2) as address:
        assert (await _talk(address, start)).startswith(b"HTTP/1.1 408 ")


async def test_large_bodies_in_small_chunks_pass():
    chunked = b"".join((b"1\r\nx\r\n" * 50_000, b"0\r\n\r\n"))
    async with _served() as address:
        last = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        answer = await _talk(address, POST, chunked, POST, b"100000\r\n", b"x" * (1 << 20), b"\r\n0\r\n\r\n", last)
        assert answer.count(b"HTTP/1.1 200 OK") == 3 and b"50000" in answer and b"1048576" in answer


async def test_a_body_that_comes_drop_by_drop_is_let_go(monkeypatch):
    monkeypatch.setattr(bodies, "SLOW_AFTER_S", 0.05)

    async def stream():
        while True:
            await asyncio.sleep(0.01)
            yield b"x"

    request = SimpleNamespace(headers={}, stream=stream)
    with pytest.raises(Problem, match="bytes came a second") as problem:
        async with asyncio.timeout(5):
            _ = [chunk async for chunk in bodies.chunks(request, 1 << 20, 1.0)]
    assert problem.value.status == 408
