"""Memory: a site that is closed, and much mail for it. Musts: send and schedule stay small, and are back soon after a restart."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

from deploy.local.child import rss_mib
from loadtest.chaos.watch import Watch
from loadtest.delivery.rig import REST, Rig, Worker, caps_toml
from loadtest.mxfarm import Behaviour, Host, Site
from topics.catalogue import ENDINGS, OUTBOUND
from topics.client import Client

MESSAGES, SHORT_MESSAGES = 1_000_000, 20_000
PIECE = 20_000  # written before memory is looked at again
MAX_MB, MAX_RESTART_S = 500.0, 30.0
LOOK_S = 0.5
DRAIN_S = 3600.0
SAY_S = 30.0
STALLED_S = 120.0


class Highest:
    """The most memory that workers had, looked at twice a second in a thread, MB by name."""

    def __init__(self, workers: list[Worker]):
        self.workers, self.mb = workers, dict.fromkeys((worker.name for worker in workers), 0.0)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Highest:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(LOOK_S):
            for worker in self.workers:
                if (process := worker.process) is not None:
                    try:
                        self.mb[worker.name] = max(self.mb[worker.name], rss_mib(process.pid))
                    except (OSError, IndexError):  # it has just ended
                        continue


def run(folder: Path, short: bool) -> dict[str, Any]:
    """The figures `waiting`, `send_rss_mb`, `schedule_rss_mb`, `restart_s`, and how many were `written`."""
    messages = SHORT_MESSAGES if short else MESSAGES
    site = Site("closed", (Host("mx.closed.test", "127.0.3.2"),), ("closed.test",), Behaviour(mode="refuse"))
    others = tuple(name for name in REST if name != "schedule")
    # Not what keeps a million waiting: that the site is closed has to be found out first
    caps = {"messages_per_second": 5_000, "new_connections_per_minute": 1_000_000}
    with Rig(folder, [site], shaping=caps_toml({"closed": caps}), rest=others, alone=("schedule",)) as rig:
        workers = [rig.send[0], *rig.alone]
        with Highest(workers) as highest, Watch(rig.installation, ("send", "schedule")) as watch:
            began = time.monotonic()
            for first in range(0, messages, PIECE):
                rig.write(OUTBOUND.send(rig.routed(n, "closed")) for n in range(first, min(first + PIECE, messages)))
                rig.check()
            print(f"  {messages:,} messages written in {time.monotonic() - began:.0f} s")
            on_their_way = _on_their_way(rig, watch, max(100, messages // 50))
            print(f"  all but {on_their_way:,} of them wait after {time.monotonic() - began:.0f} s")
            ended = asyncio.run(_ended(rig))
            if ended:
                print(f"  {ended:,} of them have ended, and should wait")
            for worker in workers:
                worker.stop()
            for worker in workers:
                worker.start()
            took = {
                worker.name: round(worker.wait_ready(), 1) for worker in workers
            }  # the first may hide the second: at most
            rig.sleep(5 * LOOK_S)
    print(f"  restart: {took}; memory at most { ({name: round(mb) for name, mb in highest.mb.items()}) } MB")
    return {
        "waiting": messages - ended - on_their_way, "send_rss_mb": round(highest.mb["send-0"], 1),
        "schedule_rss_mb": round(highest.mb["schedule"], 1), "restart_s": max(took.values()), "written": messages,
    }  # fmt: skip


def _on_their_way(rig: Rig, watch: Watch, few: int) -> int:
    """Wait until `few` records are left in the topics of send and schedule, or it gets no fewer; how many there are. Never none:
    what waits comes back, is tried, and has found the site closed; of a million that is a thousand a second."""
    least, moved, since, said = 1 << 60, time.monotonic(), time.monotonic(), time.monotonic()
    rig.sleep(3 * LOOK_S)
    while time.monotonic() - since < DRAIN_S:
        lag = sum(place.lag for place in list(watch.places.values()))
        if watch.looked_at > since and lag < few:
            return lag
        if lag < least:
            least, moved = lag, time.monotonic()
        elif time.monotonic() - moved > STALLED_S:
            print(f"  {lag:,} records wait in the topics, and get no fewer")
            return lag
        if time.monotonic() - said > SAY_S:
            said = time.monotonic()
            print(f"  {lag:,} records are on their way", flush=True)
        rig.sleep(2 * LOOK_S)
    return lag


async def _ended(rig: Rig) -> int:
    async with Client(rig.installation) as client:
        return sum([1 async for _ in client.read(ENDINGS)])


def broken(result: dict[str, Any]) -> list[str]:
    """The musts that do not hold."""
    found = [f"{name} is {result[name]:g}, at most {MAX_MB:g} MB" for name in ("send_rss_mb", "schedule_rss_mb")
             if result[name] >= MAX_MB]  # fmt: skip
    if result["restart_s"] > MAX_RESTART_S:
        found.append(f"a restart took {result['restart_s']:g} s, at most {MAX_RESTART_S:g}")
    if result["waiting"] < 0.95 * result["written"]:
        found.append(f"{result['waiting']:,} of {result['written']:,} messages have come to rest")
    return found
