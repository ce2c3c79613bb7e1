"""All drills one after another: scaling, rolling upgrade, loss of a region, restore.

    make drill [SHORT=1] [ONLY="upgrade region"]      # python -m loadtest.drills [--short] [--only upgrade region]

Each is a program of its own, whose words come through. Last line RESULT with the losses of all of them, which must be 0, and the times of each;
exit status 1 when one of them broke a rule of its own (its first words say which), or came to no result.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from deploy.local import ROOT
from loadtest.demo.road import stop_on_signals

#: A drill, and what is told of it besides losses.
DRILLS: dict[str, tuple[str, ...]] = {
    "scale": ("messages", "replicas", "lag_max", "drained_s", "pause_s", "seconds"),
    "upgrade": ("messages", "replaced", "duplicates", "pause_s", "away_s", "seconds"),
    "region": ("messages", "not_mirrored", "duplicates", "recovery_point_s", "take_over_s", "recovery_s", "seconds"),
    "restore": ("accepted", "second_deliveries", "blobs", "put_back_s", "ready_s", "seconds"),
}
#: What must be 0, by the names that drills have for it.
LOSSES = {
    "lost": ("lost",),
    "in_flight": ("in_flight",),
    "two_ends": ("two_ends",),
    "unflagged": ("unflagged", "unflagged_duplicates"),
    "differences": ("differences", "blobs_differ"),
}
MARK = "RESULT "


def command(drill: str, short: bool) -> list[str]:
    """What runs a drill; that of restoring has one form only."""
    return [sys.executable, "-m", f"loadtest.drills.{drill}", *(["--short"] if short and drill != "restore" else [])]


def run(drill: str, short: bool) -> tuple[int, dict[str, Any]]:
    """Its exit status and its result, empty where it came to none."""
    process = subprocess.Popen(command(drill, short), stdout=subprocess.PIPE, text=True, cwd=ROOT)
    found: dict[str, Any] = {}
    try:
        for line in process.stdout or ():
            if line.startswith(MARK):
                found = json.loads(line.removeprefix(MARK))
            else:
                print(line, end="", flush=True)
        return process.wait(), found
    except BaseException:
        process.send_signal(signal.SIGTERM)  # it stops what it has started
        process.wait()
        raise


def total(results: Mapping[str, tuple[int, Mapping[str, Any]]]) -> dict[str, Any]:
    """One result of all."""
    losses = {
        name: sum(int(result.get(key, 0)) for _, result in results.values() for key in keys)
        for name, keys in LOSSES.items()
    }
    told = {
        drill: {key: result[key] for key in DRILLS[drill] if key in result} for drill, (_, result) in results.items()
    }
    return {**losses, "failed": [drill for drill, (status, result) in results.items() if status or not result], **told}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.drills", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--short", action="store_true", help="each in its short form")
    parser.add_argument("--only", nargs="+", default=list(DRILLS), choices=DRILLS, help="these alone")
    given = parser.parse_args(arguments)
    os.chdir(ROOT)
    stop_on_signals()
    began, results = time.monotonic(), dict[str, tuple[int, Mapping[str, Any]]]()
    for drill in given.only:
        print(f"--- {drill}", flush=True)
        results[drill] = run(drill, given.short)
        if results[drill][0]:
            print(f"--- {drill} ended with status {results[drill][0]}", flush=True)
    found = total(results)
    print("RESULT", json.dumps({**found, "seconds": round(time.monotonic() - began, 1)}))
    return 1 if found["failed"] or any(found[name] for name in LOSSES) else 0


if __name__ == "__main__":
    sys.exit(main())
