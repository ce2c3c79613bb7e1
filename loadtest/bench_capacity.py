"""How many messages a second the whole road carries: 2 KB each, DKIM by RSA-2048, default settings, everything on one machine.

    python -m loadtest.bench_capacity [--messages 20000] [--sites 20] [--report-only]

The rate is the farm's, between the first tenth and the last tenth of its receipts, so neither the start nor the tail counts. CPU is all
that worker and broker use from the first submission until they rest: what lags behind the mail, such as the audit, counts.
Last line: RESULT. Exit status 1 when a limit of `MUSTS` is broken, unless --report-only.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from deploy.local import ROOT
from deploy.local.child import cpu_s
from loadtest.bench_latency import finish, submission
from loadtest.demo import tenants
from loadtest.demo.many_sites import many_sites
from loadtest.demo.road import Road, stop_on_signals
from topics.catalogue import SUBMISSIONS
from topics.client import Client

MUST_PER_S = 300.0
TEXT_BYTES = 1350  # with headers, and two lines of signature, 2 KB on the wire
AT_ONCE = 200
LOOK_S = 0.5
STALLED_S = 30.0
REST_S, RESTS = 2.0, 0.2  # seconds, and the part of a core that worker and broker use in them at most when they rest


class Sample(NamedTuple):
    """Monotonic seconds, mails at the farm, CPU seconds of worker and broker so far."""

    at: float
    mails: int
    worker: float
    broker: float


async def write(road: Road, messages: int, sites: int) -> None:
    """All submissions, as fast as Kafka takes them."""
    async with Client(road.installation) as client:
        for start in range(0, messages, AT_ONCE):
            numbers = range(start, min(start + AT_ONCE, messages))
            await asyncio.gather(
                *(client.send(SUBMISSIONS.send(submission(n, f"d{n % sites}.test", TEXT_BYTES))) for n in numbers)
            )


async def watch(road: Road, messages: int) -> list[Sample]:
    """Samples until all have arrived. Raises TimeoutError when nothing comes any more."""
    samples, moved = [Sample(time.monotonic(), 0, cpu_s(road.worker_pid), cpu_s(road.broker_pid))], time.monotonic()
    while samples[-1].mails < messages:
        await asyncio.sleep(LOOK_S)
        now = Sample(time.monotonic(), len(road.farm.receipts), cpu_s(road.worker_pid), cpu_s(road.broker_pid))
        if now.mails > samples[-1].mails:
            moved = now.at
        if now.at - moved > STALLED_S:
            raise TimeoutError(f"{now.mails:,} of {messages:,} mails arrived, then none for {STALLED_S:g} s")
        samples.append(now)
    while True:
        await asyncio.sleep(REST_S)
        now = Sample(time.monotonic(), len(road.farm.receipts), cpu_s(road.worker_pid), cpu_s(road.broker_pid))
        used = now.worker + now.broker - samples[-1].worker - samples[-1].broker
        samples.append(now)
        if used < RESTS * REST_S:
            return samples


def measured(samples: Sequence[Sample], times_ms: Sequence[int]) -> dict[str, float]:
    """The figures, from samples and the farm's times of receipt."""
    ordered, n = sorted(times_ms), len(times_ms)
    first, last = ordered[n // 10], ordered[n * 9 // 10]
    begin, end = samples[0], samples[-1]
    return {
        "messages_per_s": round((n * 9 // 10 - n // 10) / max(0.001, (last - first) / 1000), 1),
        "cpu_ms_per_message": round((end.worker - begin.worker) * 1000 / n, 2),
        "broker_cpu_ms_per_message": round((end.broker - begin.broker) * 1000 / n, 2),
    }


def rsa_only(path: Path) -> Path:
    """The demo's tenants with their RSA keys alone."""
    loaded = yaml.safe_load(path.read_text("utf-8"))
    for tenant in loaded:
        for domain in tenant["domains"]:
            domain["dkim"] = [key for key in domain["dkim"] if key["algorithm"] == "rsa"]
    path.write_text(yaml.safe_dump(loaded, allow_unicode=True), "utf-8")
    return path


async def _measure(road: Road, messages: int, sites: int) -> list[Sample]:
    samples, _ = await asyncio.gather(watch(road, messages), write(road, messages, sites))
    return samples


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--sites", type=int, default=20)
    parser.add_argument("--report-only", action="store_true", help="exit 0 whatever the figures are")
    options = parser.parse_args()
    os.chdir(ROOT)
    stop_on_signals()
    with (
        tempfile.TemporaryDirectory(prefix="bench-capacity-") as scratch,
        many_sites(Path(scratch) / "farm", options.sites) as farm,
        Road(Path(scratch) / "road", farm=farm) as road,
    ):
        road.cli("tenants", "apply", str(rsa_only(tenants.write(road.folder, farm.folder))))
        samples = asyncio.run(_measure(road, options.messages, options.sites))
        receipts = farm.receipts.answered()
        median = sorted(receipt.size for receipt in receipts)[len(receipts) // 2]
        print(f"{len(receipts):,} mails, median {median:,} bytes, {samples[-1].at - samples[0].at:.1f} s in all")
        result = measured(samples, [receipt.time for receipt in receipts])
    must = {"messages_per_s": (result["messages_per_s"] >= MUST_PER_S, f"at least {MUST_PER_S:g}")}
    return finish(result, must, options.report_only)


if __name__ == "__main__":
    sys.exit(main())
