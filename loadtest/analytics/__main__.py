"""`make check-analytics`: exactness, ingest, freshness and storage one after another; --short in minutes.

    python -m loadtest.analytics [--short] [--engine server|chdb|both] [exactness] [ingest] [freshness] [storage]

Last line: RESULT with all of them; exit status 1 when a must is broken. With --short limits that are times are told, not enforced.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

from deploy.local import ROOT
from loadtest.analytics import exactness, freshness, ingest, storage
from loadtest.analytics.rig import ENGINES, Engine
from loadtest.demo.road import stop_on_signals

Part = Callable[[tuple[Engine, ...], bool], dict[str, Any]]
PARTS: dict[str, Part] = {
    "exactness": lambda engines, short: exactness.run(*((20_000, 2) if short else (1_000_000, 10)), engines),
    "ingest": lambda engines, short: ingest.run(100_000 if short else 2_000_000, engines),
    "freshness": lambda engines, short: freshness.run(1000, 10.0 if short else 60.0, engines),
    "storage": lambda engines, short: storage.run(200_000 if short else 1_000_000, engines),
}
OF_TIME = ("ingest", "freshness")


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; all")
    parser.add_argument("--short", action="store_true", help="small ones, and times are only told")
    parser.add_argument("--engine", choices=[*ENGINES, "both"], default="both")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}: there are {', '.join(PARTS)}")
    os.chdir(ROOT)
    stop_on_signals()
    engines = ENGINES if options.engine == "both" else (options.engine,)
    result: dict[str, Any] = {"short": options.short, "broken": []}
    for name in options.parts or PARTS:
        found = result[name] = PARTS[name](engines, options.short)
        told = options.short and name in OF_TIME
        for line in found.pop("broken"):
            if told:
                print("TOLD", f"{name}: {line}")
            else:
                result["broken"].append(f"{name}: {line}")
        print(f"{name}: {found}", flush=True)
    return ingest.finish(result, report_only=False)


if __name__ == "__main__":
    sys.exit(main())
