"""The parts of a report: what is for people, what is for programs, and the returned message.

RFC 3462 (multipart/report), RFC 6522, as hosts write it: wrong types, missing boundaries, fields in the text.
"""

import html
import re
from dataclasses import dataclass, field
from functools import cached_property

from postroad.reading import (
    DEPTH_MAX,
    HEADER_MAX,
    LONG_REFERENCE,
    PARTS_MAX,
    decoded,
    decoded_words,
    header_fields,
    parameter,
    split_parts,
)

TEXT_MAX = 32 * 1024  # bytes of each part for people that are looked at
ORIGINAL_MAX = 64 * 1024  # bytes of the returned message; its header is what counts
STATUS_MAX = 256 * 1024  # bytes of all parts for programs
_TEXTS_MAX = 8
_STATUS = ("message/delivery-status", "message/global-delivery-status")
_ORIGINAL = ("message/rfc822", "message/global", "message/partial", "text/rfc822-headers", "text/rfc822-header")
_HIDDEN = re.compile(r"<(style|script|head|title)\b", re.IGNORECASE)
_CLOSE = {name: re.compile(f"</{name}", re.IGNORECASE) for name in ("style", "script", "head", "title")}
_BREAK = re.compile(
    r"<(?:br|/?p|/?div|/?tr|/?td|/?li|/?h\d|/?table|hr|/?blockquote|/?pre)\b[^<>]{0,500}>", re.IGNORECASE
)
_TAG = re.compile(r"</?[a-z!][^<>@]{0,2000}>|<a\s[^<>]{0,2000}>", re.IGNORECASE)
_BOUNDARY = re.compile(rb"\n--([\x21-\x7e][\x20-\x7e]{8,69})(?<!-)\r?\n")
_ISO_2022 = re.compile(rb"\x1b\$[@B]|\x1b\([BJI]")


@dataclass
class Parts:
    """`statuses`: bodies of the message/delivery-status parts; `original`: the returned message, or its header."""

    fields: dict[str, str]
    report_type: str = ""
    statuses: list[bytes] = field(default_factory=list)
    feedback: bytes = b""
    original: bytes = b""
    texts: list[tuple[bytes, dict[str, str]]] = field(default_factory=list)
    pages: list[tuple[bytes, dict[str, str]]] = field(default_factory=list)

    @cached_property
    def text(self) -> str:
        """All parts for people; HTML, without its tags, where no plain text says anything."""
        text = "\n\n".join(_text(body, fields) for body, fields in self.texts)
        if self.pages and ("@" not in text or len(text) < 40):
            text += "\n" + "\n".join(_plain(_text(body, fields)) for body, fields in self.pages)
        return text[: 2 * TEXT_MAX]

    @property
    def subject(self) -> str:
        """The subject with its encoded words decoded."""
        return decoded_words(self.fields.get("subject", ""))


def split(raw: bytes) -> Parts:
    """Take a report apart; any bytes do."""
    fields, _ = header_fields(raw[:HEADER_MAX])
    found = Parts(fields)
    kind = fields.get("content-type", "")
    if "report" in kind.lower():
        found.report_type = parameter(kind, "report-type").strip().lower()
    left = STATUS_MAX
    waiting = [(0, len(raw), 0)]
    for _ in range(PARTS_MAX):
        if not waiting:
            break
        begin, end, depth = waiting.pop()
        fields, body = header_fields(raw[begin : min(end, begin + HEADER_MAX)], begin)
        kind = fields.get("content-type", "text/plain").partition(";")[0].strip().lower()
        if kind.startswith("multipart/"):
            boundary = parameter(fields["content-type"], "boundary")
            inside = split_parts(raw, body, end, boundary) if depth < DEPTH_MAX else []
            if not inside and depth < DEPTH_MAX and (line := _BOUNDARY.search(raw, body - 1, min(end, body + 2_000))):
                inside = split_parts(raw, body, end, line[1].decode("latin-1"))  # the header lost it on the way
            if inside:
                waiting += [(first, last, depth + 1) for first, last in reversed(inside[:PARTS_MAX])]
                continue
            found.texts.append((raw[body : min(end, body + TEXT_MAX)], {}))  # no boundary line: what is there is read
        elif kind in _STATUS:
            found.statuses.append(_bytes(raw[body : min(end, body + left)], fields))
            left = max(0, left - (end - body))
        elif kind == "message/feedback-report":
            found.feedback = found.feedback or _bytes(raw[body : min(end, body + ORIGINAL_MAX)], fields)
        elif kind in _ORIGINAL:
            if depth == 0:  # the mail as a whole is a message: what is inside is the report
                waiting.append((body, end, 1))
            elif not found.original:
                found.original = _bytes(raw[body : min(end, body + ORIGINAL_MAX)], fields)
        elif kind == "text/html":
            if len(found.pages) < _TEXTS_MAX:
                found.pages.append((raw[body : min(end, body + 2 * TEXT_MAX)], fields))
        elif (kind.startswith("text/") or "/" not in kind) and len(found.texts) < _TEXTS_MAX:
            found.texts.append((raw[body : min(end, body + TEXT_MAX)], fields))
    return found


def _plain(page: str) -> str:
    page = _visible(page)
    return html.unescape(LONG_REFERENCE.sub(r"&#\1", _TAG.sub(" ", _BREAK.sub("\n", page))))


def _visible(page: str) -> str:
    kept: list[str] = []
    at, unclosed = 0, set()
    for found in _HIDDEN.finditer(page):
        name = found[1].lower()
        if found.start() < at or name in unclosed:
            continue
        close = _CLOSE[name].search(page, found.end())
        if close is None:
            unclosed.add(name)
            continue
        kept.append(page[at : found.start()])
        at = close.start()
    return " ".join([*kept, page[at:]])


def _text(body: bytes, fields: dict[str, str]) -> str:
    if "charset" not in fields.get("content-type", "").lower() and _ISO_2022.search(body):
        fields = {**fields, "content-type": "text/plain; charset=iso-2022-jp"}
    return decoded(body, fields).replace("\r\n", "\n").replace("\0", " ")


def _bytes(body: bytes, fields: dict[str, str]) -> bytes:
    """A part for programs, its transfer encoding undone (RFC 3464 forbids one, and hosts use them)."""
    encoding = fields.get("content-transfer-encoding", "").strip().lower()
    if encoding not in ("base64", "quoted-printable"):
        return body
    return decoded(body, {"content-transfer-encoding": encoding, "content-type": "text/plain; charset=utf-8"}).encode()
