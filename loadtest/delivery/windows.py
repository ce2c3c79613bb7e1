"""Caps against what a farm saw, in every window: pure, from times to violations.

A window of w seconds is any half-open [t, t + w), not one of a clock: that a cap held from full minute to full minute says
nothing about the 60 s around the turn of one. The farm's times are the kernel's, counted in jiffies of up to 10 ms: two events
that were w apart may be told as 10 ms nearer, so windows are checked shorter by that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from loadtest.mxfarm import Connection

JIFFY_S = 0.01


@dataclass(frozen=True, slots=True)
class Caps:
    """What one source may at one site."""

    connections: int
    new_per_minute: int
    per_second: int
    messages_per_connection: int


@dataclass(frozen=True, slots=True)
class Violation:
    """One cap that did not hold: the most that was seen, and when (seconds of the farm's clock)."""

    cap: str
    allowed: int
    seen: int
    at: float

    def __str__(self) -> str:
        return f"{self.cap}: {self.seen} where {self.allowed} may be, at {self.at:.2f} s"


def most_in_window(times: Iterable[float], window_s: float) -> tuple[int, float]:
    """The most events in any half-open window of that length, and when it begins; (0, 0.0) where there is none."""
    ordered, most, at, first = sorted(times), 0, 0.0, 0
    for last, time in enumerate(ordered):
        while time - ordered[first] >= window_s:
            first += 1
        if last - first + 1 > most:
            most, at = last - first + 1, ordered[first]
    return most, at


def most_at_once(intervals: Iterable[tuple[float, float | None]]) -> tuple[int, float]:
    """The most intervals that are open at one moment, and when; an end of None never comes. An interval that begins when another
    ends does not overlap with it."""
    spans = list(intervals)
    changes = [(start, 1) for start, _ in spans]
    changes += [(end, -1) for _, end in spans if end is not None]
    now, most, at = 0, 0, 0.0
    for time, change in sorted(changes):  # ends before beginnings of the same moment
        now += change
        if now > most:
            most, at = now, time
    return most, at


def violations(connections: Sequence[Connection], caps: Caps) -> list[Violation]:
    """Every cap that did not hold for the connections of one source to one site."""
    mails = [time for connection in connections for time in connection.mails]
    spans = [
        # An end may be told late, and a beginning early, by a jiffy
        (connection.opened, None if connection.ended is None else max(connection.opened, connection.ended - JIFFY_S))
        for connection in connections
    ]
    longest = max(connections, key=lambda connection: len(connection.mails), default=None)
    per_connection = (len(longest.mails), longest.opened) if longest else (0, 0.0)
    found = {
        "connections at once": (caps.connections, most_at_once(spans)),
        "new connections in 60 s": (
            caps.new_per_minute, most_in_window((connection.opened for connection in connections), 60 - JIFFY_S)),
        "messages in 1 s": (caps.per_second, most_in_window(mails, 1 - JIFFY_S)),
        "messages on one connection": (caps.messages_per_connection, per_connection),
    }  # fmt: skip
    return [Violation(cap, allowed, seen, at) for cap, (allowed, (seen, at)) in found.items() if seen > allowed]


def by_source(connections: Iterable[Connection]) -> dict[tuple[str, str], list[Connection]]:
    """Connections by (site, source address)."""
    found: dict[tuple[str, str], list[Connection]] = {}
    for connection in connections:
        found.setdefault((connection.site, connection.source), []).append(connection)
    return found


Span = tuple[float, float]


def mean_open(connections: Sequence[Connection], spans: Sequence[Span]) -> float:
    """Connections that were open on average in some spans of time."""
    held = sum(
        max(0.0, min(end if connection.ended is None else connection.ended, end) - max(connection.opened, start))
        for connection in connections
        for start, end in spans
    )
    return held / _length(spans)


def use(connections: Sequence[Connection], caps: Caps, spans: Sequence[Span]) -> float:
    """The share of the cap that is used most, of those over time, in some spans of time: 1.0 is all that may be."""
    seconds = _length(spans)
    opened = _inside([connection.opened for connection in connections], spans)
    mails = _inside([time for connection in connections for time in connection.mails], spans)
    return max(
        mean_open(connections, spans) / caps.connections,
        opened / (seconds / 60 * caps.new_per_minute),
        mails / (seconds * caps.per_second),
    )


def _length(spans: Sequence[Span]) -> float:
    return sum(end - start for start, end in spans)


def _inside(times: Sequence[float], spans: Sequence[Span]) -> int:
    return sum(start <= time < end for time in times for start, end in spans)
