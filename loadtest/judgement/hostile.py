"""Mail that breaks parsers, all spam and ham, and what fuzzing has kept: no exception, no message above the limit of CPU."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import NamedTuple

from deploy.local import STATE
from loadtest.judgement import corpora, ours

FUZZED = STATE / "fuzz" / "feedback"  # `make fuzz` keeps there what found new ways through the code
AGAIN_MS = 10.0  # what took longer is measured again, the best of some counts: another process was in the way
TRIES = 4


class Figures(NamedTuple):
    """`slowest`: CPU in ms, and the file."""

    messages: int
    crashes: list[str]
    slowest: tuple[float, str]


def paths() -> list[Path]:
    kept = sorted(path for path in FUZZED.rglob("*") if path.is_file()) if FUZZED.is_dir() else []
    return [*corpora.mails("mime"), *corpora.mails("spam"), *kept]


def measure(files: list[Path]) -> Figures:
    """Of each file once; prints the traceback of a crash."""
    crashes: list[str] = []
    slowest, measured = (0.0, ""), 0
    for path in files:
        try:
            raw = path.read_bytes()
        except FileNotFoundError:  # a fuzzer is at work, and has a smaller one now
            continue
        measured += 1
        try:
            took = ours.cpu_ms(raw)
            if took > AGAIN_MS:
                took = min(took, *(ours.cpu_ms(raw) for _ in range(TRIES)))
        except Exception:
            traceback.print_exc()
            crashes.append(path.name)
            continue
        slowest = max(slowest, (took, path.name))
    return Figures(measured, crashes, slowest)
