"""Ten times what the road can do, for a minute: does it still accept, does it lose anything, does transactional mail get through?

    make bench-spike [SHORT=1]      # python -m loadtest.bench_spike [--seconds 60] [--times 10] [--short] [--report-only]

The sustainable rate is measured first, by a burst. Then broadcasts come at ten times that rate, and beside them a trickle of transactional
mail of the same tenants. Accepting is Kafka's word that it has a submission, of the trickle too, as a producer waits for it.
`transactional_p95_ms`: accepted to the MX's 250 of those that were accepted during the spike. `drain_s`: from the end of the spike to the last
mail. The short form lasts 10 s. The source may be what limits the spike: `times` says what it came to. Last line: RESULT.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from deploy.local import ROOT
from loadtest import rates
from loadtest.bench_latency import finish
from loadtest.demo.checks import percentile
from loadtest.demo.many_sites import many_sites
from loadtest.demo.road import Road, stop_on_signals
from loadtest.measuring import significant

SITES, BURST, TRICKLE, SHORT_S, PAUSE_S = 40, 3000, 10.0, 10.0, 3.0
ACCEPT_P95_MS = 2000.0


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--times", type=float, default=10.0)
    parser.add_argument("--short", action="store_true", help=f"{SHORT_S:g} s")
    parser.add_argument("--report-only", action="store_true", help="exit 0 whatever the figures are")
    options = parser.parse_args()
    seconds = SHORT_S if options.short else options.seconds
    os.chdir(ROOT)
    stop_on_signals()
    with (
        tempfile.TemporaryDirectory(prefix="bench-spike-") as scratch,
        many_sites(Path(scratch) / "farm", SITES) as farm,
        Road(Path(scratch) / "road", farm=farm) as road,
    ):
        road.cli("tenants", "apply", str(rates.tenants(road.folder)))
        burst = rates.Load(road, "burst", BURST, SITES)
        burst.begin()
        rates.wait(road, BURST)
        burst.end()
        ends = [times[0] for times in rates.arrivals(road).values()]
        sustainable = BURST / ((max(ends) - min(burst.at.values())) / 1000)
        print(f"sustainable: {sustainable:.0f} messages/s", flush=True)
        time.sleep(PAUSE_S)
        rate = sustainable * options.times
        spike = rates.Load(road, "spike", round(rate * seconds), SITES, rate, stream="broadcast")
        trickle = rates.Load(road, "trickle", round(TRICKLE * seconds), SITES, TRICKLE)
        for load in (spike, trickle):
            load.begin()
        for load in (spike, trickle):
            load.end()
        rates.wait(road, BURST + spike.count + trickle.count)
        arrived = rates.arrivals(road)
    began, ended = min(spike.at.values()), max(spike.at.values())
    during = [
        arrived[recipient][0] - at
        for recipient, at in trickle.at.items()
        if recipient in arrived and began <= at <= ended
    ]
    everything = {**burst.at, **spike.at, **trickle.at}
    came = spike.count / ((ended - began) / 1000)
    result = {
        "sustainable_per_s": significant(sustainable), "spike_per_s": significant(came), "times": significant(came / sustainable),
        "seconds": significant((ended - began) / 1000), "messages": len(everything),
        "lost": len(everything.keys() - arrived.keys()), "duplicates": sum(len(times) - 1 for times in arrived.values()),
        "accept_p95_ms": significant(percentile(spike.waits + trickle.waits, 0.95)),
        "transactional_p95_ms": significant(percentile(during, 0.95)), "transactional": len(during),
        "drain_s": significant((max(times[-1] for times in arrived.values()) - ended) / 1000),
    }  # fmt: skip
    must = {
        "accept_p95_ms": (result["accept_p95_ms"] <= ACCEPT_P95_MS, f"at most {ACCEPT_P95_MS:g}"),
        "lost": (result["lost"] == 0, "0"),
    }
    return finish(result, must, options.report_only)


if __name__ == "__main__":
    sys.exit(main())
