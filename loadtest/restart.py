"""The demo's load, with `postroad up` killed by -9 in the middle and started again on the same folder.

    python -m loadtest.restart [--folder FOLDER]

Everything dies at once: Kafka, all stages, chdb. The producer lives on and writes again when Kafka is back. Nothing may be
lost, and a mail may reach the farm a second time only where an event says possible_duplicate (the MX had it, and we
died before we had written down its reply). Last line RESULT; exit status 1 when lost, in_flight or unflagged is not 0.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from loadtest.demo.load import SETTINGS, SHAPING, Load
from loadtest.demo.road import Road, fresh, program


def main() -> int:
    """Returns the exit status."""
    return program("restart", __doc__, drill)


def drill(folder: Path, console: Console) -> int:
    """One run."""
    began = time.monotonic()
    with fresh(folder), Road(folder, SETTINGS, shaping=SHAPING) as road:
        console.print(f"ready in {road.ready_s:.1f} s")
        load = Load(road, console)
        load.prepare()
        with load.producing():
            load.wait(until=lambda: len(load.acknowledged) >= len(load.plan) // 2)
            written, arrived = len(load.acknowledged), len(road.farm.receipts)
            road.kill()
            console.print(
                f"kill -9 with {written:,} of {len(load.plan):,} submissions written and {arrived:,} mails at the farm"
            )
            road.start()
            console.print(f"ready again in {road.ready_s:.1f} s")
            if not load.wait():
                console.print("[bold red]nothing moves any more; what follows is what there is[/]")
                road.print_logs()
        account, _, _ = load.settle()
        for what, which in (("lost", account.lost), ("two ends", account.twice), ("unflagged", account.unflagged)):
            if which:
                console.print(f"[bold red]{what}:[/] {', '.join(which[:20])}")
        for line in account.differs:  # not a failure here: a plan by the clock, and the clock stood still for a while
            console.print(f"other than in a run without a crash: {escape(line)}")
    result = {
        "accepted": account.accepted, "lost": len(account.lost), "in_flight": len(account.in_flight),
        "second_deliveries": len(account.second), "unflagged": len(account.unflagged),
        "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip
    print("RESULT", json.dumps(result))
    return 1 if account.lost or account.in_flight or account.unflagged else 0


if __name__ == "__main__":
    sys.exit(main())
