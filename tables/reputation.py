"""classify: what is counted of tenants, sender domains, sources and sources at sites (postroad/reputation.py).

`tallies`: subject -> the hour of its last count and what was counted in it, one number. `histories`: subject -> the hours and days
before. So an attempt changes four small values, which a batch writes once each, and a history is touched once an hour.

A record counts once, however often it is read: whoever counts does so with the entry that its decision puts into another table, and
not where that is there already. Subjects without mail for `IDLE_HOURS` go. Of domains and of sources at sites there are `MOST` in a
partition: while half of that is used, those go that had no mail for a day, and the rest that comes has no reputation there.

What has changed is published by `publish`, a tick: bad news at once, all else every half minute. Which subjects those are is known
in memory only; a partition that is new here has all of them published once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

from avro.records import Message
from postroad.reputation import (
    DAYS,
    EMPTY,
    HOUR_MS,
    ONE,
    PACKED_BYTES,
    History,
    What,
    add,
    subjects,
    to_buckets,
)
from topics.catalogue import REPUTATION, Output
from topics.state import Table, View

TICK_SECONDS = 2.0
LATER_MS = 30_000
WALK = 50  # subjects that a tick looks at in its turn
AT_ONCE = 200  # published by a tick
AWAY_MS = 3 * round(TICK_SECONDS * 1000)  # no tick for so long: the partition may have been elsewhere
MOST = 2000  # subjects of a kind that strangers can make many of
IDLE_HOURS = (DAYS + 1) * 24
CROWDED_HOURS = 24
NOW: dict[What, int] = {"delivered": ONE["sent"] + ONE["delivered"], "deferred": ONE["deferred"],
                        "hard": ONE["sent"] + ONE["hard"], "soft": ONE["sent"] + ONE["soft"]}  # fmt: skip
HOUR_AT = (
    8 * PACKED_BYTES
)  # bit of a tally where the hour begins (since 1970), above what was counted in it: postroad.reputation.ONE
COUNTED = (1 << HOUR_AT) - 1
_BYTES = PACKED_BYTES + 4


def _encode(tally: int) -> bytes:
    return tally.to_bytes(_BYTES, "big")


def _decode(raw: bytes) -> int:
    return int.from_bytes(raw[:_BYTES], "big")


TALLIES: Table[int] = Table(3, "tallies", _encode, _decode)
HISTORIES: Table[History] = Table(4, "histories", History.pack, History.unpack, cached=False)


class _Book:
    """What of a partition is to be published: subjects, at once and later. `cursor`: where the walk over all goes on."""

    def __init__(self) -> None:
        self.soon: set[bytes] = set()
        self.later: set[bytes] = set()
        self.later_at = self.ticked_at = 0
        self.cursor, self.is_new = b"", True


_books: WeakKeyDictionary[Any, defaultdict[int, _Book]] = WeakKeyDictionary()  # of the services of a process


def _book(state: View) -> _Book:
    books = _books.get(state.services)
    if books is None:
        books = _books[state.services] = defaultdict(_Book)
    return books[state.partition]


@lru_cache(maxsize=8192)
def _keys(tenant: str, source: str, site: str, sender: str) -> tuple[bytes, ...]:
    return tuple(each.encode(errors="replace") for each in subjects(tenant, source, site, sender))


def tried(state: View, message: Message, outcome: What, at: int, source: str) -> None:
    """An MX has answered an attempt from `source`: delivered, hard, soft, or deferred. `at`: ms."""
    _count(state, message, NOW[outcome], at, source, outcome in ("hard", "soft"))


def count(state: View, message: Message, what: What, at: int, source: str = "") -> None:
    """Feedback on a message that was sent: a late bounce (hard, soft), complained. `source`: else that of its route."""
    _count(state, message, ONE[what], at, source, True)


def _count(state: View, message: Message, step: int, at: int, source: str, is_bad: bool) -> None:
    """What classify does for every attempt: 3 us, most of it four values got and put."""
    route = message["route"]
    site, own = (route["site"], route["source"]) if route else ("", "")
    keys = _keys(message["tenant"], source or own, site, message["sender"])
    now, tallies = state.now, state.tallies
    hour = (at if 0 <= at <= now else now if at > now else 0) // HOUR_MS
    get, put, old = tallies.get, tallies.put, hour << HOUR_AT
    for key in keys:
        tally = get(key)
        if tally is not None and tally >> HOUR_AT == hour:
            put(key, tally + step)
        elif tally is not None:
            _turn(state, key, tally, hour, step)
        elif _has_room(state, key):
            put(key, old + step)
    book = _book(state)
    (book.soon if is_bad else book.later).update(keys)


def _turn(state: View, key: bytes, tally: int, hour: int, step: int) -> None:
    """Another hour than that of the tally: the earlier one of both goes into the history."""
    history: History = state.histories.get(key) or EMPTY
    before = tally >> HOUR_AT
    old = (before, tally & COUNTED) if before < hour else (hour, step)
    state.histories.put(key, add(history, *old, state.now))
    if before < hour:
        state.tallies.put(key, (hour << HOUR_AT) + step)


def _number_of(key: bytes) -> bytes:
    """Where the number of subjects of its kind is kept; empty where that has no bound."""
    kind = key.partition(b":")[0]
    return b"\0" + kind if kind in (b"domain", b"source-site") else b""


def _has_room(state: View, key: bytes) -> bool:
    """Whether there may be one more subject of its kind, which is counted."""
    place = _number_of(key)
    if not place:
        return True
    known: int = state.tallies.get(place) or 0
    if known >= MOST:
        return False
    state.tallies.put(place, known + 1)
    return True


def publish(state: View) -> Iterator[Output]:
    """A tick: what has changed, and some of all subjects: those that are over go; after a pause each is published."""
    book, now = _book(state), state.now
    if not 0 <= now - book.ticked_at <= AWAY_MS:
        book.cursor, book.is_new = b"", True
    book.ticked_at = now
    if not 0 <= now - book.later_at < LATER_MS:
        book.soon |= book.later
        book.later.clear()
        book.later_at = now
    _walk(state, book)
    chosen = [book.soon.pop() for _ in range(min(len(book.soon), AT_ONCE))]
    for key in sorted(chosen):
        if (tally := state.tallies.get(key)) is not None:
            history = add(state.histories.get(key) or EMPTY, tally >> HOUR_AT, tally & COUNTED, now)
            yield REPUTATION.send({
                "subject": key.decode(), "partition": state.partition, "at": now,
                "buckets": to_buckets(history),
            })  # fmt: skip


def _walk(state: View, book: _Book) -> None:
    rows = state.tallies.scan(book.cursor, limit=WALK)
    for key, tally in rows:
        if key.startswith(b"\0"):
            continue
        idle, place = state.now // HOUR_MS - (tally >> HOUR_AT), _number_of(key)
        known = (state.tallies.get(place) or 0) if place else 0
        if idle > IDLE_HOURS or (known > MOST // 2 and idle > CROWDED_HOURS):
            state.tallies.delete(key)
            state.histories.delete(key)
            if place:
                state.tallies.put(place, max(0, known - 1))
        elif book.is_new:
            book.soon.add(key)
    book.cursor = rows[-1][0] + b"\0" if rows else b""
    book.is_new = book.is_new and bool(rows)
