"""One stage as the harness runs it: `python -m loadtest.chaos.worker STAGE..`, a worker with a clock that can be stepped.

All workers read one offset from a small file that they map, so a step meets every running process at the same moment.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import time
from pathlib import Path

CLOCK_FILE = "CHAOS_CLOCK"  # not POSTROAD_..: an unknown setting ends a worker


class Clock:
    """The wall clock, and an offset in ms that every process which maps `path` sees at once."""

    def __init__(self, path: Path):
        with path.open("a+b") as stream:
            if stream.tell() < 8:
                stream.truncate(8)
            self._map = mmap.mmap(stream.fileno(), 8)
        self._offset = ctypes.c_int64.from_buffer(self._map)  # aligned: written and read as a whole

    @property
    def offset_ms(self) -> int:
        """Ahead of the wall clock by so much, behind it where negative."""
        return self._offset.value

    @offset_ms.setter
    def offset_ms(self, ms: int) -> None:
        self._offset.value = ms

    def __call__(self) -> int:
        """Milliseconds since 1970."""
        return time.time_ns() // 1_000_000 + self._offset.value


def main() -> None:
    """Until SIGTERM; leaves the process."""
    from agents import application, worker

    application.wall_clock = Clock(Path(os.environ[CLOCK_FILE]))
    worker.run(sys.argv[1:])


if __name__ == "__main__":
    main()
