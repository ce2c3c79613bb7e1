"""Every worker is replaced by one of the next release, one after another, under load.

    make drill-upgrade [SHORT=1]      # python -m loadtest.drills.upgrade [--short] [--folder FOLDER]

The next release is a copy of this one with a field more in Message and in the values of tables (loadtest/drills/release.py). Stages go from the
end of the road to its beginning, as docs/runbooks/rolling-upgrade.md has it: SIGTERM, the worker finishes what it has begun and ends, the new
one starts on the same folder, is ready, and the next one's turn comes when nothing of the stage stands still. With --back the first release
comes back afterwards, from the beginning to the end. At the end every message is accounted for as after a chaos run.
Last line RESULT; exit status 1 when a message was lost, has two ends, was doubled unflagged, when a worker did not end with status 0, when one of
the two releases has written nothing, or when there are dead letters.

`pause_s`: of each replacement, the longest time in which a partition of the stage had records and committed none; `away_s`: from SIGTERM until
the new worker was ready.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

import avro
from agents.worker import STAGES
from analytics.clickhouse import Warehouse, WarehouseError, connect
from deploy.local import ROOT, STATE
from deploy.local.kafka import Kafka, free_port
from loadtest.chaos import reading
from loadtest.chaos.account import account
from loadtest.chaos.fleet import Fleet, FleetError, Worker
from loadtest.chaos.load import SETTINGS, SHAPING, Load
from loadtest.chaos.watch import Watch
from loadtest.demo.ledger import progress
from loadtest.demo.road import RoadError, fresh, stop_on_signals
from loadtest.drills.pauses import percentile
from loadtest.drills.release import add_campaign, newer_release
from loadtest.mxfarm import Farm
from topics import admin
from topics.catalogue import SCHEMAS, VALIDATED
from topics.codec import Codec
from topics.installation import Installation
from topics.writers import Writers

PARTITIONS = 4
ORDER = ("events_sink", "audit", "notify", "reputation", "classify", "schedule", "send", "route", "suppress", "score", "validate",
         "ingest")  # fmt: skip
MOST = 50_000  # messages; the producer is stopped when the last worker is replaced
AFTER_S, MOVES_S, GIVE_UP_S = 4.0, 20.0, 60.0
PAUSE_MAX_S = 10.0


@dataclass(frozen=True)
class Form:
    """Workers of each stage, messages a second."""

    each: int = 2
    rate: float = 20.0


SHORT = Form(each=1)


class Drill:
    """One run."""

    def __init__(self, fleet: Fleet, load: Load, watch: Watch, console: Console):
        self.fleet, self.load, self.watch, self.console = fleet, load, watch, console
        self.violations: list[str] = []
        self.pauses: list[float] = []
        self.away: list[float] = []
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        self.console.print(
            f"{time.monotonic() - self._began:6.1f} s  {self.load.acknowledged:6,}  {text}", soft_wrap=True
        )

    def wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.fleet.look()
            self.load.look()
            time.sleep(0.1)

    def replace(self, worker: Worker, environment: dict[str, str]) -> None:
        """One worker by one of the release that `environment` leads to."""
        self.watch.longest_s, began = 0.0, time.monotonic()
        worker.environment = {**worker.environment, **environment}
        status = self.fleet.restart(worker)[worker.name]
        if status:
            self.violations.append(f"{worker.name} left SIGTERM with status {status}")
        self.fleet.wait_ready([worker])
        away = time.monotonic() - began
        while self.watch.looked_at <= began or self.watch.standing(began):
            if time.monotonic() - began > away + MOVES_S:
                self.violations.append(f"{worker.name}: the road does not move again")
                break
            self.wait(0.2)
        self.away.append(away)
        self.pauses.append(self.watch.longest_s)
        self.say(f"{worker.name}: away {away:.1f} s, longest pause {self.watch.longest_s:.1f} s {self.watch.where}")

    def drain(self, warehouse: Warehouse) -> None:
        """Until everything that was accepted has ended, or nothing moves. The producer has stopped."""
        before, moved = (0, 0), time.monotonic()
        while True:
            self.fleet.look()
            time.sleep(1.0)
            try:
                here = progress(warehouse)
            except WarehouseError:
                here = before
            if here != before:
                before, moved = here, time.monotonic()
            if here[0] >= self.load.acknowledged and here[1] >= here[0] and not self.watch.lag():
                return
            if time.monotonic() - moved > GIVE_UP_S:
                self.violations.append(
                    f"accepted {here[0]}, ended {here[1]}, {self.watch.lag()} records wait: nothing moves"
                )
                return


async def written(installation: Installation) -> Counter[str]:
    """Records of mail.validated by the field that the next release alone fills."""
    message = avro.load("Message")
    add_campaign(message)
    codec = Codec(message, look=Writers(installation.bootstrap, installation.name(SCHEMAS)).look)
    found: Counter[str] = Counter()
    async for records in reading.raw(installation, installation.name(VALIDATED), installation.partitions):
        found.update(codec.decode(record.value)["campaign"] for record in records)
    return found


def shares(values: Iterable[float]) -> dict[str, float]:
    """p50, p95 and the largest."""
    known = sorted(values)
    return {name: round(percentile(known, share), 2) for name, share in (("p50", 0.5), ("p95", 0.95), ("max", 1.0))}


def drill(folder: Path, console: Console, form: Form, seed: int, back: bool) -> int:
    """One run; returns the exit status."""
    began = time.monotonic()
    with fresh(folder), ExitStack() as stack:
        newer = {
            "PYTHONPATH": str(newer_release(folder / "newer")),
            "PYTHONSAFEPATH": "1",
        }  # without it the present folder comes first
        kafka = Kafka(folder / "kafka").start()
        stack.callback(kafka.kill)
        farm = Farm.start(folder / "farm")
        stack.callback(farm.stop)
        installation = Installation(kafka.bootstrap, partitions=PARTITIONS, data_dir=folder / "data")
        asyncio.run(admin.ensure(installation))
        clickhouse = f"127.0.0.1:{free_port()}"
        settings: dict[str, Any] = {
            **SETTINGS, "kafka": kafka.bootstrap, "partitions": PARTITIONS, "dns_servers": [farm.dns], "smtp_port": farm.smtp_port,
        }  # fmt: skip
        load = Load(installation, folder, farm, MOST, seed)
        load.prepare()
        fleet = Fleet(folder, settings, STAGES, each=form.each, shaping=SHAPING)
        for worker in fleet.of("events_sink")[:1]:  # chdb's folder is one process's alone
            worker.environment = {**worker.environment, "POSTROAD_CLICKHOUSE_HTTP": clickhouse}
        for worker in fleet.of("events_sink")[1:]:
            fleet.workers.remove(worker)
        stack.callback(fleet.stop, 2.0)
        watch = stack.enter_context(Watch(installation, STAGES))
        run = Drill(fleet, load, watch, console)
        fleet.start()
        run.say(f"{len(fleet.workers)} workers are ready")
        stack.callback(load.stop)
        load.start(form.rate)
        run.wait(AFTER_S)
        for stage in ORDER:
            for worker in list(fleet.of(stage)):
                run.replace(worker, newer)
        run.wait(AFTER_S)
        if back:
            for stage in reversed(ORDER):
                for worker in list(fleet.of(stage)):
                    run.replace(worker, {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": ""})
            run.wait(AFTER_S)
        load.stop()
        warehouse = connect(f"http://{clickhouse}")
        run.drain(warehouse)
        run.say("counting")
        by = asyncio.run(written(installation))
        found = account(load, warehouse)  # chdb is in the sink's process, so before the end
        run.violations += [
            f"{name} left SIGTERM with status {status}" for name, status in fleet.stop().items() if status
        ]
    if not by["spring"] or not by[""]:
        run.violations.append(f"one of the two releases has written nothing: {dict(by)}")
    violations = [*run.violations, *found.differences]
    console.print("counts: " + ", ".join(f"{what} {n:,}" for what, n in found.counts.items()), soft_wrap=True)
    console.print("ends: " + ", ".join(f"{end} {n:,}" for end, n in Counter(found.ends).most_common()))
    for line in violations:
        console.print(f"[bold red]wrong:[/] {escape(line)}", soft_wrap=True)
    if max(run.pauses) > PAUSE_MAX_S:
        console.print(f"[bold red]missed:[/] a pause is above {PAUSE_MAX_S:g} s")
    result = {
        "messages": found.counts["accepted in Kafka"], "lost": len(found.lost), "two_ends": len(found.two_ends),
        "duplicates": len(found.duplicates), "unflagged_duplicates": len(found.unflagged), "differences": len(found.differences),
        "replaced": len(run.pauses), "by_the_newer": by["spring"], "by_the_older": by[""], "pause_s": shares(run.pauses),
        "away_s": shares(run.away), "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip
    print("RESULT", json.dumps(result))
    return 1 if violations or found.lost or found.two_ends or found.unflagged else 0


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.drills.upgrade", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--short", action="store_true", help="one worker of each stage instead of two")
    parser.add_argument("--back", action="store_true", help="and back to this release")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=STATE / "drill-upgrade", help="emptied first; kept afterwards")
    given = parser.parse_args()
    os.chdir(ROOT)
    stop_on_signals()
    for noisy in ("aiokafka", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    try:
        return drill(given.folder.absolute(), console, SHORT if given.short else Form(), given.seed, given.back)
    except (RoadError, FleetError) as error:
        print(f"drills.upgrade: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
