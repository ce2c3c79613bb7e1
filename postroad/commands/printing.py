"""What strangers wrote, printed for an operator: short, and without power over the terminal."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

VALUE_SHOWN = 200  # characters or bytes of a field of a record
ITEMS_SHOWN, FIELDS_SHOWN = 20, 60  # of a list, of a record or a map
DUMPED = 512  # bytes of a record that does not decode


def time_of(ms: int) -> str:
    """UTC to the second; where that is no time of our calendar, the number."""
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).isoformat(" ", "seconds").removesuffix("+00:00")
    except (ValueError, OverflowError, OSError):  # whoever made the letter
        return f"{ms} ms"


def cut(value: Any) -> Any:
    """A value of a record, short enough to be looked at."""
    if isinstance(value, bytes):
        text = value[:VALUE_SHOWN].decode("utf-8", "backslashreplace")
        return text if len(value) <= VALUE_SHOWN else f"{text}... ({len(value):,} bytes)"
    if isinstance(value, str):
        return value if len(value) <= VALUE_SHOWN else f"{value[:VALUE_SHOWN]}... ({len(value):,} characters)"
    if isinstance(value, dict):
        shown = {cut(name): cut(item) for name, item in list(value.items())[:FIELDS_SHOWN]}
        return shown if len(value) <= FIELDS_SHOWN else shown | {"...": f"{len(value):,} entries"}
    if isinstance(value, list):
        shown_items = [cut(item) for item in value[:ITEMS_SHOWN]]
        return shown_items if len(value) <= ITEMS_SHOWN else [*shown_items, f"... ({len(value):,} items)"]
    return value


def dump(raw: bytes) -> list[str]:
    """Its first bytes in hex and as text."""
    lines = []
    for at in range(0, min(len(raw), DUMPED), 16):
        row = raw[at : at + 16]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        lines.append(f"{at:06x}  {row.hex(' '):<47}  {text}")
    return lines + ([f"... {len(raw):,} bytes"] if len(raw) > DUMPED else [])


def safe(text: str) -> str:
    """One line for a terminal, whoever wrote it: what moves the cursor, colours, hides or turns text around is escaped as in
    JSON."""
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] if c != "\x7f" else "\\u007f" for c in text)
