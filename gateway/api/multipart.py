"""multipart/form-data (RFC 7578) with a message and its files, each file into one of the disk while it comes.

Memory of a form is its JSON and one chunk. Names, headers and the number of parts are bounded; what is against the grammar is a Problem.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated, Any

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from gateway.api.bodies import SMALL, chunks, spooled
from gateway.api.messages import Message
from gateway.api.problems import Problem, of_field
from postroad.checks import ATTACHMENTS_MAX

MESSAGE, FILES = "message", "attachments"
MESSAGE_MAX = 8 << 20  # bytes of the JSON
BOUNDARY_MAX = 70  # RFC 2046 5.1.1


class Form(msgspec.Struct):
    """The parts of a form, for OpenAPI."""

    message: Message
    attachments: list[Annotated[str, msgspec.Meta(extra_json_schema={"format": "binary"})]] = []


@dataclass
class File:
    """A part that is a file. `digest`: SHA-256, hex."""

    name: str
    filename: str
    content_type: str
    content_id: str
    file: IO[bytes]
    size: int = 0
    digest: str = ""
    hash: Any = field(default_factory=hashlib.sha256)


@dataclass
class Received:
    """A form as it came."""

    message: bytes = b""
    files: list[File] = field(default_factory=list)


class _Reader:
    """The parser's calls. A part `message` stays in memory; every other one must be a file of a known name."""

    def __init__(self, folder: Path, names: tuple[str, ...], files_max: int) -> None:
        self.form, self._folder, self._names, self._files_max = Received(), folder, names, files_max
        self._headers: dict[bytes, bytes] = {}
        self._name, self._value = b"", b""
        self._text: bytearray | None = None
        self._file: File | None = None
        self.ended = False

    def callbacks(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in dir(self) if name.startswith("on_")}

    def on_part_begin(self) -> None:
        self._headers, self._text, self._file = {}, None, None

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = _text(options.get(b"name", b""))
        if name == MESSAGE:
            self._text = bytearray()
        elif name not in self._names:
            raise of_field(f"/{name[:80]}", f"no such part: a form has {', '.join((MESSAGE, *self._names))}", kind="wrong-field")  # fmt: skip
        elif len(self.form.files) >= self._files_max:
            raise of_field(f"/{name}", f"at most {self._files_max} files")
        else:
            kind = _text(self._headers.get(b"content-type", b"application/octet-stream"))
            content_id = _text(self._headers.get(b"content-id", b"")).strip().removeprefix("<").removesuffix(">")
            filename = _text(options.get(b"filename", b"")) or "file"
            self._file = File(name, filename, kind, content_id, spooled(self._folder))
            self.form.files.append(self._file)

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        piece = data[start:end]
        if self._text is not None:
            self._text += piece
            if len(self._text) > MESSAGE_MAX:
                raise Problem(413, "too-large", f"the part {MESSAGE} has more than {MESSAGE_MAX:,} bytes")
        elif self._file is not None:
            self._file.file.write(piece)
            self._file.hash.update(piece)
            self._file.size += len(piece)

    def on_part_end(self) -> None:
        if self._text is not None:
            self.form.message = bytes(self._text)
        elif self._file is not None:
            self._file.file.seek(0)
            self._file.digest = self._file.hash.hexdigest()

    def on_end(self) -> None:
        self.ended = True


@asynccontextmanager
async def received(
    request: Request, limit: int, idle_s: float, folder: Path, names: tuple[str, ...] = (FILES,), files_max: int = ATTACHMENTS_MAX
) -> AsyncIterator[Received]:  # fmt: skip
    """The form of a request, whose files are gone afterwards. Raises Problem."""
    _, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= BOUNDARY_MAX:
        raise Problem(400, "not-a-form", "Content-Type names no boundary of 1 to 70 characters")
    reader = _Reader(folder, names, files_max)
    try:
        parser = MultipartParser(boundary, reader.callbacks())  # type: ignore[arg-type]  # a TypedDict of them
        try:
            async for chunk in chunks(request, limit, idle_s):
                for at in range(0, len(chunk), SMALL):
                    parser.write(chunk[at : at + SMALL])
            parser.finalize()
        except (FormParserError, UnicodeError, ValueError) as error:
            raise Problem(400, "not-a-form", f"the form is not written as RFC 7578 has it: {error}") from None
        if not reader.ended:
            raise Problem(400, "not-a-form", "the form stops before its last boundary")
        if not reader.form.message:
            raise of_field(f"/{MESSAGE}", f"the part {MESSAGE} is missing: the mail as JSON")
        yield reader.form
    finally:
        for one in reader.form.files:
            one.file.close()


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
