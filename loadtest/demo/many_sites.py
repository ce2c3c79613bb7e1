"""A farm of many sites that take everything: `python -m loadtest.demo.many_sites FOLDER COUNT`, until SIGTERM.

Domains are d0.test, d1.test, ...: the default rate of one site, 100 messages a second, must not be what is measured.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.local import child
from loadtest.mxfarm import Farm, FarmError, FarmServer, Host, Site
from loadtest.mxfarm.server import READY

FIRST_OCTET = 100  # 127.0.0.100 and up: the sites of sites.py stay below
START_S = 15.0


def sites(count: int) -> tuple[Site, ...]:
    """One host and one domain each."""
    return tuple(
        Site(f"d{n}", (Host(f"mx.d{n}.test", f"127.0.0.{FIRST_OCTET + n}"),), (f"d{n}.test",)) for n in range(count)
    )


@contextmanager
def many_sites(folder: Path, count: int) -> Iterator[Farm]:
    """The farm as a child process. Raises FarmError."""
    folder.mkdir(parents=True)
    log = folder / "farm.log"
    process = child.spawn([sys.executable, "-m", "loadtest.demo.many_sites", str(folder), str(count)], log)
    try:
        deadline = time.monotonic() + START_S
        while not (folder / READY).exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise FarmError(f"the farm did not start:\n{child.tail(log)}")
            time.sleep(0.05)
        yield Farm(folder, process, json.loads((folder / READY).read_text()))
    finally:
        child.stop(process, 5.0)


async def _serve(folder: Path, count: int) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with FarmServer(folder, sites=sites(count)):
        await stopped.wait()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), int(sys.argv[2])))
