"""Bodies: the one way to what mails contain. Encryption at rest and erasure will fit in here.

Content up to `inline_max` travels inside its record. Anything longer is a blob, named by its SHA-256 and written before
`put` returns, so a record never refers to what is not there yet. Put twice, it is stored once.

The store is a folder, or whatever obstore opens by URL (s3://, gs://, az://). A folder writes a temporary file and
renames it: a killed process leaves the whole blob or none. Nothing is flushed to the disk (no fsync), as Kafka does not
by default either; after a power cut the last seconds may be gone or torn. A torn blob fails its hash: `get` raises
ContentMissing, and `put` of the same content writes it anew. Where a power cut must cost nothing, use an object store.

    ContentError
    +- ContentMissing       for good: no such blob, other bytes than the hash says, or no reference at all
    +- ContentUnavailable   for now: the store does not answer or refuses; try again
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from io import SEEK_END
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import urlsplit
from urllib.request import url2pathname

from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from avro.records import Content, Message

INLINE_MAX = 32 * 1024
CACHE_BYTES = 32 * 1024 * 1024  # holds one mail of the largest size: 1,000 recipients share its blob
TIMEOUT_S = 30.0

_PART = 5 << 20  # bytes of a part of an upload: the least that S3 takes
_FILES = 4  # uploads at a time
_HASH_HERE_MAX = 1024 * 1024  # a larger body is hashed beside the event loop
_REFERENCE = re.compile(r"sha256:([0-9a-f]{64})")  # nothing else is ever looked up: a reference cannot name a path


class ContentError(Exception):
    """A body could not be stored or had."""

    temporary = False


class ContentMissing(ContentError):
    """It is not there, and trying again will not help."""


class ContentUnavailable(ContentError):
    """The store does not answer or refuses; trying again may help."""

    temporary = True


class ContentStore(Protocol):
    """What stages need of a store. Errors: see the module."""

    async def put(self, data: bytes) -> Content: ...
    async def get(self, content: Content) -> bytes: ...
    async def put_blob(self, data: bytes) -> str: ...
    async def get_blob(self, reference: str) -> bytes: ...


class Contents:
    """The store at a URL, or in a folder (created when it is not there). Belongs to one event loop.

    `inline_max`, `cache_bytes`: bytes; `timeout_s`: for one request to the store, retries included.
    """

    def __init__(
        self, url: str, inline_max: int = INLINE_MAX, *, cache_bytes: int = CACHE_BYTES, timeout_s: float = TIMEOUT_S
    ):
        scheme = urlsplit(url).scheme
        if scheme in ("", "file"):
            folder = Path(url2pathname(urlsplit(url).path) if scheme else url)
            self._store: ObjectStore = LocalStore(folder.absolute(), mkdir=True)
        else:
            self._store = from_url(url)
        self.inline_max = inline_max
        self._timeout_s = timeout_s
        self._cache_bytes = cache_bytes
        self._cached = 0
        self._cache: OrderedDict[str, bytes] = OrderedDict()  # by hash; only bytes that have that hash
        self._loading: dict[str, asyncio.Task[bytes]] = {}
        self._files = asyncio.Semaphore(_FILES)

    async def put(self, data: bytes) -> Content:
        """Store a body, or wrap it when it is short. Raises ContentUnavailable."""
        digest = await _sha256(data)
        if len(data) <= self.inline_max:
            return {"hash": digest, "size": len(data), "inline": data, "blob": None}
        await self._keep(digest, data)
        return {"hash": digest, "size": len(data), "inline": None, "blob": f"sha256:{digest}"}

    async def get(self, content: Content) -> bytes:
        """The body, checked against its hash. Raises ContentMissing, ContentUnavailable."""
        inline = content.get("inline")
        if inline is None:
            digest = _digest_of(content.get("blob") or "")
            if digest != content["hash"]:
                raise ContentMissing(f"blob {digest} is not the content {content['hash'][:64]!r}")
            return await self._fetch(digest)
        if await _sha256(inline) != content["hash"]:
            raise ContentMissing(f"inline content is not what its hash {content['hash'][:64]!r} says")
        return inline

    async def put_blob(self, data: bytes) -> str:
        """Store bytes of any length, such as an attachment, and return the reference to them. Raises ContentUnavailable."""
        digest = await _sha256(data)
        await self._keep(digest, data)
        return f"sha256:{digest}"

    async def put_file(self, file: IO[bytes], digest: str) -> str:
        """Store a file, open at its beginning, whose SHA-256 (hex) is known; the reference to it. Memory is bounded, whatever its
        size. Raises ContentUnavailable."""
        path = _path(digest)
        size = file.seek(0, SEEK_END)
        file.seek(0)
        async with self._files:
            if not await self._has(path, digest):
                try:
                    async with asyncio.timeout(self._timeout_s + size / _PART):
                        await self._store.put_async(path, file, chunk_size=_PART, max_concurrency=1)
                except (BaseError, OSError, TimeoutError) as error:
                    raise ContentUnavailable(f"cannot write {path}: {_words(error)}") from error
        return f"sha256:{digest}"

    async def copy(self, reference: str, file: IO[bytes]) -> None:
        """Write a blob of any size into a file. Raises ContentMissing, ContentUnavailable."""
        digest, found = _digest_of(reference), hashlib.sha256()
        path = _path(digest)
        try:
            async for chunk in (await self._store.get_async(path)).stream(min_chunk_size=_PART // 5):
                data = bytes(chunk)
                found.update(data)
                file.write(data)
        except FileNotFoundError:
            raise ContentMissing(f"{path} is not in the content store") from None
        except (BaseError, OSError) as error:
            raise ContentUnavailable(f"cannot read {path}: {_words(error)}") from error
        if found.hexdigest() != digest:
            raise ContentMissing(f"blob {digest}: the store holds other bytes under this name")

    async def _has(self, path: str, digest: str) -> bool:
        """Whether a blob is there, and whole."""
        found = hashlib.sha256()
        try:
            async for chunk in (await self._store.get_async(path)).stream(min_chunk_size=_PART // 5):
                found.update(bytes(chunk))
        except FileNotFoundError:
            return False
        except (BaseError, OSError, TimeoutError) as error:
            raise ContentUnavailable(f"cannot read {path}: {_words(error)}") from error
        return found.hexdigest() == digest

    async def get_blob(self, reference: str) -> bytes:
        """The bytes that `put_blob` gave this reference for. Raises ContentMissing, ContentUnavailable."""
        return await self._fetch(_digest_of(reference))

    async def _keep(self, digest: str, data: bytes) -> None:
        if digest in self._cache:
            self._cache.move_to_end(digest)
            return
        try:
            await self._load(digest)  # reads it: a torn blob of the right name must not pass for the content
        except ContentMissing:
            await self._write(_path(digest), data)
            self._remember(digest, data)

    async def _fetch(self, digest: str) -> bytes:
        cached = self._cache.get(digest)
        if cached is not None:
            self._cache.move_to_end(digest)
            return cached
        return await self._load(digest)

    async def _load(self, digest: str) -> bytes:
        """Read and check a blob; those who ask at the same time share one read."""
        task = self._loading.get(digest)
        if task is None:
            task = self._loading[digest] = asyncio.create_task(self._load_alone(digest))
            task.add_done_callback(lambda done: self._loaded(digest, done))
        try:
            return await asyncio.shield(task)
        finally:
            del task  # its error would hold this frame, and so the caller's body, until the collector comes

    async def _load_alone(self, digest: str) -> bytes:
        data = await self._read(_path(digest))
        if await _sha256(data) != digest:
            raise ContentMissing(f"blob {digest}: the store holds other bytes under this name")
        self._remember(digest, data)
        return data

    def _loaded(self, digest: str, task: asyncio.Task[bytes]) -> None:
        del self._loading[digest]
        if not task.cancelled():
            task.exception()  # seen, also when everyone who asked has gone

    def _remember(self, digest: str, data: bytes) -> None:
        if len(data) > self._cache_bytes or digest in self._cache:
            return
        self._cache[digest] = data
        self._cached += len(data)
        while self._cached > self._cache_bytes:
            self._cached -= len(self._cache.popitem(last=False)[1])

    async def _read(self, path: str) -> bytes:
        try:
            async with asyncio.timeout(self._timeout_s):
                return bytes(await (await self._store.get_async(path)).bytes_async())
        except FileNotFoundError:
            raise ContentMissing(f"{path} is not in the content store") from None
        except (BaseError, OSError, TimeoutError) as error:
            raise ContentUnavailable(f"cannot read {path}: {_words(error)}") from error

    async def _write(self, path: str, data: bytes) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._store.put_async(path, data)
        except (BaseError, OSError, TimeoutError) as error:
            raise ContentUnavailable(f"cannot write {path}: {_words(error)}") from error


class MemoryContents(Contents):
    """A store in memory for tests: `failing = True` makes it unavailable, `written` counts writes, `lose` forgets a blob."""

    def __init__(self, inline_max: int = INLINE_MAX):
        super().__init__("memory:///", inline_max, cache_bytes=0)
        self.failing = False
        self.read = 0
        self.written = 0

    async def lose(self, reference: str) -> None:
        """Forget a blob, as an operator who emptied the bucket."""
        await self._store.delete_async(_path(_digest_of(reference)))

    async def _read(self, path: str) -> bytes:
        if self.failing:
            raise ContentUnavailable(f"cannot read {path}: told to fail")
        self.read += 1
        return await super()._read(path)

    async def _write(self, path: str, data: bytes) -> None:
        if self.failing:
            raise ContentUnavailable(f"cannot write {path}: told to fail")
        self.written += 1
        await super()._write(path, data)


async def each(messages: Iterable[Message], read: Callable[[Message], Awaitable[None]]) -> None:
    """`await read(message)`: of contents inside their records one after another, which waits for nothing, and a task for each
    would cost more than the reading; of blobs together."""
    blobs = []
    for message in messages:
        if message["content"].get("inline") is None:
            blobs.append(message)
        else:
            await read(message)
    await asyncio.gather(*map(read, blobs))


def _digest_of(reference: str) -> str:
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise ContentMissing(f"{reference[:80]!r} is no reference to a blob: it must be sha256: and 64 hex digits")
    return match[1]


def _path(digest: str) -> str:
    return f"blobs/{digest[:2]}/{digest}"  # 256 folders: short listings in a file system


async def _sha256(data: bytes) -> str:
    if len(data) <= _HASH_HERE_MAX:
        return hashlib.sha256(data).hexdigest()
    return (await asyncio.to_thread(hashlib.sha256, data)).hexdigest()


def _words(error: Exception) -> str:
    text = str(error).partition("\n")[0]  # obstore adds a debug dump below
    return f"{type(error).__name__}: {text[:300]}"
