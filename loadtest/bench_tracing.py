"""What tracing costs, in CPU of a worker.

Without arguments, in this process and without Kafka: handlers of a pure stage over records in memory, with tracing off, on where nothing is
traced, and on where all is, with spans made, encoded and sent to a collector that is another process. From these follows the cost at 1 %.
With --road N: N turns of a whole stack with off, 1 % and 20 %, each sending the messages of bench-capacity. The difference at 1 % is smaller than
what two turns differ by anyway, so it is worked out of the one at 20 %.
Last line: RESULT. Exit status 1 when a limit of `MUSTS` is broken, unless --report-only.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from types import SimpleNamespace

from agents.application import build
from deploy.local import ROOT
from loadtest.bench_capacity import Sample, measured, rsa_only, watch, write
from loadtest.bench_latency import finish
from loadtest.collector import Collector
from loadtest.demo import tenants
from loadtest.demo.many_sites import many_sites
from loadtest.demo.road import Road, stop_on_signals
from loadtest.engine.stages import SCHEMA, SOURCE, TARGET
from loadtest.engine.stages import record as event
from topics.codec import Codec
from topics.installation import Installation
from topics.outputs import Outputs
from topics.pure import StageRunner
from topics.stage import Stage
from topics.trace import HEADER, Sampling
from topics.tracing import Tracing, otlp

RATES = (0.0, 0.01, 0.2)  # 0: off. The last one is for the cost of a traced message
MUST_PERCENT = 2.0  # of a worker's CPU, at 1 %
ROAD_MS = 2.29  # CPU of a worker of all stages a message (docs/planning.md)
HOPS, SPANS = 26, 26  # of a message that is delivered at once: records that stages read, and spans where it is traced
RECORDS, TURNS = 500, 12


def turn(rate: float, messages: int, sites: int) -> tuple[float, int]:
    """CPU ms per message of a worker, and spans that the collector got."""
    with (
        Collector() as collector,
        tempfile.TemporaryDirectory(prefix="bench-tracing-") as scratch,
        many_sites(Path(scratch) / "farm", sites) as farm,
    ):
        traced = {"tracing_endpoint": collector.url, "trace_sample": {"default": rate}} if rate else {}
        with Road(Path(scratch) / "road", traced, farm) as road:
            road.cli("tenants", "apply", str(rsa_only(tenants.write(road.folder, farm.folder))))
            samples = asyncio.run(_load(road, messages, sites))
            times = [receipt.time for receipt in farm.receipts.answered()]
        return measured(samples, times)["cpu_ms_per_message"], len(collector.spans)


async def _load(road: Road, messages: int, sites: int) -> list[Sample]:
    samples, _ = await asyncio.gather(watch(road, messages), write(road, messages, sites))
    return samples


def in_process() -> dict[str, float]:
    """CPU us of a record: `off`, `looked_at` (on, and not traced), `traced`."""
    codec, stage = Codec(SCHEMA), Stage("s", reads=[SOURCE], writes=[TARGET])
    stage.on(SOURCE)(lambda value, state: TARGET.send(value))
    found: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="bench-tracing-") as scratch, collector_process() as url:
        tracing = Tracing(otlp(url), Sampling({}), ())
        app = build(stage, Installation("127.0.0.1:1", partitions=1, data_dir=Path(scratch)))
        runner, wiring = app.runner, app.runner.wiring
        assert isinstance(runner, StageRunner)
        runner.outputs = lambda: Outputs(None, wiring.partitions, wiring.max_bytes)  # type: ignore[method-assign]  # no broker
        tracer = tracing.of("s")
        plain, traced = ((("tenant", b"acme"),), ((HEADER, b"00-" + b"1" * 32 + b"-" + b"1" * 16 + b"-01"),))
        kinds = [("off", None, plain), ("looked_at", tracer, plain), ("traced", tracer, traced)]
        for number in range(TURNS + 1):
            # those that are compared to a tenth of a microsecond have no spans before them, which leave work for the garbage collector
            kinds = [kinds[1], kinds[0], kinds[2]]
            for what, one, headers in kinds * 2 if number % 2 else kinds[:2] * 3:
                records = [SimpleNamespace(topic=SOURCE.name, partition=0, offset=n, timestamp=5, key=b"k", value=codec.encode(event(n)),
                                           headers=headers) for n in range(RECORDS)]  # fmt: skip
                runner.tracer = one
                began = time.process_time()
                _, _, _, outputs = runner._compute(records, {}, 0, {})
                if outputs.spans:
                    tracer.end(outputs.spans)
                    tracing.processor.force_flush()
                if number:  # the first one warms up
                    found[what].append((time.process_time() - began) / RECORDS * 1e6)
        tracing.close()
    return {what: median(values) for what, values in found.items()}


@contextmanager
def collector_process() -> Iterator[str]:
    """The URL of a collector whose CPU is not ours."""
    program = "import time\nfrom loadtest.collector import Collector\nwith Collector() as c:\n print(c.url, flush=True)\n time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def on_the_road(rounds: int, messages: int, sites: int) -> dict[str, float]:
    """CPU ms of a worker for a message, median over the rounds."""
    found: dict[float, list[float]] = defaultdict(list)
    for number in range(rounds):
        for rate in RATES:
            ms, spans = turn(rate, messages, sites)
            found[rate].append(ms)
            print(f"round {number + 1}, rate {rate:4}: {ms:.2f} ms CPU a message, {spans} spans", flush=True)
    off, low, high = (median(found[rate]) for rate in RATES)
    return {
        "off_ms": round(off, 3), "one_percent_ms": round(low, 3), "high_ms": round(high, 3),
        "percent_at_1": round((high - off) / RATES[2] / off, 2), "spread_off": round((max(found[0.0]) - min(found[0.0])) / off, 3),
    }  # fmt: skip


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--road", type=int, default=0, metavar="N", help="so many turns of a whole stack")
    parser.add_argument("--messages", type=int, default=4_000)
    parser.add_argument("--sites", type=int, default=20)
    parser.add_argument("--report-only", action="store_true", help="exit 0 whatever the figures are")
    options = parser.parse_args()
    os.chdir(ROOT)
    stop_on_signals()
    if options.road:
        result = on_the_road(options.road, options.messages, options.sites)
    else:
        us = in_process()
        look, span = us["looked_at"] - us["off"], us["traced"] - us["off"]
        added = HOPS * look + SPANS * span / 100
        result = {
            "off_us": round(us["off"], 2), "look_us": round(look, 2), "span_us": round(span, 1), "added_us": round(added, 1),
            "percent_at_1": round(added / ROAD_MS / 10, 2),
        }  # fmt: skip
    must = {"percent_at_1": (result["percent_at_1"] <= MUST_PERCENT, f"at most {MUST_PERCENT:g}")}
    return finish(result, must, options.report_only)


if __name__ == "__main__":
    sys.exit(main())
