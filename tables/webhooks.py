"""notify: what waits for each endpoint, in the order of its time.

`notices`: key = webhook id, NUL, time in ms (8 bytes, big-endian), notification id; value = the Notification as Avro. Of an endpoint that
is dead a million wait here, and nobody else's are looked for among them. `endpoints`: webhook id -> Standing, while something waits or
the endpoint fails.
"""

from __future__ import annotations

from typing import NamedTuple

from avro.records import Notification
from tables.due import NEVER
from tables.values import packed
from topics.codec import Codec
from topics.state import Table, View


async def _by_the_runner() -> None:
    """As in tables/due.py: what the runner's codecs learn all know."""


_codec = Codec("Notification", look=_by_the_runner)


class Standing(NamedTuple):
    """`first`: ms, at or before the first of `notices`, NEVER where there is none; `failing_since`: ms, 0 where the last try was taken."""

    first: int
    failing_since: int = 0


IDLE = Standing(NEVER)
NOTICES: Table[Notification] = Table(1, "notices", _codec.encode, _codec.decode, cached=False)
ENDPOINTS: Table[Standing] = Table(2, "endpoints", *packed(Standing, ">qq"))


def key(webhook_id: str, due_at: int, notification_id: str = "") -> bytes:
    """Key in `notices`: sorts by endpoint, then by time."""
    return webhook_id.encode() + b"\0" + due_at.to_bytes(8, "big") + notification_id.encode()


def due_at(webhook_id: str, key: bytes) -> int:
    """The time inside a key of `notices`."""
    start = len(webhook_id.encode()) + 1
    return int.from_bytes(key[start : start + 8], "big")


def put(notice: Notification, at: int, state: View) -> None:
    """It waits until `at` (ms)."""
    webhook_id = notice["webhook_id"]
    state.notices.put(key(webhook_id, at, notice["notification_id"]), notice)
    standing: Standing = state.endpoints.get(webhook_id) or IDLE
    if at < standing.first:
        state.endpoints.put(webhook_id, standing._replace(first=at))


def waiting(webhook_id: str, standing: Standing, limit: int, state: View) -> list[tuple[bytes, Notification]]:
    """The first so many that wait for an endpoint, due or not; keeps `first`, and what is over. A call that finds fewer than there are
    (topics/pure.py) has found one at least, where there is one."""
    rows = state.notices.scan(key(webhook_id, min(standing.first, NEVER)), limit=limit)
    prefix = webhook_id.encode() + b"\0"
    found = [(place, notice) for place, notice in rows if place.startswith(prefix)]
    first = due_at(webhook_id, found[0][0]) if found else NEVER
    if not found and not standing.failing_since:
        state.endpoints.delete(webhook_id)
    elif first != standing.first:
        state.endpoints.put(webhook_id, standing._replace(first=first))
    return found
