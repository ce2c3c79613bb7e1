"""One message alone on an idle `postroad up`: from accepted (Kafka's clock) to the 250 of the farm; and what idling costs.

    python -m loadtest.bench_latency [--messages 40] [--report-only]

Last line: RESULT. Exit status 1 when a limit of `MUSTS` is broken, unless --report-only. No time-outs or delays are
changed: the settings are the default ones.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from avro.records import Submission
from deploy.local import ROOT
from deploy.local.child import cpu_s, rss_mib
from loadtest.demo import tenants
from loadtest.demo.checks import percentile
from loadtest.demo.road import Road, stop_on_signals
from topics.catalogue import SUBMISSIONS
from topics.client import Client

MUSTS = {
    "p50_ms": 150.0,
    "p95_ms": 400.0,
    "idle_percent": 5.0,
    "worker_rss_mb": 600.0,
    "broker_rss_mb": 400.0,
    "ready_s": 20.0,
}
IDLE_S = 20.0
SETTLE_S = 5.0
WARM_UP = 5  # messages that are not counted: connections, caches, first imports
LONGEST_S = 30.0
PAUSE_S = 0.3


def submission(number: int, domain: str = "accept.test", size: int = 1500) -> Submission:
    """A mail of about `size` bytes of text with a recipient of its own."""
    text = f"Message {number}.\n" + "The quick brown fox jumps over the lazy dog.\n" * (size // 45)
    return {
        "tenant": tenants.BOOKS, "submission_id": f"bench-{number}", "sender": {"address": tenants.SENDER[tenants.BOOKS]},
        "recipients": [{"address": f"reader{number}@{domain}"}], "subject": f"Bench {number}", "text": text,
    }  # fmt: skip


async def one_by_one(road: Road, messages: int) -> list[float]:
    """Milliseconds of each message. Raises TimeoutError for one that does not come."""
    found = []
    async with Client(road.installation) as client:
        for number in range(WARM_UP + messages):
            place = await client.send(SUBMISSIONS.send(submission(number)))
            async with asyncio.timeout(LONGEST_S):
                while len(receipts := road.farm.receipts.answered()) <= number:
                    await asyncio.sleep(0.05)
            found.append(float(receipts[-1].time - place.timestamp))
            await asyncio.sleep(PAUSE_S)
    return found[WARM_UP:]


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--messages", type=int, default=40)
    parser.add_argument("--report-only", action="store_true", help="exit 0 whatever the figures are")
    options = parser.parse_args()
    os.chdir(ROOT)
    stop_on_signals()
    with tempfile.TemporaryDirectory(prefix="bench-latency-") as scratch, Road(Path(scratch) / "road") as road:
        road.cli("tenants", "apply", str(tenants.write(road.folder, road.farm.folder)))
        latencies = asyncio.run(one_by_one(road, options.messages))
        time.sleep(SETTLE_S)
        before = cpu_s(road.worker_pid)
        time.sleep(IDLE_S)
        result: dict[str, float] = {
            "p50_ms": percentile(latencies, 0.5), "p95_ms": percentile(latencies, 0.95), "n": len(latencies),
            "idle_percent": round((cpu_s(road.worker_pid) - before) / IDLE_S * 100, 1),
            "worker_rss_mb": round(rss_mib(road.worker_pid)), "broker_rss_mb": round(rss_mib(road.broker_pid)),
            "ready_s": road.ready_s,
        }  # fmt: skip
        print("milliseconds:", " ".join(f"{ms:.0f}" for ms in sorted(latencies)))
    return finish(
        result, {name: (result[name] <= most, f"at most {most:g}") for name, most in MUSTS.items()}, options.report_only
    )


def finish(result: dict[str, float], musts: dict[str, tuple[bool, str]], report_only: bool) -> int:
    """Print what is missed, then the result; returns the exit status."""
    missed = [f"MISSED {name} {result[name]:g}: must be {wanted}" for name, (kept, wanted) in musts.items() if not kept]
    for line in missed:
        print(line)
    print("RESULT", json.dumps(result))
    return 1 if missed and not report_only else 0


if __name__ == "__main__":
    sys.exit(main())
