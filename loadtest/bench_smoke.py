"""A guard for CI, one to two minutes: our hop to the bare aiokafka loop in the same run, against the committed figure.

    make bench-smoke                # python -m loadtest.bench_smoke [--commit]

CPU per record, both in turns; the median of the rounds' ratios. Worse than loadtest/results/smoke.json by 30 % fails; --commit writes that
file, from a machine with nothing else to do. Last line: RESULT.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from statistics import median

from deploy.local import ROOT
from loadtest.bench_hop import rounds
from loadtest.bench_latency import finish
from loadtest.measuring import ratio

COMMITTED = Path(__file__).parent / "results" / "smoke.json"
WORSE = 1.3
ROUNDS = 5


def pairs(ours: list[float], theirs: list[float]) -> float:
    """The median of ours to theirs, round by round: what slows the machine for a while slows both."""
    return median(ratio(one, other) for one, other in zip(ours, theirs, strict=True))


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--commit", action="store_true", help="write the figure that later runs are held to")
    options = parser.parse_args()
    os.chdir(ROOT)
    found = rounds(("pure", "bare"), ROUNDS)
    result = {
        "ratio_bare": pairs(found["pure"], found["bare"]),
        "hop_us": median(found["pure"]),
        "bare_us": median(found["bare"]),
    }
    if options.commit:
        COMMITTED.parent.mkdir(exist_ok=True)
        COMMITTED.write_text(json.dumps(result) + "\n", "ascii")
    committed = json.loads(COMMITTED.read_text("ascii"))["ratio_bare"]
    most = committed * WORSE
    return finish(
        {**result, "committed": committed}, {"ratio_bare": (result["ratio_bare"] <= most, f"at most {most:.2f}")}, False
    )


if __name__ == "__main__":
    sys.exit(main())
