"""Messages a second and CPU per message, end to end into the same smtp-sink: ours beside Postfix, Haraka and a plain relay.

    make bench-peers [SHORT=1]      # python -m loadtest.peers [--short] [--cases 2k-rsa,50k-none ..] [--systems postroad,postfix]

Rounds, and in each all systems one after another, each alone on the machine with source and sink. A turn: a sample that is kept and whose
signatures are verified, a warm-up, then the messages that count; from the start of the source to the last of them at the sink. CPU: all
processes of the system with their children, by /proc, until the system has come to rest; source and sink are not in it. A turn that
does not deliver each message once is an error. Last line RESULT with medians over the rounds; exit status 1 when a limit is broken.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from deploy.local import ROOT, STATE
from deploy.local.kafka import free_port
from loadtest.bench_latency import finish
from loadtest.delivery.debian import Unavailable
from loadtest.demo.road import fresh, stop_on_signals
from loadtest.measuring import busy_s, cpu_s, medians, ratio, rss_mib, significant
from loadtest.mxfarm.signatures import Verifier
from loadtest.peers.sink import Keeper, Sink
from loadtest.peers.systems import KEEPER, SIGNED, SINK, SYSTEMS, Keys, Ours, System

SIZES = {"2k": 2048, "50k": 50 * 1024}
COUNTS = {"2k": 5000, "50k": 2000}
SAMPLE, WARM_UP = 10, 300
STALLED_S = 60.0
REST_CORES, REST_S, REST_MAX_S = 0.15, 1.0, 20.0  # it rests when it uses less for so long
# Of ours to Postfix with the same signing (issue "Speed"): messages a second at least, CPU at most.
MUSTS: dict[str, tuple[float, float | None]] = {"2k-rsa": (3.0, 0.31), "50k-rsa": (3.0, 0.33), "2k-none": (2.0, None), "50k-none": (2.0, None)}  # fmt: skip


class Case(NamedTuple):
    """A size by name, and how is signed."""

    size: str
    how: str

    def __str__(self) -> str:
        return f"{self.size}-{self.how}"


class TurnError(RuntimeError):
    """A system did not do what it was measured for."""


class Bench:
    """The sinks and one turn after another."""

    def __init__(self, folder: Path, keys: Keys):
        self.folder, self.keys, self.port = folder, keys, free_port()
        self.verifier = Verifier(keys.records())
        self.sink = Sink(SINK, self.port, folder / "sink.log")
        self.keeper = Keeper(KEEPER, self.port, folder / "kept")

    def stop(self) -> None:
        """End the sinks."""
        self.sink.stop()
        self.keeper.stop()

    def turns(
        self, kind: type[System], how: str, sizes: list[str], turn: int, share: float
    ) -> dict[str, dict[str, float]]:
        """One system from start to end: figures by size."""
        found = {}
        with kind(self.folder / kind.name, self.keys, self.port, how) as system:
            self.verify(system, turn)
            for size in sizes:
                self.bring(system, f"warm-{size}-{turn}", max(20, int(WARM_UP * share)), SIZES[size])
                self.rest(system)
                found[size] = self.measure(system, f"{size}-{turn}", int(COUNTS[size] * share), SIZES[size])
                self.rest(system)
        return found

    def verify(self, system: System, turn: int) -> None:
        """A few messages, all of whose signatures are verified."""
        system.source(f"sample-{turn}", SAMPLE, SIZES["2k"], capture=True).run()
        if not self.keeper.wait(SAMPLE, STALLED_S):
            raise TurnError(f"{system.name}: the sample does not come")
        for message in self.keeper.take():
            results = self.verifier.verify(message)
            if sorted(one.selector for one in results if one.valid) != sorted(SIGNED[system.how]) or len(
                results
            ) != len(SIGNED[system.how]):
                raise TurnError(f"{system.name}: should be signed by {SIGNED[system.how]}, is by {results}")

    def bring(self, system: System, run: str, count: int, size: int) -> tuple[float, float]:
        """So many messages to the sink: when the source began, when the last was counted (monotonic)."""
        source = system.source(run, count, size)
        expected, began = self.sink.messages + count, time.monotonic()
        source.run()
        if not self.sink.wait(expected, STALLED_S):
            raise TurnError(
                f"{system.name}: {expected - self.sink.messages:,} of {count:,} messages do not come ({run})"
            )
        return began, self.sink.last

    def measure(self, system: System, run: str, count: int, size: int) -> dict[str, float]:
        """The figures of one turn."""
        before, everything, ours = cpu_s(system.roots), busy_s(), cpu_s([os.getpid()])
        expected = self.sink.messages + count
        began, ended = self.bring(system, run, count, size)
        elsewhere = (busy_s() - everything) - (cpu_s([os.getpid()]) - ours)
        self.rest(system)
        used = cpu_s(system.roots) - before
        if self.sink.messages != expected:
            raise TurnError(f"{system.name}: {self.sink.messages - expected:,} messages too many came ({run})")
        seconds = ended - began
        return {
            "per_s": significant(count / seconds), "cpu_ms": significant(used * 1000 / count), "mib": round(rss_mib(system.roots)),
            "others_cores": round(max(0.0, elsewhere) / seconds, 2),
        }  # fmt: skip

    def rest(self, system: System, most_s: float = REST_MAX_S) -> None:
        """Return when the system has come to rest: what it does after the last message belongs to the messages."""
        deadline = time.monotonic() + most_s
        used = cpu_s(system.roots)
        while time.monotonic() < deadline:
            time.sleep(REST_S)
            now = cpu_s(system.roots)
            if now - used < REST_CORES * REST_S:
                return
            used = now


def compare(found: dict[str, dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """By case: `rate_ratio` and `cpu_ratio` of ours to each of the others."""
    ratios: dict[str, dict[str, float]] = {}
    for case, systems in found.items():
        ours = systems.get(Ours.name)
        ratios[case] = {
            f"{figure}_ratio_{name}": ratio(ours[key], theirs[key])
            for name, theirs in systems.items() if ours is not None and name != Ours.name
            for figure, key in (("rate", "per_s"), ("cpu", "cpu_ms"))
        }  # fmt: skip
    return ratios


def judge(ratios: dict[str, dict[str, float]]) -> dict[str, tuple[bool, str]]:
    """What must be, by the figure's name."""
    must: dict[str, tuple[bool, str]] = {}
    for case, found in ratios.items():
        least, most = MUSTS.get(case, (None, None))
        if least is not None and "rate_ratio_postfix" in found:
            must[f"{case}.rate_ratio_postfix"] = (found["rate_ratio_postfix"] >= least, f"at least {least:g}")
        if most is not None and "cpu_ratio_postfix" in found:
            must[f"{case}.cpu_ratio_postfix"] = (found["cpu_ratio_postfix"] <= most, f"at most {most:g}")
    return must


def run(
    bench: Bench, cases: list[Case], kinds: list[type[System]], rounds: int, share: float
) -> dict[str, dict[str, dict[str, float]]]:
    """Medians by case and system."""
    found: dict[str, dict[str, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
    missing: set[str] = set()
    for turn in range(rounds):
        for how in dict.fromkeys(case.how for case in cases):
            sizes = [case.size for case in cases if case.how == how]
            for kind in kinds:
                if how not in kind.signs or kind.name in missing:
                    continue
                try:
                    figures = bench.turns(kind, how, sizes, turn, share)
                except Unavailable as error:
                    print(f"{kind.name} is not measured: {error}", flush=True)
                    missing.add(kind.name)
                    continue
                for size, one in figures.items():
                    found[str(Case(size, how))][kind.name].append(one)
                    print(f"round {turn + 1} {size}-{how:5} {kind.name:9} {one['per_s']:7g}/s {one['cpu_ms']:6g} ms CPU "
                          f"{one['mib']:5g} MiB, others {one['others_cores']:g} cores", flush=True)  # fmt: skip
    return {case: {name: medians(rows) for name, rows in systems.items()} for case, systems in found.items()}


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    every = [Case(size, how) for how in SIGNED for size in SIZES]
    parser.add_argument("--short", action="store_true", help="2 KB with RSA, ours and Postfix with OpenDKIM, one round")
    parser.add_argument("--cases", default="", help=f"comma-separated, of {' '.join(map(str, every))}")
    parser.add_argument("--systems", default="", help=f"comma-separated, of {' '.join(SYSTEMS)}")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of the messages")
    parser.add_argument(
        "--worker", action="append", default=[], help="stages of one worker process of ours; may be repeated"
    )
    parser.add_argument("--report-only", action="store_true", help="exit 0 whatever the figures are")
    parser.add_argument("--folder", type=Path, default=STATE / "bench" / "peers", help="emptied first")
    options = parser.parse_args()
    cases_wanted = options.cases or ("2k-rsa" if options.short else ",".join(map(str, every)))
    systems_wanted = options.systems or ("postroad,postfix" if options.short else ",".join(SYSTEMS))
    cases = [case for case in every if str(case) in cases_wanted.split(",")]
    kinds = [kind for name, kind in SYSTEMS.items() if name in systems_wanted.split(",")]
    if len(cases) != len(cases_wanted.split(",")) or len(kinds) != len(systems_wanted.split(",")):
        parser.error("--cases or --systems names what there is not")
    os.chdir(ROOT)
    stop_on_signals()
    Ours.workers = tuple(options.worker)
    with fresh(options.folder.absolute()) as folder:
        for kind in kinds:
            print(f"{kind.name}: {kind.durability}")
        try:
            bench = Bench(folder, Keys.make(folder / "keys"))
        except Unavailable as error:
            print(f"bench-peers: {error}", file=sys.stderr)
            return 1
        try:
            found = run(bench, cases, kinds, options.rounds or (1 if options.short else 3), options.share)
        except TurnError as error:
            print(f"bench-peers: {error}", file=sys.stderr)
            return 1
        finally:
            bench.stop()
    ratios = compare(found)
    flat = {f"{case}.{name}": value for case, one in ratios.items() for name, value in one.items()}
    for case, systems in found.items():
        print(
            f"{case}: " + "; ".join(f"{name} {one['per_s']:g}/s {one['cpu_ms']:g} ms" for name, one in systems.items())
        )
        print(f"{case}: " + ", ".join(f"{name} {value:g}" for name, value in ratios[case].items()))
    figures = {f"{c}.{n}.{k}": v for c, systems in found.items() for n, one in systems.items() for k, v in one.items()}
    return finish({**figures, **flat}, judge(ratios), options.report_only)


if __name__ == "__main__":
    sys.exit(main())
