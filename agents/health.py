"""Whether a process is alive and ready (agents/endpoint.py tells it), and which version it is of."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version

LOOK_S, LATE_S = 1.0, 10.0  # between two looks; a loop that is later than that is not ready


class Health:
    """How a process is. `parts`: what waits, and for what, asked in its loop; empty when all is ready. `silent_s`: how long the loop may
    stand (topics/stall.py). Before `turn` runs the process begins: alive, and not ready."""

    def __init__(
        self, silent_s: float, parts: Callable[[], Mapping[str, str]], clock: Callable[[], float] = time.monotonic
    ):
        self._silent_s, self._parts, self._clock = silent_s, parts, clock
        self._noted: tuple[float, Mapping[str, str]] | None = None

    def look(self) -> None:
        """Note how it is now."""
        try:
            waits = self._parts()
        except Exception as error:  # whatever is being taken down just then
            waits = {"process": f"cannot be told: {error!r}"}
        self._noted = self._clock(), waits

    async def turn(self) -> None:
        """Look again and again, for ever."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_S)

    def alive(self) -> Mapping[str, str]:
        """Why a supervisor should end it; empty for no reason."""
        silent = 0.0 if self._noted is None else self._clock() - self._noted[0]
        return {"loop": f"has not turned for {silent:.0f} s"} if silent >= self._silent_s else {}

    def ready(self) -> Mapping[str, str]:
        """What it waits for; empty when it works."""
        if self._noted is None:
            return {"process": "starting"}
        at, waits = self._noted
        silent = self._clock() - at
        return {**waits, "loop": f"has not turned for {silent:.0f} s"} if silent >= LATE_S else waits


def about() -> dict[str, str]:
    """Version and build of this process."""
    try:
        own = version("postroad")
    except PackageNotFoundError:
        own = "unknown"
    return {"version": own, "build": os.environ.get("POSTROAD_BUILD", "unknown")}
