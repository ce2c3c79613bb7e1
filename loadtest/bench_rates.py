"""From accepted (Kafka has the submission) to the 250 of the MX, at steady rates and at half of what the road can do; by hop.

    make bench-latency              # python -m loadtest.bench_rates [--rates 10,100,500] [--seconds 20] [--report-only]

2 KB, one RSA-2048 signature, default settings, 40 sites of the farm, everything on one machine. First as many as go, which is the warm-up
and gives the maximum. By hop: from one stage's record in Kafka to the next one's; send: to the 250. Last line: RESULT.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from deploy.local import ROOT
from loadtest import rates
from loadtest.bench_latency import finish
from loadtest.demo.many_sites import many_sites
from loadtest.demo.road import Road, stop_on_signals
from loadtest.measuring import significant

SITES, BURST, PAUSE_S = 40, 4000, 3.0
MUSTS = {"100/s.p50_ms": 120.0, "100/s.p95_ms": 300.0}  # at most


def measure(road: Road, plan: list[tuple[str, int, float]]) -> list[rates.Load]:
    """Loads one after another, each to its end: name, count, rate."""
    loads, total = [], len(road.farm.receipts)
    for name, count, rate in plan:
        load = rates.Load(road, name, count, SITES, rate)
        load.begin()
        total += count
        rates.wait(road, total)
        load.end()
        loads.append(load)
        time.sleep(PAUSE_S)
    return loads


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rates", default="10,100,500", help="messages a second, comma-separated")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each rate")
    parser.add_argument("--report-only", action="store_true", help="exit 0 whatever the figures are")
    options = parser.parse_args()
    os.chdir(ROOT)
    stop_on_signals()
    with (
        tempfile.TemporaryDirectory(prefix="bench-rates-") as scratch,
        many_sites(Path(scratch) / "farm", SITES) as farm,
        Road(Path(scratch) / "road", farm=farm) as road,
    ):
        road.cli("tenants", "apply", str(rates.tenants(road.folder)))
        (burst,) = measure(road, [("burst", BURST, 0.0)])
        ends = [times[0] for recipient, times in rates.arrivals(road).items() if recipient in burst.at]
        most = significant(BURST / ((max(ends) - min(burst.at.values())) / 1000))
        print(f"maximum {most:g} messages/s", flush=True)
        steady = [*(float(one) for one in options.rates.split(",")), round(most / 2)]
        loads = measure(road, [(f"{rate:g}/s", round(rate * options.seconds), rate) for rate in steady])
        outputs, arrived = asyncio.run(rates.written(road.installation)), rates.arrivals(road)
    result = {"maximum": most, "half": round(most / 2)}
    for load in loads:
        taken = rates.shares(arrived[recipient][0] - at for recipient, at in load.at.items())
        result |= {f"{load.run}.{share}_ms": value for share, value in taken.items()}
        print(f"{load.run}: " + ", ".join(f"{share} {value:g} ms" for share, value in taken.items()) + "; by hop, p50 and p95: "
              + ", ".join(f"{stage} {one['p50']:g} {one['p95']:g}" for stage, one in
                          ((stage, rates.shares(values)) for stage, values in rates.hops(load.at, outputs, arrived).items())))  # fmt: skip
    result["duplicates"] = sum(len(times) - 1 for times in arrived.values())
    must = {name: (result[name] <= limit, f"at most {limit:g}") for name, limit in MUSTS.items() if name in result}
    return finish(result, must, options.report_only)


if __name__ == "__main__":
    sys.exit(main())
