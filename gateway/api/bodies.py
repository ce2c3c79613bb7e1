"""Bodies of requests: small ones in memory, large ones in a file, and of those one at a time in memory.

What a client sends counts against the limit while it comes, and one that sends nothing for `api_timeout_s`, or drop by drop, is let go.
"""

from __future__ import annotations

import asyncio
import hashlib
import mmap
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from gateway.api.problems import Problem, of_decoding

SMALL = 256 << 10  # bytes
SLOW_AFTER_S, SLOW_PER_S = 60.0, 1024  # who was waited for so long has sent so many bytes a second, or is let go
T = TypeVar("T")
Buffer = bytes | bytearray | mmap.mmap
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


def json(raw: Buffer, type: Any) -> Any:
    """A body as `type`. Raises Problem."""
    if type not in _decoders:
        _decoders[type] = msgspec.json.Decoder(type)
    try:
        return _decoders[type].decode(raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise of_decoding(error) from None


async def chunks(request: Request, limit: int, idle_s: float) -> AsyncIterator[bytes]:
    """The body as it comes. Raises Problem where it has more than `limit` bytes, or stops coming."""
    too_large = Problem(413, "too-large", f"the body has more than {limit:,} bytes, which this route takes")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise too_large
    size, waited, coming, clock = 0, 0.0, request.stream(), asyncio.get_running_loop().time
    while True:
        since = clock()
        try:
            async with asyncio.timeout(idle_s):
                chunk = await anext(coming)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise Problem(408, "too-slow", f"nothing came for {idle_s:g} s", headers={"Connection": "close"}) from None
        except ClientDisconnect:
            raise Problem(400, "cut-off", "the connection was closed before the body had come") from None
        size, waited = size + len(chunk), waited + clock() - since
        if size > limit:
            raise too_large
        if waited > SLOW_AFTER_S and size < waited * SLOW_PER_S:
            raise Problem(
                408, "too-slow", f"less than {SLOW_PER_S:,} bytes came a second", headers={"Connection": "close"}
            )
        if chunk:
            yield chunk


async def small(request: Request, limit: int, idle_s: float) -> bytes:
    """A body that fits memory. Raises Problem."""
    found = [chunk async for chunk in chunks(request, limit, idle_s)]
    return found[0] if len(found) == 1 else b"".join(found)


def spooled(folder: Path) -> IO[bytes]:
    """A file without a name: it is gone with the process."""
    folder.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryFile(dir=folder, prefix="body-")


@asynccontextmanager
async def decoded(
    request: Request, type: Any, limit: int, idle_s: float, folder: Path, large: asyncio.Semaphore
) -> AsyncIterator[Any]:
    """A JSON body as `type`; while a large one is in use, no other is. Raises Problem."""
    start: list[bytes] = []
    size, file = 0, None
    try:
        async for chunk in chunks(request, limit, idle_s):
            size += len(chunk)
            if file is None and size > SMALL:
                file = spooled(folder)
                file.writelines(start)
                start = []
            if file is None:
                start.append(chunk)
            else:
                file.write(chunk)
        if file is None:
            yield json(start[0] if len(start) == 1 else b"".join(start), type)
            return
        file.flush()
        async with large:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
                found = await asyncio.to_thread(json, raw, type)
            yield found
    finally:
        if file is not None:
            file.close()


@asynccontextmanager
async def hashed(request: Request, limit: int, idle_s: float, folder: Path) -> AsyncIterator[tuple[IO[bytes], str]]:
    """The body in a file, open at its beginning, and its SHA-256 (hex). Raises Problem."""
    found = hashlib.sha256()
    with spooled(folder) as file:
        async for chunk in chunks(request, limit, idle_s):
            file.write(chunk)
            found.update(chunk)
        file.seek(0)
        yield file, found.hexdigest()
