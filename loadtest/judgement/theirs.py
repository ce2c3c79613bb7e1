"""flufl.bounce on the same files, in a virtual environment of its own: the project does not need it.

Without it (no network, nothing kept) its column stays empty.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from deploy.local import STATE

VERSION = "6.0.0"
FOLDER = STATE / "judgement" / f"flufl-{VERSION}"
INSTALL_S = 120

# Runs there: paths on standard input, one JSON line each on standard output
CHILD = """
import json, sys, time
from email import message_from_bytes
from flufl.bounce import all_failures
for path in sys.stdin.read().splitlines():
    raw = open(path, "rb").read()
    began, error, temporary, permanent = time.process_time(), "", [], []
    try:
        found = all_failures(message_from_bytes(raw))
        temporary, permanent = ([one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in part] for part in found)
    except Exception as failed:
        error = type(failed).__name__
    took = (time.process_time() - began) * 1000
    print(json.dumps([path, sorted(temporary), sorted(permanent), error, took]))
"""


class Theirs(NamedTuple):
    """What it says of one file: addresses in lower case, the name of an exception, CPU in ms."""

    temporary: set[str]
    permanent: set[str]
    error: str
    ms: float

    @property
    def recipients(self) -> set[str]:
        return self.temporary | self.permanent


def python() -> Path | None:
    """Its interpreter, installed once; None where that cannot be."""
    interpreter = FOLDER / "bin" / "python"
    ready = FOLDER / "ready"
    if ready.exists():
        return interpreter
    try:
        venv.create(FOLDER, with_pip=True, clear=True)
        pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, f"flufl.bounce=={VERSION}"], check=True, timeout=INSTALL_S, capture_output=True)
    except (OSError, subprocess.SubprocessError) as error:
        print(
            f"flufl.bounce {VERSION} is not here and cannot be had ({type(error).__name__}): no column of it",
            file=sys.stderr,
        )
        return None
    ready.touch()
    return interpreter


def read(paths: Sequence[Path]) -> dict[Path, Theirs]:
    """What it says of each; empty where it cannot be had."""
    if not paths or (interpreter := python()) is None:
        return {}
    given = "\n".join(map(str, paths))
    done = subprocess.run([interpreter, "-c", CHILD], input=given, capture_output=True, text=True, check=True)
    return {
        Path(path): Theirs({one.lower() for one in temporary}, {one.lower() for one in permanent}, error, ms)
        for path, temporary, permanent, error, ms in map(json.loads, done.stdout.splitlines())
    }
