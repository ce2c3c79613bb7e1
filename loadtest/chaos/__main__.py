"""The road under faults, proven by counting: `make chaos`, `make chaos-short`.

    python -m loadtest.chaos [--messages 100000] [--rounds 3] [--seed 1] [--rate 85] [--folder FOLDER]

A cluster of three brokers behind a proxy, every stage with two workers, a real ClickHouse, a farm of receiving sites. First
every worker is restarted cleanly under load, which must double nothing; then the seed's faults come one after another, each
when the road moves again after the one before. At the end four counts that know nothing of each other are compared: what
producers got acknowledged, the farm's receipts, the ledger from Kafka, the ledger from ClickHouse; and every table is computed
again from the topics. Last line RESULT; exit status 1 when anything that must hold does not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from aiokafka.errors import MessageSizeTooLargeError
from rich.console import Console
from rich.markup import escape

from agents.worker import STAGES
from analytics.clickhouse import WarehouseError, connect
from deploy.local import ROOT, STATE
from loadtest.chaos.account import Account, account
from loadtest.chaos.cluster import Cluster
from loadtest.chaos.faults import ENDING, EXCUSED, FAULTS, Field
from loadtest.chaos.fleet import Fleet
from loadtest.chaos.load import SETTINGS, SHAPING, Load
from loadtest.chaos.recount import recount
from loadtest.chaos.schedule import BEHIND, Fault, schedule
from loadtest.chaos.watch import Watch
from loadtest.demo.ledger import progress
from loadtest.demo.road import fresh, stop_on_signals
from topics import admin
from topics.installation import Installation

SESSION_S = 10.0
MOVES_S = 30.0  # after a fault
GIVE_UP_S = 120.0  # a road that stands still for so long is not waited for
LOOK_S = 0.1
DUPLICATES_MAX = 0.01  # of the messages
REFUSED = MessageSizeTooLargeError.__name__


class Run:
    """One run: what goes on while time passes, the faults, and how long the road stood still after each."""

    def __init__(
        self, cluster: Cluster, fleet: Fleet, load: Load, watch: Watch, console: Console, seed: int, began: float, slower: float
    ):  # fmt: skip
        self.slower = slower
        self.cluster, self.fleet, self.load, self.watch, self.console = cluster, fleet, load, watch, console
        self.seed, self.began = seed, began
        self.done: Counter[str] = Counter()
        self.stalls: list[tuple[float, str]] = []
        self.violations: list[str] = []
        self.field = Field(
            cluster, fleet, load.installation, random.Random(seed), self.wait, self.meanwhile, self.left, SESSION_S
        )
        self._behind: list[tuple[float, ExitStack, Fault]] = []

    def say(self, text: str) -> None:
        """A line with the time since the beginning and the count of messages."""
        self.console.print(f"{time.monotonic() - self.began:7.1f} s  {self.load.acknowledged:7,}  {text}")

    def meanwhile(self) -> None:
        """One look at everything that has to go on. Raises ClusterError, LoadError."""
        self.cluster.look()
        self.fleet.look()
        self.load.look()

    def wait(self, seconds: float = 0.0, until: Callable[[], bool] | None = None) -> bool:
        """Keep everything going for a time, or until something holds; False when it did not in that time."""
        deadline = time.monotonic() + seconds
        while True:
            self.meanwhile()
            if until is not None and until():
                return True
            if time.monotonic() >= deadline:
                return until is None
            time.sleep(LOOK_S)

    # -- faults ----------------------------------------------------------------------------------------------------
    def restart_all(self) -> None:
        """A clean restart of every worker under load: one of each stage, then the other."""
        self.watch.longest_s = 0.0
        for ordinal in sorted({worker.ordinal for worker in self.fleet.workers}):
            workers = [worker for worker in self.fleet.workers if worker.ordinal == ordinal]
            self.left(self.fleet.restart(*workers))
            self.fleet.wait_ready(workers)
        self.say("every worker was restarted cleanly")
        self.done["rolling-restart"] += 1
        self._moved("rolling-restart", time.monotonic(), MOVES_S)

    def left(self, statuses: Mapping[str, int]) -> None:
        self.violations += [f"{name} left SIGTERM with status {status}" for name, status in statuses.items() if status]

    def inject(self, fault: Fault) -> None:
        """One fault, to the moment when the road moves again."""
        self.wait(fault.pause_s)
        self.end_behind()
        self.say(f"{fault}")
        self.done[fault.kind] += 1
        since, stack = time.monotonic(), ExitStack()
        excused = {fault.target if stage == "target" else stage for stage in EXCUSED.get(fault.kind, ())}
        self._excuse(stack, set(STAGES) if "all" in excused else excused)
        if fault.kind in BEHIND:
            stack.enter_context(FAULTS[fault.kind](self.field, fault))
            self._behind.append((since + fault.lasting_s, stack, fault))
            return
        self.watch.longest_s = 0.0
        ended, loaded = self._ended(fault), not self.load.done
        with stack:
            stack.enter_context(FAULTS[fault.kind](self.field, fault))
            self.wait(fault.lasting_s)
        self._moved(str(fault), time.monotonic() if excused else since, MOVES_S + self.frozen_s(fault))
        if fault.kind in ENDING and self._ended(fault) == ended and loaded:
            self.violations.append(f"{fault}: no worker ended, it has not bitten")
        if fault.kind == "topic-small":
            self.replay(must=loaded)

    @staticmethod
    def frozen_s(fault: Fault) -> float:
        """For how long a frozen worker rightly keeps its partitions."""
        return SESSION_S if fault.kind == "worker-freeze" else 0.0

    def _ended(self, fault: Fault) -> int:
        stage = ENDING.get(fault.kind, "")
        return sum(len(worker.exits) for worker in self.fleet.of(fault.target if stage == "target" else stage))

    def _excuse(self, stack: ExitStack, stages: set[str]) -> None:
        """Until the stack is left."""
        new = stages - self.watch.excused
        self.watch.excused |= new
        stack.callback(self.watch.excused.difference_update, new)

    def end_behind(self, everything: bool = False) -> None:
        """End what lasts while others come and go, when its time is over."""
        for entry in list(self._behind):
            until, stack, fault = entry
            if everything:
                self.wait(max(0.0, until - time.monotonic()))
            if time.monotonic() >= until:
                self._behind.remove(entry)
                self.watch.longest_s = 0.0
                stack.close()
                self._moved(str(fault), time.monotonic(), MOVES_S)

    def _moved(self, what: str, since: float, limit: float) -> None:
        """Wait until nothing stands still since a time; what stood longest meanwhile is noted."""
        moves_again = self.wait(
            GIVE_UP_S, until=lambda: self.watch.looked_at > since and not self.watch.standing(since)
        )
        took, where = self.watch.longest_s, self.watch.where
        self.stalls.append((took, what))
        limit *= self.slower
        if took > limit:
            self.violations.append(f"{what}: {where} stood still for {took:.1f} s, {limit:g} s is the limit")
        if not moves_again:
            self.violations.append(f"{what}: the road does not move again after {GIVE_UP_S:g} s")
            for line in self.watch.standing(since)[:10]:
                self.say(f"stands still: {line}")

    # -- the end ---------------------------------------------------------------------------------------------------
    def replay(self, must: bool) -> None:
        """What a topic refused while it was too small goes where it was to go, by the command for it. `must`: there was load, so
        something was refused."""
        command = [sys.executable, "-m", "postroad", "dead-letters", "replay", "--all", "--yes", "--error", REFUSED]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, **self.fleet.environment}, timeout=300
        )
        said = (done.stdout or done.stderr).strip().splitlines()
        self.say(f"dead-letters replay: {said[-1] if said else 'nothing said'}")
        if done.returncode or not said or (must and said[-1] == "replayed: 0"):
            self.violations.append(f"nothing was refused, or not replayed: status {done.returncode}, {said[-1:]}")

    def stop(self) -> None:
        """All workers, cleanly; the last fault's victim is back first."""
        self.fleet.wait_ready()
        self.left(self.fleet.stop())

    def drain(self) -> None:
        """Until everything that was accepted has ended, or nothing ends any more."""
        warehouse, before, moved = connect(self.cluster.clickhouse.url), (0, 0), time.monotonic()
        while True:
            self.wait(2.0)
            try:
                accepted, ended = progress(warehouse)
            except WarehouseError:
                accepted, ended = before
            if (accepted, ended) != before:
                before, moved = (accepted, ended), time.monotonic()
                self.say(f"accepted {accepted:,}, ended {ended:,}, {self.watch.lag():,} records wait")
            if self.load.done and accepted >= self.load.acknowledged and ended >= accepted and not self.watch.lag():
                return
            if time.monotonic() - moved > GIVE_UP_S:
                self.violations.append(f"{accepted - ended} messages have not ended, {self.watch.lag()} records wait")
                return


def chaos(folder: Path, console: Console, messages: int, rounds: int, seed: int, rate: float, slower: float) -> int:
    """One run; prints what it finds, and RESULT."""
    began = time.monotonic()
    console.print(f"seed {seed}: the same again with --seed {seed}")
    with fresh(folder), ExitStack() as stack:
        cluster = stack.enter_context(Cluster(folder))
        installation = Installation(cluster.direct, replication_factor=3, data_dir=folder / "data", session_s=SESSION_S)
        asyncio.run(admin.ensure(installation))
        settings = {
            "kafka": cluster.proxied, "dns_servers": [cluster.farm.dns], "smtp_port": cluster.farm.smtp_port,
            "clickhouse": cluster.clickhouse.url, "replication_factor": 3, "kafka_session_timeout_s": SESSION_S, **SETTINGS,
        }  # fmt: skip
        load = Load(installation, folder, cluster.farm, messages, seed)
        load.prepare()
        fleet = Fleet(folder, settings, STAGES, shaping=SHAPING)
        stack.callback(fleet.stop, 2.0)
        watch = stack.enter_context(Watch(installation, STAGES))
        run = Run(cluster, fleet, load, watch, console, seed, began, slower)
        fleet.start()
        run.say(f"{len(fleet.workers)} workers are ready")
        stack.callback(load.stop)
        load.start(rate)
        run.wait(60.0, until=lambda: load.acknowledged > messages // 50)
        run.restart_all()
        clean_until = time.time()
        for fault in schedule(seed, rounds, STAGES):
            run.inject(fault)
        run.end_behind(everything=True)
        run.say("no more faults")
        run.wait(3600.0, until=lambda: load.done)
        run.drain()
        folders = [worker.data_dir for worker in fleet.workers]
        run.stop()
        run.say("counting")
        found = account(load, connect(cluster.clickhouse.url), run.field.poisoned, clean_until)
        wrong = asyncio.run(recount(installation, folders))
    return report(run, found, wrong, messages, console)


def report(run: Run, found: Account, wrong: list[str], messages: int, console: Console) -> int:
    """What was found in words, and RESULT; the exit status."""
    violations = [*run.violations, *found.differences, *(f"counter: {line}" for line in wrong[:20])]
    if found.early:
        violations.append(f"a clean rolling restart doubled {len(found.early)}: {', '.join(found.early[:5])}")
    doubled = len(found.duplicates) - found.unanswered
    if doubled > DUPLICATES_MAX * messages:
        violations.append(f"{doubled} mails were delivered twice, more than {DUPLICATES_MAX:.0%}")
    console.print("counts: " + ", ".join(f"{what} {n:,}" for what, n in found.counts.items()), soft_wrap=True)
    console.print("ends: " + ", ".join(f"{end} {n:,}" for end, n in found.ends.most_common()))
    slowest = sorted(run.stalls, reverse=True)[:5]
    console.print(
        "slowest to move again: " + ", ".join(f"{what} {took:.1f} s" for took, what in slowest), soft_wrap=True
    )
    for line in violations:
        console.print(f"[bold red]wrong:[/] {escape(line)}", soft_wrap=True)
    result = {
        "messages": found.counts["accepted in Kafka"], "faults": dict(sorted(run.done.items())), "lost": len(found.lost),
        "two_ends": len(found.two_ends), "duplicates": len(found.duplicates), "after_no_reply": found.unanswered,
        "unflagged_duplicates": len(found.unflagged), "counter_errors": len(wrong), "differences": len(found.differences),
        "stalled_s_max": round(slowest[0][0], 1) if slowest else 0.0, "seconds": round(time.monotonic() - run.began, 1),
        "seed": run.seed,
    }  # fmt: skip
    print("RESULT", json.dumps(result))
    return 1 if violations else 0


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.chaos", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3, help="of one fault of each kind")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000))
    parser.add_argument("--rate", type=float, default=85.0, help="messages a second")
    parser.add_argument("--slower", type=float, default=1.0, help="than the machine that standstills were limited for")
    parser.add_argument("--folder", type=Path, default=STATE / "chaos", help="emptied first; kept afterwards")
    given = parser.parse_args()
    os.chdir(ROOT)
    stop_on_signals()
    for noisy in ("aiokafka", "asyncio"):  # that a broker is dead is no news here
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    return chaos(given.folder.absolute(), console, given.messages, given.rounds, given.seed, given.rate, given.slower)


if __name__ == "__main__":
    sys.exit(main())
