"""A load of so many submissions a second into a running road, and what became of each: for bench-latency and bench-spike.

Times are Kafka's (of the submission, and of each stage's output) and the farm's (its 250), all of one machine's clock.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from analytics.reading import Reader
from loadtest.demo.checks import percentile
from loadtest.demo.road import Road
from loadtest.measuring import significant
from loadtest.peers.systems import Source
from postroad.dkim import generate
from topics.catalogue import ACCEPTED, CLEARED, OUTBOUND, OUTBOUND_BROADCAST, SCORED, VALIDATED, Topic
from topics.installation import Installation

# What each stage of the road writes, in its order; send's end is the farm's 250.
STAGES: tuple[tuple[str, tuple[Topic[Any], ...]], ...] = (
    ("ingest", (ACCEPTED,)), ("validate", (VALIDATED,)), ("score", (SCORED,)), ("suppress", (CLEARED,)),
    ("route", (OUTBOUND, OUTBOUND_BROADCAST)),
)  # fmt: skip
SEND = "send"
SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
TENANTS, SIZE = 4, 1350  # 2 KB on the wire with headers and a signature
LOOK_S, STALLED_S = 0.25, 45.0


def tenants(folder: Path, count: int = TENANTS) -> Path:
    """A file of tenants t0, t1, ... for `postroad tenants apply`, all with one RSA-2048 key."""
    private, _ = generate("rsa")
    (folder / "r1.pem").write_text(private, "ascii")
    key = {"selector": "r1", "algorithm": "rsa", "private_key_file": "r1.pem"}
    path = folder / "tenants.yaml"
    path.write_text(yaml.safe_dump([
        {"tenant": f"t{n}", "name": f"Tenant {n}", "domains": [{"domain": f"t{n}.example", "dkim": [key]}]} for n in range(count)
    ]), "utf-8")  # fmt: skip
    return path


class Load:
    """`count` submissions of a run, one recipient each, to `sites` domains of many_sites; `rate` a second, 0 for all at once."""

    def __init__(
        self, road: Road, run: str, count: int, sites: int, rate: float = 0.0, stream: str = "transactional", size: int = SIZE,
        tenants: int = TENANTS,
    ):  # fmt: skip
        self.run, self.count = run, count
        self._sites = sites
        command = [
            sys.executable,
            "-m",
            "loadtest.peers.source",
            road.installation.bootstrap,
            run,
            str(count),
            str(size),
        ]
        self._source = Source([*command, str(tenants), str(sites), "d{}.test"], road.folder / "source.log", waits=True,
                              environment={"RATE": str(rate), "STREAM": stream})  # fmt: skip
        self.at: dict[str, int] = {}  # by recipient: when Kafka had the submission
        self.waits: list[float] = []  # ms that each waited for Kafka's word: accepted

    def begin(self) -> None:
        """Write, beside what we do."""
        self._source.begin()

    def end(self) -> None:
        """Wait until all are written. Raises RuntimeError."""
        said = json.loads(self._source.end())
        self.waits = said["waits"]
        self.at = {f"{self.run}.{n}@d{n % self._sites}.test": at for n, at in enumerate(said["at"])}


def wait(road: Road, mails: int, stalled_s: float = STALLED_S) -> None:
    """Return when the farm has so many receipts. Raises TimeoutError when none come any more."""
    moved, before = time.monotonic(), -1
    while (now := len(road.farm.receipts)) < mails:
        road.check_running()
        if now != before:
            moved, before = time.monotonic(), now
        if time.monotonic() - moved > stalled_s:
            raise TimeoutError(f"{now:,} of {mails:,} mails arrived, then none for {stalled_s:g} s")
        time.sleep(LOOK_S)


def arrivals(road: Road) -> dict[str, list[int]]:
    """Times of the farm's 250 (ms) by recipient; more than one is a duplicate."""
    found: dict[str, list[int]] = defaultdict(list)
    for receipt in road.farm.receipts.answered():
        found[receipt.recipient].append(receipt.time)
    return found


async def written(installation: Installation) -> dict[str, dict[str, int]]:
    """By recipient: when each stage's first output was in Kafka (ms)."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    async with Reader(installation) as reader:
        for stage, topics in STAGES:
            for topic in topics:
                async for record, message in reader.read(topic):
                    found[message["recipient"]].setdefault(stage, record.timestamp)
    return found


def hops(
    accepted: Mapping[str, int], outputs: Mapping[str, Mapping[str, int]], arrived: Mapping[str, Sequence[int]]
) -> dict[str, list[float]]:
    """Milliseconds by stage, from the output of the one before, the submission or the farm's 250; of messages that have both."""
    taken: dict[str, list[float]] = defaultdict(list)
    for recipient, before in accepted.items():
        times = {**outputs.get(recipient, {}), **({SEND: arrived[recipient][0]} if recipient in arrived else {})}
        for stage in (*(name for name, _ in STAGES), SEND):
            if stage in times:
                taken[stage].append(float(times[stage] - before))
                before = times[stage]
    return taken


def shares(values: Iterable[float]) -> dict[str, float]:
    """p50, p95 and p99."""
    ordered = sorted(values)
    return {name: significant(percentile(ordered, share)) for name, share in SHARES.items()}
