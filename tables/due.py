"""schedule: messages that wait, in the order of their time.

`due`: key = time in ms (8 bytes, big-endian), message id; value = the Scheduled record as Avro. `waiting`: message id -> its
round and time, to find an entry for an operator's decision and to know a repeat. A message without a time has the last one.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from avro.records import Scheduled
from topics.codec import Codec
from topics.state import Table

NEVER = (1 << 63) - 1
_place = struct.Struct(">iq")
_codec = Codec("Scheduled")


class Waiting(NamedTuple):
    """Where a message waits: its round, and the time in ms under which it is kept."""

    round: int
    due_at: int


DUE: Table[Scheduled] = Table(1, "due", _codec.encode, _codec.decode)
WAITING: Table[Waiting] = Table(
    2, "waiting", lambda place: _place.pack(*place), lambda raw: Waiting(*_place.unpack(raw))
)


def key(due_at: int, message_id: str) -> bytes:
    """Key in `due`: sorts by time."""
    return due_at.to_bytes(8, "big") + message_id.encode()


def due_at(key: bytes) -> int:
    """The time inside a key of `due`."""
    return int.from_bytes(key[:8], "big")
