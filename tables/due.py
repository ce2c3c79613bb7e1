"""schedule: messages that wait, in the order of their time.

`due`: key = time in ms (8 bytes, big-endian), message id; value = the Scheduled record as Avro. `waiting`: message id -> its
round and time, to find an entry for an operator's decision and to know a repeat. A message without a time has the last one.
`beginning`: one key, a time at or before the first entry of `due`: what was released leaves tombstones there, which cost time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from avro.records import Scheduled
from tables import traced
from tables.values import packed, to_int
from topics.codec import Codec
from topics.state import Table, View

NEVER = (1 << 63) - 1
GAP_MS = 10_000  # of deleted entries at the beginning of `due`, that no tick is to pass over again


async def _by_the_runner() -> None:
    """The runner asks for the schema of a value through the codecs of its topics; what one learns all know."""


_codec = Codec("Scheduled", look=_by_the_runner)


class Waiting(NamedTuple):
    """Where a message waits: its round, the time in ms under which it is kept, and whether suppress has let it through."""

    round: int
    due_at: int
    cleared: bool = False


DUE: Table[Scheduled] = Table(1, "due", _codec.encode, _codec.decode, cached=False)
WAITING: Table[Waiting] = Table(2, "waiting", *packed(Waiting, ">iq?"), cached=False)
BEGINNING: Table[int] = Table(4, "beginning", to_int, int)


def key(due_at: int, message_id: str) -> bytes:
    """Key in `due`: sorts by time."""
    return due_at.to_bytes(8, "big") + message_id.encode()


def due_at(key: bytes) -> int:
    """The time inside a key of `due`."""
    return int.from_bytes(key[:8], "big")


def keep(entry: Scheduled, until: int, state: View) -> None:
    """It waits until then (ms)."""
    message = entry["message"]
    state.due.put(key(until, message["message_id"]), entry)
    state.waiting.put(message["message_id"], Waiting(message["round"], until, message["cleared"]))
    traced.keep(message, state)


def come(state: View, most: int) -> Iterator[tuple[int, Scheduled]]:
    """The next entries whose time has come, with it, at most so many. Most ticks find none: one is read, then ever more."""
    beginning, n, left = state.beginning.get("") or 0, 1, most
    first = key(beginning, "")
    while left:
        found = state.due.scan(first, limit=n)
        begins = due_at(found[0][0]) if found else NEVER
        if left == most and begins - beginning > GAP_MS:  # orders and decisions delete in any place
            state.beginning.put("", begins)
        for place, entry in found:
            if due_at(place) > state.now:
                return
            yield due_at(place), entry
        if len(found) < n:
            return
        first, left = found[-1][0] + b"\0", left - n
        n = min(4 * n, left)
