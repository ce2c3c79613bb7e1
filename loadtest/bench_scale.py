"""CPU per message, of the whole stack, while one thing grows in steps of ten: backlog, sites, tenants, and so on. Flat lines are wanted.

    make bench-scale [PARTS="tenants size"]      # python -m loadtest.bench_scale [PART ..] [--steps 3] [--report-only]

A stack of its own for each step; 2 KB and one RSA-2048 signature where nothing else is said; into smtp-sink, with a warm-up, CPU by /proc until
the stack has come to rest. loadtest/results/scale-PART.png shows it, scale.json has the figures. Last line: RESULT; exit status 1 when the
dearest step costs more than 1.2 times the first (but for the size, which is to be paid for).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from avro.records import Suppression
from deploy.local import ROOT, STATE
from loadtest.bench_latency import finish
from loadtest.demo.road import fresh, stop_on_signals
from loadtest.measuring import ratio, significant
from loadtest.peers.__main__ import WARM_UP, Bench
from loadtest.peers.systems import Keys, Ours
from topics.catalogue import SUPPRESSIONS

RESULTS = Path(__file__).parent / "results"
SIZE, MESSAGES = 1350, 4000
TAKE_MAX_S = 600.0  # that the stack may work on what is written in front
GROWS = 1.2


@dataclass(frozen=True)
class Part:
    """What grows, through which steps; `free`: it may cost more and more."""

    steps: tuple[int, ...]
    unit: str
    free: bool = False


PARTS = {
    "backlog": Part((1_000, 10_000, 100_000, 1_000_000), "messages at once"),
    "sites": Part((10, 100, 1_000, 10_000, 100_000), "receiving sites"),
    "tenants": Part((10, 100, 1_000, 10_000, 100_000), "tenants"),
    "suppressions": Part((1_000, 10_000, 100_000, 1_000_000, 10_000_000), "addresses on the suppression list"),
    "recipients": Part((1, 10, 100, 1_000), "recipients of a submission"),
    "size": Part((2_000, 20_000, 200_000, 2_000_000), "bytes of text", free=True),  # larger ones go by reference
    "processes": Part((1, 2, 4), "worker processes of all stages"),
}


def listed(count: int) -> Iterator[Suppression]:
    """So many addresses that get no mail; none of them is written to."""
    now = time.time_ns() // 1_000_000
    for n in range(count):
        yield {"recipient": f"listed{n}@d{n % 100}.test", "tenant": "t0", "action": "add", "reason": "manual", "at": now,
               "evidence": f"bench {n}", "source": "cli"}  # fmt: skip


def step(bench: Bench, keys: Keys, part: str, value: int) -> dict[str, float]:
    """The figures of one step."""
    system = Ours(bench.folder / Ours.name, keys, bench.port, "rsa")
    system.sites = value if part == "sites" else system.sites
    system.tenants = value if part == "tenants" else system.tenants
    system.recipients = value if part == "recipients" else 1
    system.workers = ("all",) * value if part == "processes" else ()
    size = value if part == "size" else SIZE
    messages = value if part == "backlog" else MESSAGES if size <= 20_000 else MESSAGES * 20_000 // size
    with system:
        if part == "suppressions":
            asyncio.run(system.write(map(SUPPRESSIONS.send, listed(value))))
        bench.rest(system, TAKE_MAX_S)
        bench.bring(system, "warm", max(WARM_UP, system.recipients), SIZE)
        bench.rest(system)
        return bench.measure(system, "measured", messages, size)


def plot(part: str, found: dict[str, dict[str, float]]) -> None:
    """A small picture: CPU per message over what grows."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(4.5, 2.8), layout="constrained")
    steps = [int(one) for one in found]
    axes.plot(steps, [one["cpu_ms"] for one in found.values()], marker="o")
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(PARTS[part].unit)
    axes.set_ylabel("CPU, ms per message")
    axes.grid(alpha=0.3)
    figure.savefig(RESULTS / f"scale-{part}.png", dpi=80)
    pyplot.close(figure)


def growth(found: dict[str, dict[str, float]]) -> float:
    """The dearest step to the first one."""
    costs = [one["cpu_ms"] for one in found.values()]
    return ratio(max(costs), costs[0])


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"of {' '.join(PARTS)}; all without")
    parser.add_argument("--steps", type=int, default=99, help="no more than so many of each part")
    parser.add_argument("--report-only", action="store_true", help="exit 0 whatever the figures are")
    options = parser.parse_args()
    if unknown := set(options.parts) - PARTS.keys():
        parser.error(f"no part {' '.join(sorted(unknown))}: {' '.join(PARTS)}")
    os.chdir(ROOT)
    stop_on_signals()
    RESULTS.mkdir(exist_ok=True)
    kept = RESULTS / "scale.json"
    everything = json.loads(kept.read_text("ascii")) if kept.exists() else {}
    result: dict[str, float] = {}
    must: dict[str, tuple[bool, str]] = {}
    with fresh((STATE / "bench" / "scale").absolute()) as folder:
        keys = Keys.make(folder / "keys")
        bench = Bench(folder, keys)
        try:
            for part in options.parts or PARTS:
                found: dict[str, dict[str, float]] = {}
                for value in PARTS[part].steps[: options.steps]:
                    found[str(value)] = one = step(bench, keys, part, value)
                    print(f"{part} {value:,}: {one['cpu_ms']:g} ms CPU, {one['per_s']:g}/s, {one['mib']:g} MiB, "
                          f"others {one['others_cores']:g} cores", flush=True)  # fmt: skip
                everything[part] = found
                kept.write_text(json.dumps(everything, indent=1) + "\n", "ascii")
                plot(part, found)
                result |= {f"{part}.{value}.cpu_ms": significant(one["cpu_ms"]) for value, one in found.items()}
                result[f"{part}.growth"] = growth(found)
                if not PARTS[part].free:
                    must[f"{part}.growth"] = (result[f"{part}.growth"] < GROWS, f"below {GROWS:g}")
        finally:
            bench.stop()
    return finish(result, must, options.report_only)


if __name__ == "__main__":
    sys.exit(main())
