"""Coverage-guided fuzzing with atheris (extra `fuzz`), one target after another, each in a process of its own.

    python -m loadtest.fuzz                      all targets, 60 s each
    python -m loadtest.fuzz mime --seconds 600

The corpus is kept in .local/fuzz/<target>/ and grows from run to run. An input that breaks a target is printed as a Python
literal, for a regression test. One line `RESULT {...}` a target; exit status 1 when any has a crash.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from deploy.local import ROOT
from loadtest.fuzz.mutate import INPUT_MAX
from loadtest.fuzz.targets import TARGETS, seeds

KEPT = ROOT / ".local" / "fuzz"
CORPORA = ROOT.parent / "shared" / "corpora"  # read where they are, where they are there
ALSO = {"reading": ["mime"], "feedback": ["bounces", "arf"], "mime": []}
SLOW_S = 10  # one input; instrumented code takes several times as long as it does elsewhere
MEMORY_MIB = 1500
SAID_MAX = 3_000  # characters of what libFuzzer says
LITERAL_MAX = 4_000  # characters of an input that are printed


def corpus(target: str) -> Path:
    """The folder of the target's inputs, with its seeds."""
    folder = KEPT / target
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds(target):
        (folder / hashlib.sha1(seed).hexdigest()).write_bytes(seed)  # as libFuzzer names them
    return folder


def fuzz(target: str, seconds: int) -> int:
    """Number of crashes: libFuzzer ends with the first."""
    folders = [corpus(target), *(CORPORA / name for name in ALSO.get(target, []) if (CORPORA / name).is_dir())]
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="postroad-fuzz-") as found:
        command = [
            sys.executable, "-m", "loadtest.fuzz.child", target, *map(str, folders), f"-max_total_time={seconds}",
            f"-timeout={SLOW_S}", f"-rss_limit_mb={MEMORY_MIB}", f"-max_len={INPUT_MAX}", f"-artifact_prefix={found}/",
            "-print_final_stats=1", "-verbosity=1",
        ]  # fmt: skip
        done = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        broken = sorted(Path(found).iterdir())
        for path in broken:
            data, literal = path.read_bytes(), repr(path.read_bytes())
            kept = KEPT / f"{target}-{path.name}"
            kept.write_bytes(data)
            said = done.stdout[max(done.stdout.find(" === Uncaught Python exception"), 0) :]
            print(f"{target}: {path.name}\n{said[:SAID_MAX] if said is not done.stdout else said[-SAID_MAX:]}")
            print(f"input ({len(data)} bytes, kept as {kept.relative_to(ROOT)}): {literal[:LITERAL_MAX]}", flush=True)
    if done.returncode and not broken:
        raise SystemExit(f"{target}: ended with {done.returncode}\n{done.stdout[-SAID_MAX:]}")
    number = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stdout) or re.search(
        r"Done (\d+) runs", done.stdout
    )
    result = {"target": target, "executions": int(number[1]) if number else 0, "crashes": len(broken),
              "seconds": round(time.monotonic() - started, 1)}  # fmt: skip
    print("RESULT " + json.dumps(result), flush=True)
    return len(broken)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtest.fuzz", description="Fuzz what reads bytes of strangers.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(TARGETS)}; default: all")
    parser.add_argument("--seconds", type=int, default=60, help="of each target")
    given = parser.parse_args()
    if unknown := [name for name in given.targets if name not in TARGETS]:
        parser.error(f"no target {', '.join(unknown)}: there are {', '.join(TARGETS)}")
    if importlib.util.find_spec("atheris") is None:
        raise SystemExit(
            "atheris is not installed: .venv/bin/pip install 'postroad[fuzz]' (from this folder: '.[fuzz]')"
        )
    crashes = [fuzz(target, given.seconds) for target in given.targets or TARGETS]
    sys.exit(1 if any(crashes) else 0)


if __name__ == "__main__":
    main()
