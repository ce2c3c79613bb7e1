"""What a client of the submission door asks for in header fields of its mail, which leave the mail before it is sent.

| field | value |
|---|---|
| X-Postroad-Stream | transactional or broadcast |
| X-Postroad-Tags | labels with commas between them; the field may come more than once |
| X-Postroad-Metadata | a JSON object of texts |
| X-Postroad-Send-At, X-Postroad-Expires-At | RFC 3339, with its offset |
| X-Postroad-Dedupe-Id | text |

RFC 5322 2.2 (fields, folding). How much of each is allowed is said by postroad.checks, for every door.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import NamedTuple, cast

from avro.records import MessageStream
from postroad.keys import STREAMS

_FIELD = re.compile(rb"(?im)^(x-postroad-[!-9;-~]*)[ \t]*:((?:[^\r\n]|\r\n[ \t])*)(?:\r\n|\Z)")
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")
_NAMES = ("stream", "tags", "metadata", "send-at", "expires-at", "dedupe-id")


class BadOrder(ValueError):
    """A field of ours is wrong; the text names it and says what it takes."""


class Orders(NamedTuple):
    """What was asked for. Times are ms."""

    stream: MessageStream = "transactional"
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = {}
    send_at: int | None = None
    expires_at: int | None = None
    dedupe_id: str | None = None


def has_bare_line_end(raw: bytes) -> bool:
    """Whether a CR or LF stands alone: another host may see the end of the mail there."""
    return _BARE.search(raw) is not None


def take(raw: bytes) -> tuple[Orders, bytes]:
    """What a mail (CRLF line ends) asks for, and the mail without the fields that say so. Raises BadOrder."""
    end = 0 if raw.startswith(b"\r\n") else raw.find(b"\r\n\r\n")
    head, rest = (raw, b"") if end < 0 else (raw[: end + 2], raw[end + 2 :]) if end else (b"", raw)
    found: dict[str, list[str]] = {}
    for name, body in _FIELD.findall(head):
        short = name.decode("ascii").lower().removeprefix("x-postroad-")
        if short not in _NAMES:
            raise BadOrder(f"no field X-Postroad-{short[:40]}; known are {', '.join(_NAMES)}")
        found.setdefault(short, []).append(_text(short, body))
    if not found:
        return Orders(), raw
    for short, bodies in found.items():
        if len(bodies) > 1 and short != "tags":
            raise BadOrder(f"X-Postroad-{short} stands there twice; keep one")
    single = {short: bodies[0] for short, bodies in found.items()}
    stream = single.get("stream", "transactional").lower()
    if stream not in STREAMS:
        raise BadOrder(f"X-Postroad-stream wants one of {', '.join(STREAMS)}")
    tags = [tag.strip() for body in found.get("tags", ()) for tag in body.split(",")]
    return Orders(
        cast(MessageStream, stream), tuple(dict.fromkeys(filter(None, tags))), _metadata(single.get("metadata", "{}")),
        _time("send-at", single), _time("expires-at", single), single.get("dedupe-id") or None,
    ), _FIELD.sub(b"", head) + rest  # fmt: skip


def _text(short: str, body: bytes) -> str:
    try:
        return body.replace(b"\r\n", b"").decode("utf-8").strip()
    except UnicodeDecodeError:
        raise BadOrder(f"X-Postroad-{short} wants ASCII or UTF-8") from None


def _metadata(text: str) -> dict[str, str]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise BadOrder('X-Postroad-metadata wants a JSON object of texts, such as {"order": "17"}')
    return value


def _time(short: str, single: dict[str, str]) -> int | None:
    if short not in single:
        return None
    try:
        at = datetime.fromisoformat(single[short])
        if at.tzinfo is not None and at.timestamp() >= 0:
            return int(at.timestamp() * 1000)
    except (ValueError, OverflowError):
        pass
    raise BadOrder(f"X-Postroad-{short} wants a time with its offset, such as 2026-11-23T15:00:00Z")
