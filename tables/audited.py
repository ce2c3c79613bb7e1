"""audit: what is known of each message, and when to look at it again.

`audited`: message id -> its life, and what an alarm says of it; kept for longer than classify remembers ends, so that a second
one is seen. `deadlines`: time in ms (8 bytes, big-endian), message id -> nothing: in the order of time, as in tables/due.py. An
entry is not moved when the deadline does: it is put again when its time comes. `beginning`: a time at or before the first of them.
"""

from __future__ import annotations

import json
import struct
from typing import NamedTuple

from postroad.ledger import PACKED_SIZE, Allowed, Life, unpack
from tables.ended import KEPT_MS as ENDED_KEPT_MS
from tables.values import to_int, to_json
from topics.state import Table

KEPT_MS = ENDED_KEPT_MS + 86_400_000
TEXTS = ("tenant", "stream", "submission_id", "recipient")  # as Event and Message name them
_head = struct.Struct(">Bq?")


class Audited(NamedTuple):
    """`look_at`: time (ms) of the entry in `deadlines`, 0 for none; `stray`: it was told to be one. Texts are empty after an
    end: then nothing more is told of it."""

    life: Life
    look_at: int = 0
    stray: bool = False
    tenant: str = ""
    stream: str = ""
    submission_id: str = ""
    recipient: str = ""

    def next_look(self, allowed: Allowed) -> int:
        """When it may have become an orphan or a stray (ms), 0 for never."""
        if not self.life.accepted:
            return 0 if self.stray else self.life.first_at + allowed.transit_ms
        return 0 if self.life.ends else self.life.deadline


def _encode(known: Audited) -> bytes:
    life, texts = known.life.pack(), known[3:]
    head = _head.pack(len(life), known.look_at, known.stray)
    return head + life + (to_json(texts) if any(texts) else b"")


def _decode(raw: bytes) -> Audited:
    size, look_at, stray = _head.unpack_from(raw)
    end = _head.size + size
    life = raw[_head.size : end].ljust(PACKED_SIZE, b"\0")  # an earlier version's is shorter
    texts = json.loads(raw[end:])[: len(TEXTS)] if len(raw) > end else ()
    return Audited(unpack(life), look_at, stray, *texts)


AUDITED: Table[Audited] = Table(1, "audited", _encode, _decode, expires=True)
DEADLINES: Table[bytes] = Table(2, "deadlines", bytes, bytes, cached=False)
BEGINNING: Table[int] = Table(3, "beginning", to_int, int)
