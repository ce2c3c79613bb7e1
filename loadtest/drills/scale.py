"""Load rises tenfold and falls again; workers of a stage go from 1 to 4 and back by the rule that KEDA would follow.

    make drill-scale [SHORT=1]      # python -m loadtest.drills.scale [--short] [--stages send ..] [--folder FOLDER]

One worker of each stage, one broker, the farm, whose sites take their time to answer: so one worker of send carries a quarter of what
comes at the height, whatever the machine has. The local autoscaler (deploy/local/autoscale.py) looks at the lag and starts and ends
workers; its shares are the chart's rule with a smaller `lagPerReplica` and shorter waits, printed at the start. At the end every message
is accounted for as after a chaos run. Last line RESULT; exit status 1 when one was lost or doubled unflagged, when the stage did not go
to 4 and back, or a worker did not leave cleanly.

`drained_s`: from the end of the rise until no more waits in front of the stage than one worker should have. `pause_s`: around
each change, the longest time in which mail waited in front of send and none was taken by a site; `partition_pause_s`: the same of each
partition; `quiet_pause_s`: of each partition in 3 s in which nothing changed, which is what the measure itself has.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from agents.worker import STAGES
from analytics.clickhouse import Warehouse, WarehouseError, connect
from analytics.reading import Reader
from deploy.local import ROOT, STATE, child
from deploy.local.autoscale import Autoscaler, Rule, rules
from deploy.local.kafka import Kafka, free_port
from loadtest.chaos.account import account
from loadtest.chaos.fleet import Fleet, Worker
from loadtest.chaos.load import SETTINGS, SHAPING, Load
from loadtest.chaos.watch import Watch
from loadtest.demo.ledger import progress
from loadtest.demo.road import fresh, stop_on_signals
from loadtest.drills.pauses import joined, longest, match, pauses, percentile
from loadtest.mxfarm import Farm
from postroad.returnpath import named
from topics import admin
from topics.catalogue import OUTBOUND, OUTBOUND_BROADCAST
from topics.installation import Installation

PARTITIONS, MOST = 8, 4
LAG_PER_REPLICA = 75  # the chart's numbers are for machines with a core a worker
CONCURRENCY, DELAY_MS = 2, 25.0  # deliveries at a time of one worker, each four replies long: some 15 messages a second
SETTLES_MS = 3_000  # after a change
PAUSE_MAX_S = 3.0
GIVE_UP_S = 90.0
LOOK_S = 0.1


@dataclass(frozen=True)
class Form:
    """How long what takes (s), and the rates (messages a second)."""

    before_s: float = 8.0
    surge_s: float = 120.0
    after_s: float = 75.0
    rate: float = 4.0
    times: float = 10.0
    look_s: float = 8.0
    down_after_s: float = 15.0
    down_every_s: float = 8.0

    @property
    def messages(self) -> int:
        return round(self.rate * (self.before_s + self.times * self.surge_s + self.after_s))

    @property
    def surge(self) -> tuple[float, float, float]:
        return self.before_s, self.before_s + self.surge_s, self.rate * self.times


SHORT = Form(before_s=10.0, surge_s=30.0, after_s=55.0, down_after_s=8.0)


@dataclass
class Change:
    """From so many to so many replicas of a stage, begun and ended at a time (ms since 1970); `joined`: until they are ready."""

    stage: str
    before: int
    after: int
    begin: int
    end: int = 0
    joined: list[Worker] = field(default_factory=list)


class Drill:
    """One run; what goes on while time passes."""

    def __init__(
        self, fleet: Fleet, load: Load, watch: Watch, scaled: Mapping[str, Rule], form: Form, console: Console
    ):  # fmt: skip
        self.fleet, self.load, self.watch, self.form, self.console = fleet, load, watch, form, console
        self.scaled, self.changes = scaled, list[Change]()
        self.violations: list[str] = []
        self.lag_max, self.drained_s = 0, 0.0
        self.autoscaler = Autoscaler(scaled, lambda stage: len(fleet.of(stage)), self.resize)
        self._began, self._next_look = time.monotonic(), 0.0

    @property
    def now_s(self) -> float:
        """Since the load began."""
        return time.monotonic() - self._began

    def begin(self) -> None:
        """The load begins now."""
        self._began = time.monotonic()
        self.load.start(self.form.rate, self.form.surge)

    def say(self, text: str) -> None:
        self.console.print(f"{self.now_s:6.1f} s  {self.load.acknowledged:6,}  {text}", soft_wrap=True)

    def resize(self, stage: str, replicas: int) -> None:
        """Start workers, or end those with the highest numbers, as a StatefulSet does."""
        here = self.fleet.of(stage)
        change = Change(stage, len(here), replicas, _now_ms())
        self.changes.append(change)
        change.joined = [self.fleet.join(stage) for _ in range(replicas - len(here))]
        for worker in sorted(here, key=lambda one: one.ordinal)[replicas:]:
            if status := self.fleet.leave(worker):
                self.violations.append(f"{worker.name} left SIGTERM with status {status}")
        if not change.joined:
            change.end = _now_ms()

    def look(self) -> None:
        """One look at everything."""
        self.fleet.look()
        self.load.look()
        for change in self.changes:
            if not change.end and not self.fleet.unready(change.joined):
                change.end = _now_ms()
        lags = self.lags()
        waits = sum(lags[stage].get(topic, 0) for stage, rule in self.scaled.items() for topic in rule.topics)
        self.lag_max = max(self.lag_max, waits)
        over = self.form.surge[1]
        if (
            not self.drained_s
            and self.now_s > over
            and waits <= sum(r.lag_per_replica * r.low for r in self.scaled.values())
        ):
            self.drained_s = self.now_s - over
            self.say(f"drained {self.drained_s:.1f} s after the rise")
        if time.monotonic() >= self._next_look and self.watch.looked_at:
            self._next_look = time.monotonic() + self.form.look_s
            for stage, before, after in self.autoscaler.look(lags):
                self.say(f"{stage}: {before} -> {after} workers, {sum(lags[stage].values()):,} wait")

    def waiting(self) -> str:
        """What waits where, as words."""
        lags = {stage: sum(topics.values()) for stage, topics in self.lags().items()}
        return ", ".join(f"{stage} {lag:,}" for stage, lag in lags.items() if lag) or "nothing"

    def lags(self) -> defaultdict[str, dict[str, int]]:
        """By stage and topic."""
        found: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for (stage, topic, _), place in list(self.watch.places.items()):
            found[stage][topic] = found[stage].get(topic, 0) + place.lag
        return found

    def run(self, warehouse: Warehouse) -> None:
        """Until all was written, has ended, and one worker is left."""
        moved, before, said = time.monotonic(), (0, 0), 0.0
        while True:
            self.look()
            time.sleep(LOOK_S)
            if not self.load.done:
                moved = time.monotonic()
                continue
            if time.monotonic() - said < 2.0:
                continue
            said = time.monotonic()
            try:
                here = progress(warehouse)
            except WarehouseError:
                here = before
            if here != before:
                before, moved = here, time.monotonic()
            self.say(f"accepted {here[0]:,}, ended {here[1]:,}, wait: {self.waiting()}")
            low = all(len(self.fleet.of(stage)) == rule.low for stage, rule in self.scaled.items())
            if low and here[0] >= self.load.acknowledged and here[1] >= here[0] and not self.watch.lag():
                return
            if time.monotonic() - moved > GIVE_UP_S:
                self.violations.append(
                    f"accepted {here[0]}, ended {here[1]}, {self.watch.lag()} records wait: nothing moves"
                )
                return

    def use(self) -> dict[str, tuple[int, float]]:
        """Of each stage's first worker: MiB of memory, CPU in ms for each message so far."""
        found = {}
        for stage in STAGES:
            worker = self.fleet.of(stage)[0]
            found[stage] = (
                round(child.rss_mib(worker.pid)),
                round(1000 * child.cpu_s(worker.pid) / max(1, self.load.acknowledged), 2),
            )
        return found


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


async def _waited(installation: Installation) -> dict[str, list[tuple[int, int]]]:
    """Partition and time of each record in front of send, by message."""
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    async with Reader(installation) as reader:
        for topic in (OUTBOUND, OUTBOUND_BROADCAST):
            async for record, message in reader.read(topic):
                found[message["message_id"]].append((record.partition, record.timestamp))
    return found


def _stopped(drill: Drill, installation: Installation) -> tuple[list[float], list[float], list[float]]:
    """The pauses around changes: of each partition of send, of all of them together; of each partition while nothing changed."""
    received: dict[str, int] = {}
    for receipt in drill.load.farm.receipts:
        if receipt.site == "accept" and receipt.answered:
            message = named(receipt.mail_from)
            received[message] = min(receipt.time, received.get(message, receipt.time))
    windows = joined((change.begin, (change.end or _now_ms()) + SETTLES_MS) for change in drill.changes)
    taken = match(asyncio.run(_waited(installation)), received)
    (drill.fleet.folder / "pauses.json").write_text(json.dumps({"taken": taken, "windows": windows}), "utf-8")
    each, together = pauses(taken), pauses([one._replace(partition=0) for one in taken])
    times = range(min(received.values(), default=0), max(received.values(), default=0), SETTLES_MS)
    quiet = [
        (at, at + SETTLES_MS)
        for at in times
        if not any(at <= end and at + SETTLES_MS >= begin for begin, end in windows)
    ]
    return longest(each, windows), longest(together, windows), longest(each, quiet)


def _shares(values: list[float]) -> dict[str, float]:
    found = {name: round(percentile(values, share), 2) for name, share in (("p50", 0.5), ("p95", 0.95), ("max", 1.0))}
    return {**found, "of": len(values)}


def drill(folder: Path, console: Console, form: Form, stages: list[str], seed: int) -> int:
    """One run; returns the exit status."""
    began = time.monotonic()
    chart = {stage: rule for stage, rule in rules(PARTITIONS).items() if stage in stages}
    scaled = {
        stage: replace(rule, lag_per_replica=LAG_PER_REPLICA, high=min(MOST, rule.high), up_every_s=form.look_s,
                       down_after_s=form.down_after_s, down_every_s=form.down_every_s)
        for stage, rule in chart.items()
    }  # fmt: skip
    for stage, rule in scaled.items():
        console.print(f"{stage}: the chart's rule is {chart[stage]}", soft_wrap=True)
        console.print(f"{stage}: here it is {rule}", soft_wrap=True)
    with fresh(folder), ExitStack() as stack:
        kafka = Kafka(folder / "kafka").start()
        stack.callback(kafka.kill)
        farm = Farm.start(folder / "farm")
        stack.callback(farm.stop)
        farm.control({"sites": {"accept": {"delay_ms": DELAY_MS}}})
        installation = Installation(kafka.bootstrap, partitions=PARTITIONS, data_dir=folder / "data")
        asyncio.run(admin.ensure(installation))
        clickhouse = f"127.0.0.1:{free_port()}"
        settings: dict[str, Any] = {
            **SETTINGS, "kafka": kafka.bootstrap, "partitions": PARTITIONS, "dns_servers": [farm.dns], "smtp_port": farm.smtp_port,
            "clickhouse_http": clickhouse, "send_concurrency": CONCURRENCY,
        }  # fmt: skip
        load = Load(installation, folder, farm, form.messages, seed)
        load.prepare()
        fleet = Fleet(folder, settings, STAGES, each=1, shaping=SHAPING)
        stack.callback(fleet.stop, 2.0)
        watch = stack.enter_context(Watch(installation, STAGES))
        run = Drill(fleet, load, watch, scaled, form, console)
        fleet.start()
        run.say(f"{len(fleet.workers)} workers are ready after {time.monotonic() - began:.1f} s")
        stack.callback(load.stop)
        run.begin()
        warehouse = connect(f"http://{clickhouse}")
        run.run(warehouse)
        run.say("counting")
        use = run.use()
        found = account(load, warehouse)  # chdb is in the sink's process, so before the end
        stopped, road, quiet = _stopped(run, installation)
        run.violations += [
            f"{name} left SIGTERM with status {status}" for name, status in fleet.stop().items() if status
        ]
    steps = {
        stage: [c.before for c in run.changes if c.stage == stage][:1]
        + [c.after for c in run.changes if c.stage == stage]
        for stage in scaled
    }
    for stage, rule in scaled.items():
        if not steps[stage] or max(steps[stage]) != rule.high or steps[stage][-1] != rule.low:
            run.violations.append(f"{stage} went {steps[stage]}, not to {rule.high} and back to {rule.low}")
    violations = [*run.violations, *found.differences]
    console.print("counts: " + ", ".join(f"{what} {n:,}" for what, n in found.counts.items()), soft_wrap=True)
    console.print("ends: " + ", ".join(f"{end} {n:,}" for end, n in Counter(found.ends).most_common()))
    console.print(
        "MiB, CPU ms a message: " + ", ".join(f"{stage} {mib}, {ms}" for stage, (mib, ms) in use.items()),
        soft_wrap=True,
    )
    for line in violations:
        console.print(f"[bold red]wrong:[/] {escape(line)}", soft_wrap=True)
    if percentile(road, 0.95) > PAUSE_MAX_S:
        console.print(f"[bold red]missed:[/] p95 of the pauses is above {PAUSE_MAX_S:g} s")
    result = {
        "messages": found.counts["accepted in Kafka"], "lost": len(found.lost), "two_ends": len(found.two_ends),
        "duplicates": len(found.duplicates), "unflagged_duplicates": len(found.unflagged), "differences": len(found.differences),
        "replicas": steps, "lag_max": run.lag_max, "drained_s": round(run.drained_s, 1), "changes": len(run.changes),
        "pause_s": _shares(road), "partition_pause_s": _shares(stopped), "quiet_pause_s": _shares(quiet),
        "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip
    print("RESULT", json.dumps(result))
    return 1 if violations or found.lost or found.two_ends or found.unflagged else 0


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.drills.scale", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--short", action="store_true", help="40 s of height, shorter waits: under three minutes")
    parser.add_argument("--stages", nargs="+", default=["send"], choices=STAGES, help="that are scaled")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=STATE / "drill-scale", help="emptied first; kept afterwards")
    given = parser.parse_args()
    os.chdir(ROOT)
    stop_on_signals()
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    return drill(given.folder.absolute(), console, SHORT if given.short else Form(), given.stages, given.seed)


if __name__ == "__main__":
    sys.exit(main())
