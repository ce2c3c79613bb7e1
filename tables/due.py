"""schedule: messages that wait, in the order of their time.

`due`: key = time in ms (8 bytes, big-endian), message id; value = the Scheduled record as Avro. `waiting`: message id -> its
round and time, to find an entry for an operator's decision and to know a repeat. A message without a time has the last one.
`beginning`: one key, a time at or before the first entry of `due`: what was released leaves tombstones there, which cost time.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from avro.records import Scheduled
from tables.values import to_int
from topics.codec import Codec
from topics.state import Table

NEVER = (1 << 63) - 1
_place = struct.Struct(">iq?")
_codec = Codec("Scheduled")


class Waiting(NamedTuple):
    """Where a message waits: its round, the time in ms under which it is kept, and whether suppress has let it through."""

    round: int
    due_at: int
    cleared: bool = False


DUE: Table[Scheduled] = Table(1, "due", _codec.encode, _codec.decode, cached=False)
WAITING: Table[Waiting] = Table(
    2,
    "waiting",
    lambda place: _place.pack(*place),
    lambda raw: Waiting(
        *_place.unpack(raw.ljust(_place.size, b"\0"))
    ),  # an entry of an earlier version ends before `cleared`
    cached=False,
)
BEGINNING: Table[int] = Table(4, "beginning", to_int, int)


def key(due_at: int, message_id: str) -> bytes:
    """Key in `due`: sorts by time."""
    return due_at.to_bytes(8, "big") + message_id.encode()


def due_at(key: bytes) -> int:
    """The time inside a key of `due`."""
    return int.from_bytes(key[:8], "big")
