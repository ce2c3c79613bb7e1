"""The demo's load on a running road: tenants and lists by the command line, the producer's process, the wait for all ends."""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from subprocess import Popen

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from analytics.clickhouse import WarehouseError
from deploy.local import child
from loadtest.demo import tenants
from loadtest.demo.checks import Account, Acknowledged, Expected, account, expected
from loadtest.demo.ledger import Life, dead_letters, lives, progress
from loadtest.demo.plan import SEED, Planned, make, suppressed
from loadtest.demo.road import Road, RoadError
from loadtest.mxfarm import DkimResult, Receipt
from loadtest.mxfarm.receipts import TXT
from loadtest.mxfarm.signatures import Verifier

# Short waits: what takes hours with real sites is to be seen in a minute.
SETTINGS = {
    "smtp_timeout_scale": 0.02,  # 6 s for a banner, where RFC 5321 gives 5 minutes
    "retry_delays_s": [2.0, 3.0, 5.0],
    "greylist_s": [2.5, 3.0],
}
SHAPING = """
[site."limited.test"]
connections = 2
[site."accept.test"]
connections = 20
new_connections_per_minute = 6000
messages_per_second = 1000
"""
RATE = (
    150.0  # submissions a second: below what two cores carry, so that latencies are those of the road, not of a queue
)
LOOK_S = 1.0
SAY_S = 5.0  # between lines where the output is no terminal
STALLED_S = 60.0  # no message ended for so long: longer than the 30 s that a failing name server costs


class Load:
    """One run of the plan."""

    def __init__(self, road: Road, console: Console):
        self.road, self.console = road, console
        self.plan: list[Planned] = make()
        self.acknowledged: list[Acknowledged] = []
        self.accepted = self.ended = 0
        self._notes = road.folder / "acknowledged.jsonl"
        self._read = 0
        self._verified: list[tuple[Receipt, list[DkimResult]]] = []
        self._verifier: Verifier | None = None
        self._producer: Popen[bytes] | None = None

    def prepare(self) -> None:
        """Tenants with new keys, and two suppression lists."""
        file = tenants.write(self.road.folder, self.road.farm.folder)
        mine, everybody = suppressed()
        for arguments in (
            ["tenants", "apply", str(file)],
            ["suppressions", "add", *mine, "--tenant", tenants.BOOKS, "--detail", "asked us to stop"],
            ["suppressions", "add", *everybody, "--detail", "complained"],
        ):
            self.console.print(
                f"[bold]$ postroad {' '.join(arguments[:2])}[/] ...", self.road.cli(*arguments).strip()[:100]
            )

    @contextmanager
    def producing(self, rate: float = RATE) -> Iterator[None]:
        """The producer's process, ended with the block."""
        command = [sys.executable, "-m", "loadtest.demo.producer", "--kafka", self.road.installation.bootstrap]
        command += ["--data-dir", str(self.road.installation.data_dir), "--notes", str(self._notes)]
        self._notes.touch()
        self._producer = child.spawn(
            [*command, "--seed", str(SEED), "--rate", str(rate)],
            self.road.folder / "producer.log",
            env=self.road.environment,
        )
        try:
            yield
        finally:
            child.stop(self._producer, 5.0)

    def look(self) -> None:
        """Read what producer and ledger say by now. Raises RoadError when one of the processes has ended."""
        with self._notes.open("rb") as notes:
            notes.seek(self._read)
            data = notes.read()
        data = data[: data.rfind(b"\n") + 1]
        self._read += len(data)
        self.acknowledged += [json.loads(line) for line in data.splitlines()]
        if self._producer is not None and self._producer.poll():
            raise RoadError(f"the producer ended with status {self._producer.returncode}")
        self.road.check_running()
        try:
            self.accepted, self.ended = progress(self.road.warehouse)
        except WarehouseError:  # the sink is just starting; a road that stays silent is found out by `wait`
            return

    def wait(self, until: Callable[[], bool] | None = None) -> bool:
        """Show progress until all messages have ended, or until `until`; False when nothing ends any more."""
        moved, before, said = time.monotonic(), (0, 0), 0.0
        with self._shown() as show:
            while True:
                self.look()
                now = time.monotonic()
                if (here := (len(self.acknowledged), self.ended)) != before:
                    moved, before = now, here
                wanted = len(self.expected())
                show(wanted)
                if not self.console.is_terminal and now - said > SAY_S:
                    said = now
                    self.console.print(f"written {here[0]:,} of {len(self.plan):,}, ended {self.ended:,} of {wanted:,}")
                if until is not None and until():
                    return True
                if here[0] == len(self.plan) and self.ended >= wanted:
                    return True
                if now - moved > STALLED_S:
                    return False
                if here[0] == len(self.plan):  # before that, the processor is the road's
                    self._verify(now + LOOK_S)
                time.sleep(max(0.0, now + LOOK_S - time.monotonic()))

    @contextmanager
    def _shown(self) -> Iterator[Callable[[int], None]]:
        if not self.console.is_terminal:
            yield lambda wanted: None
            return
        columns = (TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True) as bars:
            written: TaskID = bars.add_task("submissions written", total=len(self.plan))
            ended: TaskID = bars.add_task("messages ended", total=None)

            def show(wanted: int) -> None:
                bars.update(written, completed=len(self.acknowledged))
                bars.update(ended, completed=self.ended, total=wanted)

            yield show

    def _verify(self, until: float = math.inf) -> list[tuple[Receipt, list[DkimResult]]]:
        """Every receipt with the results of its signatures, as far as there is time `until` (monotonic)."""
        receipts = self.road.farm.receipts
        if self._verifier is None:
            self._verifier = Verifier(json.loads((receipts.folder / TXT).read_text("utf-8")))
        for receipt in islice(receipts, len(self._verified), None):
            if time.monotonic() > until:
                break
            self._verified.append((receipt, self._verifier.verify(receipts.raw(receipt))))
        return self._verified

    def expected(self) -> dict[str, Expected]:
        """The messages that Kafka has acknowledged so far."""
        return expected(self.plan, self.acknowledged)

    def settle(self) -> tuple[Account, dict[str, Life], set[str]]:
        """Compare plan, ledger and farm: (the account; the ledger; the dead letters)."""
        found = lives(self.road.warehouse)
        put_aside = asyncio.run(dead_letters(self.road.installation))
        result = account(self.expected(), found, self._verify())
        planned = sum(not planned.ends for planned in self.plan)
        if len(put_aside) != planned:
            result.differs.append(
                f"dead letters: {planned} planned, {len(put_aside)} found ({', '.join(sorted(put_aside)[:5])})"
            )
        return result, found, put_aside
