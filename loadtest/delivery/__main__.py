"""Whether delivery keeps what it promises: `python -m loadtest.delivery [PART..] [--short] [--folder DIR]`.

Every part alone or all in turn; the last line is RESULT with their figures. Exit status 1 when a must is broken.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from deploy.local import ROOT, STATE
from loadtest.demo.road import RoadError, fresh, stop_on_signals

PARTS = ("vectors", "limits", "neighbours", "memory", "fairness", "interop", "speed")
FIGURES = (
    "cap_violations", "cap_use_min", "healthy_ratio", "waiting", "send_rss_mb", "schedule_rss_mb", "fairness_ratio",
    "interop_failed", "vectors_failed", "send_cpu_ms",
)  # fmt: skip


def run(parts: list[str], folder: Path, short: bool) -> tuple[dict[str, Any], list[str]]:
    """All figures, and every must that does not hold. A part that ends with an error breaks its musts."""
    figures: dict[str, Any] = {}
    faults: list[str] = []
    for name in parts:
        began = time.monotonic()
        print(f"{name}:", flush=True)
        part = importlib.import_module(f"loadtest.delivery.{name}")
        try:
            result = part.run(folder / name, short)
            found = part.broken(result)
        except Exception as error:  # the other parts are still to be seen
            traceback.print_exc()
            result, found = {}, [f"ended with {type(error).__name__}: {str(error).splitlines()[:1]}"]
        figures |= result
        faults += [f"{name}: {fault}" for fault in found]
        print(
            f"  {'MUST BROKEN: ' + '; '.join(found) if found else 'ok'} ({time.monotonic() - began:.0f} s)", flush=True
        )
    return figures, faults


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.delivery", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--short", action="store_true", help="small numbers, some minutes in all")
    parser.add_argument(
        "--folder", type=Path, default=STATE / "delivery" / "run", help="emptied first; kept afterwards"
    )
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}: there are {', '.join(PARTS)}")
    os.chdir(ROOT)
    stop_on_signals()
    try:
        with fresh(options.folder.absolute()) as folder:
            figures, faults = run([p for p in PARTS if p in options.parts or not options.parts], folder, options.short)
    except RoadError as error:
        sys.exit(f"check-delivery: {error}")
    except KeyboardInterrupt:
        sys.exit("check-delivery: stopped")
    known = {name: value for name, value in figures.items() if name not in FIGURES}
    if known:
        print(f"beside that: {json.dumps(known)}")
    for fault in faults:
        print(f"MUST BROKEN {fault}")
    print(f"RESULT {json.dumps({name: figures.get(name) for name in FIGURES if name in figures or not options.parts})}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
