"""When a deferred message is tried again: growing pauses with jitter, and sooner after greylisting."""

import hashlib
from dataclasses import dataclass

# RFC 5321 4.5.4.1 asks for 30 minutes and more, after two quick tries in the first hour; senders of today start at
# 5 minutes (Postfix minimal_backoff_time, Exim 15 m) because most deferrals are greylisting or a rate limit.
DELAYS_S = (300, 900, 3_600, 7_200, 14_400)
# Greylisting opens after 1 minute (Exim recipes), 5 (postgrey's default) or, rarely, 10 to 15.
GREYLIST_S = (60, 270, 600)
JITTER = 0.1  # a tenth either way spreads a thousand messages of one minute over another

PUT_OFF_MS = 1_000  # the first time: most of what was not there in time is there then


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """Pauses in seconds after the first, second, ... attempt; the last is repeated until the message expires."""

    delays_s: tuple[float, ...] = DELAYS_S
    jitter: float = JITTER
    greylist_s: tuple[float, ...] = GREYLIST_S

    def __post_init__(self) -> None:
        if not self.delays_s or min((*self.delays_s, *self.greylist_s)) <= 0:
            raise ValueError("a retry schedule needs at least one pause, each above 0 seconds")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"jitter is a share of the pause from 0 to below 1, not {self.jitter}")


DEFAULT = RetrySchedule()


def put_off(now_ms: int, round: int, expires_at: int) -> int:
    """When a message goes on that something outside (DNS, the content store) has not let pass: after 1 s at first, twice
    as long each round, at most some 4 minutes, and not after it expires."""
    return min(now_ms + (PUT_OFF_MS << min(round, 8)), expires_at)


def next_try(
    now_ms: int, attempt: int, message_id: str, schedule: RetrySchedule = DEFAULT, greylisted: bool = False
) -> int:
    """When to try again (ms UTC) after failed attempt number `attempt`, the first being 1.

    The jitter comes from message id and attempt, so a replayed record comes to the same time. The caller compares the
    result with the message's expires_at.
    """
    tried = max(attempt, 1)
    if greylisted and tried <= len(schedule.greylist_s):
        delay_s = schedule.greylist_s[tried - 1]
    else:
        delay_s = schedule.delays_s[min(tried, len(schedule.delays_s)) - 1]
    digest = hashlib.blake2b(f"{message_id}:{tried}".encode(), digest_size=8, person=b"retry").digest()
    spread = int.from_bytes(digest, "big") / 2**63 - 1  # from -1 to 1
    return now_ms + round(delay_s * 1000 * (1 + schedule.jitter * spread))
