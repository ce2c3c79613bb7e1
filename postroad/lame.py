"""Lame hosts: the addresses that took no connection a moment ago, which the next message need not find out again.

RFC 5321 5.1 lets a client go on to the next host; this is what makes it cheap. Postfix keeps the same in its "dead hosts".
"""

from collections import OrderedDict
from typing import NamedTuple

FIRST_S = 60.0  # the first pause: a host that restarts is soon used again
SIZE = 20_000  # addresses remembered


class _Pause(NamedTuple):
    until: float
    length: float


class Lame:
    """Which addresses a source does without, and until when. Times in seconds of one clock, the caller's.

    By source too: a host may well block one address of ours and take the others. A pause doubles each time it was not long
    enough, up to `kept_s`; what took mail is forgotten, and so is what was not asked for `kept_s` after its pause. Where every
    address of a site is lame, try them all the same: it is a memory, not a verdict.
    """

    def __init__(self, kept_s: float = 1800, first_s: float = FIRST_S, size: int = SIZE) -> None:
        self._first_s, self._kept_s, self._size = min(first_s, kept_s), kept_s, size
        self._pauses: OrderedDict[tuple[str, str], _Pause] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pauses)

    def note(self, source: str, address: str, now: float) -> None:
        """It did not take a connection; within a pause that is no news: connections begun together fail together."""
        key = (source, address)
        before = self._pauses.get(key)
        if before is not None and now < before.until:
            return
        remembered = before is not None and now < before.until + self._kept_s
        length = min(2 * before.length, self._kept_s) if before is not None and remembered else self._first_s
        self._pauses[key] = _Pause(now + length, length)
        self._pauses.move_to_end(key)
        if len(self._pauses) > self._size:
            self._pauses.popitem(last=False)

    def is_lame(self, source: str, address: str, now: float) -> bool:
        """Whether to go on to the next address."""
        pause = self._pauses.get((source, address))
        return pause is not None and now < pause.until

    def forget(self, source: str, address: str) -> None:
        """It took a connection."""
        self._pauses.pop((source, address), None)
