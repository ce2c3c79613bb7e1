"""A region is lost in the middle of the load, another takes over, and what it had not comes from the lost one's log.

    make drill-region [SHORT=1]      # python -m loadtest.drills.region [--short] [--folder FOLDER]

Two clusters of one broker each, MirrorMaker 2 from A to B, one worker of each stage in A. Topics and changelogs have a mirror each: that of the
topics breaks first, so that the tables in B know more than there is mail; then the other; then A is gone, its broker and every worker by kill -9. Then docs/runbooks/region-lost.md is done: `postroad region take-over`, workers on B with
empty tables, the producer on B. When all of it has ended A's broker comes back, without workers, and `postroad region missing` lists and
writes again what only A had. At the end every message that a producer got acknowledged, by A or by B, must have its one end in B.
Last line RESULT; exit status 1 when a message was lost, has two ends, was doubled unflagged, or when the counts differ.

`recovery_point_s`: from the time that A gave the first record that B had not, to the loss; `not_mirrored`: messages of those records.
`recovery_s`: from the loss until a site took the first mail from B; of it `take_over_s` the command, `ready_s` until B's workers were ready.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from agents.worker import STAGES
from analytics import audit
from analytics.clickhouse import Warehouse, WarehouseError, connect
from analytics.reading import Reader
from deploy.local import ROOT, STATE
from deploy.local.kafka import Kafka, free_port
from deploy.local.mirror import MAIL, TABLES, Mirror
from loadtest.chaos import reading
from loadtest.chaos.account import KINDS, Account, Sent, compare, lives, put_aside, reports
from loadtest.chaos.fleet import Fleet
from loadtest.chaos.load import SETTINGS, SHAPING, Load
from loadtest.chaos.plan import plan
from loadtest.chaos.watch import Watch
from loadtest.demo.ledger import STEPS, gather, progress
from loadtest.demo.road import RoadError, fresh, stop_on_signals
from loadtest.mxfarm import Farm
from postroad.ids import message_id
from postroad.intake import distinct
from topics import admin
from topics.catalogue import BROADCASTS, SUBMISSIONS, TENANTS, origin, place_of
from topics.installation import Installation

PARTITIONS = 4
LINE_S = 1.0  # from the end of one copy to that of the other, and from there to the loss of A
MIRROR_TIMEOUT_S, COMMAND_TIMEOUT_S, GIVE_UP_S = 60.0, 120.0, 60.0
LOOK_S = 0.2


@dataclass(frozen=True)
class Form:
    """How much mail, messages a second, and the share that was acknowledged when A is lost."""

    messages: int = 4_000
    rate: float = 40.0
    share: float = 0.5


SHORT = Form(messages=1_200, rate=40.0)


class Region:
    """A cluster and the workers on it, which are started by themselves."""

    def __init__(self, folder: Path, farm: Farm, content: Path):
        self.kafka = Kafka(folder / "kafka").start()
        self.installation = Installation(self.kafka.bootstrap, partitions=PARTITIONS, data_dir=folder / "data")
        clickhouse = f"127.0.0.1:{free_port()}"
        self.warehouse: Warehouse = connect(f"http://{clickhouse}")
        settings: dict[str, Any] = {
            **SETTINGS, "kafka": self.kafka.bootstrap, "partitions": PARTITIONS, "dns_servers": [farm.dns], "smtp_port": farm.smtp_port,
            "clickhouse_http": clickhouse, "content_url": content.as_uri(),
        }  # fmt: skip
        self.fleet = Fleet(folder, settings, STAGES, each=1, shaping=SHAPING)

    def cli(self, *words: str, allowed: tuple[int, ...] = (0,)) -> str:
        """What `postroad WORDS` prints here. Raises RoadError with its words when it fails."""
        command = [sys.executable, "-m", "postroad", *words]
        done = subprocess.run(
            command, capture_output=True, text=True, env=self.fleet.environment, timeout=COMMAND_TIMEOUT_S
        )
        if done.returncode not in allowed:
            raise RoadError(f"`postroad {' '.join(words)}` ended with status {done.returncode}:\n{done.stderr}")
        return done.stdout

    def lose(self) -> None:
        """kill -9 of everything."""
        self.kafka.kill()
        for worker in self.fleet.workers:
            self.fleet.kill(worker)
        self.fleet.stop(0.0)


class Drill:
    """One run."""

    def __init__(self, load: Load, console: Console):
        self.load, self.console, self._began = load, console, time.monotonic()
        self.violations: list[str] = []

    def say(self, text: str) -> None:
        self.console.print(
            f"{time.monotonic() - self._began:6.1f} s  {self.load.acknowledged:6,}  {text}", soft_wrap=True
        )

    def wait(self, fleet: Fleet, until: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Raises RoadError when it does not become so."""
        deadline = time.monotonic() + timeout_s
        while not until():
            if time.monotonic() > deadline:
                raise RoadError(f"{what}: not after {timeout_s:g} s")
            fleet.look()
            self.load.look()
            time.sleep(LOOK_S)

    def wait_s(self, fleet: Fleet, seconds: float) -> None:
        """So long."""
        until = time.monotonic() + seconds
        self.wait(fleet, lambda: time.monotonic() >= until, 10 * seconds, "time passes")

    def drain(self, region: Region, watch: Watch) -> None:
        """Until all is written and has ended, or nothing moves."""
        before, moved, since = (0, 0), time.monotonic(), time.monotonic()
        while True:
            region.fleet.look()
            self.load.look()
            time.sleep(1.0)
            try:
                here = progress(region.warehouse)
            except WarehouseError:
                here = before
            if here != before:
                before, moved = here, time.monotonic()
                self.say(f"accepted {here[0]:,}, ended {here[1]:,}, {watch.lag():,} records wait")
            if (
                self.load.done
                and here[0]
                and here[1] >= here[0]
                and not watch.lag()
                and watch.looked_at > since + 2.0
                and time.monotonic() - moved > 2.0
            ):
                return
            if time.monotonic() - moved > GIVE_UP_S:
                self.violations.append(
                    f"accepted {here[0]}, ended {here[1]}, {watch.lag()} records wait: nothing moves"
                )
                return


async def accepted(b: Installation, load: Load, of_a: set[int]) -> Sent:
    """What was acknowledged, by either region (`of_a`: by A, by place in the plan), and what lies in B besides."""
    sent = Sent()
    for one in plan(load.planned, load.seed):
        if (answer := load.acknowledgements.get(one.place)) is None or answer["offset"] < 0:
            continue
        pair = one.submission["tenant"], one.submission["submission_id"]
        at, place = answer["timestamp"], f"{answer['partition']}:{answer['offset']}"
        what = f"{one.kind}, submission {one.place}, acknowledged by {'A' if one.place in of_a else 'B'} at {place}"
        for recipient in distinct(one.submission["recipients"]):
            sent.acknowledged[message_id(at, *pair, place, recipient["address"])] = what
    async with Reader(b) as reader:
        for topic in (SUBMISSIONS, BROADCASTS):
            async for record, submission in reader.read(topic):
                own = place_of(record.topic, record.partition, record.offset)
                first = origin(record.headers, own, record.timestamp)
                for recipient in distinct(submission["recipients"]):
                    id = message_id(
                        first.at, submission["tenant"], submission["submission_id"], first.place, recipient["address"]
                    )
                    if id not in sent.acknowledged:
                        sent.unacknowledged[id] = f"{submission['submission_id']} at {first.place}"
    return sent


async def count(b: Region, load: Load, of_a: set[int]) -> Account:
    """The account of a chaos run, with the acknowledgements of both regions and the ledgers of B."""
    letters = await reading.letters(b.installation)
    sent = await accepted(b.installation, load, of_a)
    async with Reader(b.installation) as reader:
        kafka, last, alarms = await lives(reader)
    rows = (await asyncio.to_thread(b.warehouse.query, STEPS, {"kinds": [*KINDS]})).rows
    found = compare(sent, kafka, gather(rows), load.farm.receipts, last)
    told = await audit.from_topics(b.installation), await asyncio.to_thread(audit.from_clickhouse, b.warehouse)
    found.differences += reports(*told) + put_aside(letters, set())
    if alarms:
        found.differences.append(
            f"alarms of the live audit, where nothing is wrong: {len(alarms)} ({', '.join(alarms[:5])})"
        )
    return found


def drill(folder: Path, console: Console, form: Form, seed: int) -> int:
    """One run; returns the exit status."""
    began = time.monotonic()
    with fresh(folder), ExitStack() as stack:
        farm = Farm.start(folder / "farm")
        stack.callback(farm.stop)
        content = folder / "content"  # one for both: the blob store has a mirror of its own
        a, b = (Region(folder / name, farm, content) for name in ("a", "b"))
        for region in (a, b):
            stack.callback(region.kafka.kill)
            stack.callback(region.fleet.stop, 2.0)
        asyncio.run(admin.ensure(a.installation))
        load = Load(a.installation, folder, farm, form.messages, seed)
        load.prepare()
        run = Drill(load, console)
        b.cli("region", "prepare")
        a.fleet.start()
        run.say(f"{len(a.fleet.workers)} workers are ready in A")
        mirrors = [
            Mirror(folder / "mirror" / name, a.kafka.bootstrap, b.kafka.bootstrap, name=name, topics=topics).start()
            for name, topics in (("mail", MAIL), ("tables", TABLES))
        ]
        for mirror in mirrors:
            stack.callback(mirror.kill)
        tenants = sum(asyncio.run(reading.ends(a.installation, TENANTS)))
        run.wait(a.fleet, lambda: sum(asyncio.run(reading.ends(b.installation, TENANTS))) >= tenants, MIRROR_TIMEOUT_S,
                 "\n".join(["the mirrors copy", *(mirror.said() for mirror in mirrors)]))  # fmt: skip
        run.say("the mirror copies")
        stack.callback(load.stop)
        load.start(form.rate)
        run.wait(a.fleet, lambda: load.acknowledged >= form.share * form.messages, 600.0, "half of the load")
        for mirror, what in zip(mirrors, ("topics", "changelogs"), strict=True):
            mirror.kill()
            run.say(f"{what} are not copied any more")
            run.wait_s(a.fleet, LINE_S)
        lost_at, lost_ms = time.monotonic(), time.time_ns() // 1_000_000
        a.lose()
        load.stop()
        of_a = set(load.acknowledgements)
        run.say("A is lost: broker and workers killed by -9")
        taken = json.loads(b.cli("region", "take-over", "--json"))
        take_over_s = time.monotonic() - lost_at
        run.say(f"B has taken over: {taken['resumed']:,} messages go on, {taken['resubmitted']:,} submissions again, "
                f"{len(taken['nowhere']):,} only A knows")  # fmt: skip
        if not sum(taken["dropped"].values()):
            run.violations.append("no changelog was copied: the drill has shown nothing about tables")
        load.installation = b.installation
        load.start(form.rate)
        watch = stack.enter_context(Watch(b.installation, STAGES))
        b.fleet.start()
        ready_s = time.monotonic() - lost_at
        run.say("workers are ready in B")
        run.wait(
            b.fleet, lambda: any(one.time > lost_ms + 100 for one in farm.receipts), GIVE_UP_S, "a first mail from B"
        )
        recovery_s = (min(one.time for one in farm.receipts if one.time > lost_ms + 100) - lost_ms) / 1000
        run.drain(b, watch)
        a.kafka.start()
        listed = [json.loads(line) for line in
                  b.cli("region", "missing", "--from", a.kafka.bootstrap, "--json", allowed=(0, 1)).splitlines()]  # fmt: skip
        run.say(
            f"A is back: {len(listed):,} submissions, {sum(len(one['messages']) for one in listed):,} messages were not mirrored"
        )
        b.cli("region", "missing", "--from", a.kafka.bootstrap, "--resubmit")
        run.drain(b, watch)
        left = b.cli("region", "missing", "--from", a.kafka.bootstrap, "--json", allowed=(0, 1)).splitlines()
        if left:
            run.violations.append(f"{len(left)} submissions of A are still not in B")
        run.say("counting")
        found = asyncio.run(count(b, load, of_a))
        run.violations += [
            f"{name} left SIGTERM with status {status}" for name, status in b.fleet.stop().items() if status
        ]
    ids = [id for one in listed for id in one["messages"]]
    point = max([lost_ms - (int(id[:10], 32) >> 2) for id in ids], default=0) / 1000
    violations = [*run.violations, *found.differences]
    console.print("counts: " + ", ".join(f"{what} {n:,}" for what, n in found.counts.items()), soft_wrap=True)
    console.print("ends: " + ", ".join(f"{end} {n:,}" for end, n in Counter(found.ends).most_common()))
    for line in violations:
        console.print(f"[bold red]wrong:[/] {escape(line)}", soft_wrap=True)
    result = {
        "messages": found.counts["accepted in Kafka"], "lost": len(found.lost), "two_ends": len(found.two_ends),
        "duplicates": len(found.duplicates), "unflagged_duplicates": len(found.unflagged), "differences": len(found.differences),
        "not_mirrored": len(ids), "resumed": taken["resumed"], "resubmitted": taken["resubmitted"] + len(listed),
        "recovery_point_s": round(point, 2), "take_over_s": round(take_over_s, 1), "ready_s": round(ready_s, 1),
        "recovery_s": round(recovery_s, 1), "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip
    print("RESULT", json.dumps(result))
    return 1 if violations or found.lost or found.two_ends or found.unflagged else 0


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.drills.region", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--short", action="store_true", help="a third of the mail")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=STATE / "drill-region", help="emptied first; kept afterwards")
    given = parser.parse_args()
    os.chdir(ROOT)
    stop_on_signals()
    for noisy in ("aiokafka", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    try:
        return drill(given.folder.absolute(), console, SHORT if given.short else Form(), given.seed)
    except RoadError as error:
        print(f"drills.region: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
