"""When a notification is tried again, and when an endpoint rests: plain numbers, ms."""

from __future__ import annotations

import random

SECOND, MINUTE, HOUR = 1000, 60_000, 3_600_000
TRIED_FOR_MS = 72 * HOUR
# As Standard Webhooks has it, and on to three days; the last repeats.
DELAYS_MS = (5 * SECOND, 30 * SECOND, 2 * MINUTE, 10 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR, 8 * HOUR)
JITTER = 0.2
FAILURES_OPEN = 5  # in a row, until its circuit is open
OPEN_MS, OPEN_MAX_MS = 5 * SECOND, 5 * MINUTE  # the first rest, and the longest: each is twice the one before


def next_try(attempt: int, now: int, retry_after_ms: int = 0) -> int:
    """The time (ms) after a try that failed, the `attempt`th; no earlier than the endpoint has asked for, as far as an hour."""
    delay = DELAYS_MS[min(attempt, len(DELAYS_MS)) - 1]
    return now + max(_varied(delay), min(retry_after_ms, HOUR))


def rest(opened: int) -> int:
    """How long (ms) the circuit of an endpoint stays open that was opened so many times without a success between."""
    return _varied(min(OPEN_MS << min(opened, 16), OPEN_MAX_MS))


def _varied(delay: int) -> int:
    return round(delay * random.uniform(1 - JITTER, 1 + JITTER))
