"""How the values of tables are written: JSON for what changes shape with time, struct for what is counted often."""

from __future__ import annotations

import json
import struct
from typing import Any

_number = struct.Struct(">d")


def to_json(value: Any) -> bytes:
    """A value of dictionaries, lists, text and numbers. A later version may add keys: readers use `get`."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def from_json(raw: bytes) -> Any:
    """Back from `to_json`."""
    return json.loads(raw)


def to_number(value: float) -> bytes:
    """A double, big-endian."""
    return _number.pack(value)


def from_number(raw: bytes) -> float:
    """Back from `to_number`."""
    return float(_number.unpack(raw)[0])


def to_int(value: int) -> bytes:
    """A whole number as decimal digits."""
    return b"%d" % value
