"""CPU per record of one hop: our stage, quixstreams, bytewax, stock Faust, a bare aiokafka loop; same records and broker, in turns.

    python -m loadtest.bench_hop [--quick] [--rounds 5] [--report-only] [--only pure,bare]

quixstreams and bytewax run in a venv of their own (make bench-venv), with librdkafka as their client.

Last line: RESULT with medians over the rounds. Exit status 1 when a limit of `MUSTS` is broken, unless --report-only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from deploy.local import ROOT, STATE, child
from deploy.local.kafka import Kafka
from loadtest.engine import stages
from loadtest.engine.harness import Load
from loadtest.measuring import ratio
from topics.admin import ensure
from topics.installation import Installation
from topics.schemas import parse, single_object_header

RECORDS = {
    "pure": 100_000,
    "bare": 100_000,
    "stock": 10_000,
    "effect": 40_000,
    "quixstreams": 60_000,
    "bytewax": 60_000,
}  # 2 to 5 s each
OTHERS = ("quixstreams", "bytewax")
PYTHON = STATE / "bench" / "venv" / "bin" / "python"
MUSTS = {"hop_us": 30.0, "ratio_bare": 1.25, "effect_us": 70.0}  # at most
AHEAD = {"ratio_stock": 12.0, "ratio_quixstreams": 1.0, "ratio_bytewax": 1.0}  # theirs to ours, at least
TIMEOUT_S = 60.0


def measure(which: str, turn: int, bootstrap: str, folder: Path, share: float) -> dict[str, Any]:
    """One worker from start to end. Raises RuntimeError with its log when it says nothing of use."""
    records = int(RECORDS[which] * share)
    log = folder / f"{which}-{turn}.log"
    environment = {**os.environ, "BOOTSTRAP": bootstrap, "DATA": str(folder / f"{which}-{turn}"), "KEY_LIMIT": "200"}
    program = [sys.executable, "-m", "loadtest.engine.hop"]
    if which in OTHERS:
        program = [str(PYTHON), str(ROOT / "loadtest" / "engine" / "others.py")]
        environment |= {"SOURCE": stages.SOURCE.name, "TARGET": stages.TARGET.name, "SCHEMA": json.dumps(stages.SCHEMA),
                        "HEADER": single_object_header(parse(stages.SCHEMA)).hex()}  # fmt: skip
    worker = child.spawn([*program, which, str(turn), str(records // 8), str(records)], log, env=environment)
    try:
        worker.wait(TIMEOUT_S)
        found: dict[str, Any] = json.loads(log.read_text("utf-8").splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        raise RuntimeError(f"{which}: no result\n{child.tail(log)}") from None
    finally:
        child.stop(worker, 0.0)
    return found


async def prepare(bootstrap: str) -> None:
    """Topics, and the backlog that every worker reads from its beginning."""
    installation = Installation(bootstrap, partitions=stages.PARTITIONS)
    await ensure(installation, stages.TOPICS)
    async with Load(installation) as load:
        while load.sent < max(RECORDS.values()) * 1.05:  # the last batches of a partition come alone: not measured
            await load.send(5_000)


def rounds(kinds: Sequence[str], turns: int, share: float = 1.0) -> dict[str, list[float]]:
    """CPU us per record of each round by kind of worker, on a broker of its own. Raises RuntimeError. `share`: of the records."""
    found: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="bench-hop-") as scratch:
        folder = Path(scratch)
        with Kafka(folder / "kafka", heap="512m") as kafka:
            asyncio.run(prepare(kafka.bootstrap))
            for turn in range(turns):
                for which in kinds:
                    one = measure(which, turn, kafka.bootstrap, folder, share)
                    found[which].append(one["us"])
                    print(f"round {turn + 1} {which:11} {one['us']:7.1f} us/record {one['rate']:6d}/s", flush=True)
    return found


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--report-only", action="store_true", help="exit 0 whatever the figures are")
    parser.add_argument("--only", help="kinds of worker, comma-separated: to look at one")
    options = parser.parse_args()
    os.chdir(ROOT)
    kinds = options.only.split(",") if options.only else list(RECORDS)
    if not PYTHON.exists() and any(which in kinds for which in OTHERS):
        parser.error(
            f"{PYTHON} is missing, which runs quixstreams and bytewax: make bench-venv, or --only pure,bare,stock,effect"
        )
    found = rounds(kinds, 1 if options.quick else options.rounds)
    result = {f"{'hop' if which == 'pure' else which}_us": round(median(values), 1) for which, values in found.items()}
    if "pure" in kinds:
        result |= {
            f"ratio_{which}": ratio(result[f"{which}_us"], result["hop_us"])
            for which in ("stock", *OTHERS)
            if which in kinds
        }
        if "bare" in kinds:
            result["ratio_bare"] = ratio(result["hop_us"], result["bare_us"])
    broken = [f"{name} {result[name]} > {most}" for name, most in MUSTS.items() if result.get(name, 0) > most]
    broken += [f"{name} {result[name]} < {least}" for name, least in AHEAD.items() if result.get(name, least) < least]
    for line in broken:
        print("MISSED", line)
    print("RESULT", json.dumps(result))
    return 1 if broken and not options.report_only else 0


if __name__ == "__main__":
    sys.exit(main())
