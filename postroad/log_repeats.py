"""One thing that goes wrong a thousand times a second is told once, then counted.

Of the lines of one text at one place (before values are filled in) BURST go out in PERIOD_S; so that poison in a topic, or a
broker that is away, floods no log. A line with `extra={"kind": ...}` counts by that kind and goes out once. When the period
is over the last one that was kept back goes out, with `more`: how many there were. Metrics count them all.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass

BURST, PERIOD_S = 10, 10.0
TEXTS_MAX = 1_000  # texts that are counted at a time; a text of more values than that passes
_Key = tuple[str, str, str]


@dataclass(slots=True)
class _Window:
    until: float
    passed: int = 1
    held: int = 0
    last: tuple[logging.LogRecord, Context] | None = None


class Repeats(logging.Filter):
    """A filter of a handler. Held back lines go to the logger that they came from when their period is over."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, period_s: float = PERIOD_S) -> None:
        super().__init__()
        self._clock, self._period_s = clock, period_s
        self._windows: dict[_Key, _Window] = {}
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line goes out now."""
        if hasattr(record, "more"):
            return True
        kind = getattr(record, "kind", "")
        key, now = (record.name, str(record.msg)[:500], str(kind)), self._clock()
        with self._lock:
            window = self._windows.get(key)
            if window is None or (window.until <= now and not window.held):
                if len(self._windows) >= TEXTS_MAX:
                    self._windows = {k: w for k, w in self._windows.items() if w.until > now or w.held}
                if len(self._windows) < TEXTS_MAX:
                    self._windows[key] = _Window(now + self._period_s)
                return True
            if window.until > now and window.passed < (1 if kind else BURST):
                window.passed += 1
                return True
            window.held += 1
            window.last = record, copy_context()  # which names the stage
            if self._timer is None:
                self._timer = threading.Timer(max(0.0, window.until - now), self.tell)
                self._timer.daemon = True
                self._timer.start()
            return False

    def tell(self, all_of_them: bool = False) -> None:
        """Let out what was kept back in periods that are over."""
        with self._lock:
            now, told = self._clock(), list[tuple[logging.LogRecord, Context]]()
            for key, window in list(self._windows.items()):
                if window.last is not None and (all_of_them or window.until <= now):
                    window.last[0].__dict__["more"] = window.held
                    told.append(window.last)
                    self._windows[key] = _Window(now + self._period_s)  # what still comes is counted again
            left = [window.until for window in self._windows.values() if window.last is not None]
            self._timer = None
            if left and not all_of_them:
                self._timer = threading.Timer(max(0.0, min(left) - now), self.tell)
                self._timer.daemon = True
                self._timer.start()
        for record, context in told:
            context.run(logging.getLogger(record.name).handle, record)
