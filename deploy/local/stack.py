"""`postroad up`: the whole road in the foreground on one machine, and clean up after it.

Children: Kafka, the workers, the inbound MX, REST and SMTP submission where the settings `inbound`, `api` and `submission` name a place, a clickhouse-server where asked for. A child that ends is started again, later each time it
ends soon. SIGINT or SIGTERM stops the workers first (they finish and commit what they have begun), then Kafka. kill -9 of this
process takes the workers with it and tells Kafka to stop; the next start goes on where the last commit was.

Below the folder that holds `data_dir` (by default .local): kafka/, data/, logs/, up.lock.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

from aiokafka.errors import KafkaError
from rich.console import Console
from rich.live import Live
from rich.text import Text

from deploy.local import child
from deploy.local.kafka import LOOPBACK, Kafka
from deploy.local.lag import Meter, line
from postroad.settings import READY_FILE, Settings, without_password
from topics import admin
from topics.installation import Installation

WORKER = (sys.executable, "-m", "postroad", "worker")
INBOUND = (sys.executable, "-m", "postroad", "gateway", "inbound")
API = (sys.executable, "-m", "postroad", "gateway", "api")
SUBMISSION = (sys.executable, "-m", "postroad", "gateway", "smtp")
CLICKHOUSE = "POSTROAD_CLICKHOUSE"
WORKER_GRACE_S = 40.0  # longer than a worker's own (the setting grace_s)
BACKOFF_FIRST_S, BACKOFF_MAX_S = 1.0, 30.0
STEADY_S = 60.0  # a child that ran for so long begins again without a wait
POLL_S, POLL_READY_S = 0.05, 0.5
BUSY_LOOK_S, IDLE_LOOK_S, LOOK_TIMEOUT_S = 2.0, 5.0, 10.0


class StackError(RuntimeError):
    """The stack cannot start; the text says why and what to do."""


class Kept:
    """A child that is started again when it ends: after the first of `backoff_s`, twice as long each time, at most the last."""

    def __init__(
        self, name: str, start: Callable[[], subprocess.Popen[bytes]], log: Path, say: Callable[[str], None],
        ready_file: Path | None = None, *, backoff_s: tuple[float, float] = (BACKOFF_FIRST_S, BACKOFF_MAX_S),
    ):  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None
        self._name, self._start, self._log, self._say, self._ready_file = name, start, log, say, ready_file
        self._started_at = self._not_before = 0.0
        self._backoff_s, self._backoffs = 0.0, backoff_s

    def look(self) -> None:
        """Start it where it does not run and its wait is over."""
        now = time.monotonic()
        if self.process is not None and (status := self.process.poll()) is not None:
            self.process = None
            steady = now - self._started_at > STEADY_S
            first_s, most_s = self._backoffs
            self._backoff_s = first_s if steady or not self._backoff_s else min(self._backoff_s * 2, most_s)
            self._not_before = now + self._backoff_s
            said = child.tail(self._log, 5)
            self._say(
                f"{self._name} ended with status {status}, starts again in {self._backoff_s:g} s; {self._log} ends:\n{said}"
            )
        if self.process is None and now >= self._not_before:
            self.process, self._started_at = self._start(), now

    def ready(self) -> bool:
        """Whether it said so."""
        return self._ready_file is None or self._ready_file.exists()


class Stack:
    """One run of `postroad up`. `workers` names the stages of each worker process."""

    def __init__(
        self, settings: Settings, workers: Sequence[Sequence[str]] = (("all",),), *,
        clickhouse_server: bool = False, console: Console | None = None,
    ):  # fmt: skip
        host, _, port = settings.kafka.rpartition(":")
        if host not in (LOOPBACK, "localhost") or "," in settings.kafka:
            raise StackError(
                f"kafka = {settings.kafka}: `postroad up` starts a broker of its own on {LOOPBACK}; "
                "use `postroad worker` with a cluster"
            )
        self.settings, self.console = settings, console or Console()
        self.installation = Installation(**settings.installation())
        self.home = settings.data_dir.absolute().parent
        self.logs = self.home / "logs"
        self.kafka = Kafka(self.home / "kafka", port=int(port))
        self._stopping = asyncio.Event()
        self._clickhouse_server = clickhouse_server
        self._environment: dict[str, str] = {}
        self._kafka = Kept("Kafka", self._spawn_kafka, self.kafka.folder / "broker.log", self.console.print)
        self._workers = [
            self._child(f"worker {' '.join(stages)}", f"worker-{index}", f"ready-{index}", (*WORKER, *stages))
            for index, stages in enumerate(workers)
        ]
        if settings.inbound:
            self._workers.append(self._child("inbound MX", "inbound", "ready-inbound", INBOUND))
        if settings.api:
            self._workers.append(self._child("REST", "api", "ready-api", API))
        if settings.submission or settings.submission_tls:
            self._workers.append(self._child("SMTP submission", "submission", "ready-submission", SUBMISSION))

    def run(self) -> None:
        """Until SIGINT or SIGTERM. Main thread only. Raises StackError, BrokerUnavailable, TimeoutError, TopicMismatch."""
        self.home.mkdir(parents=True, exist_ok=True)
        with _only_one(self.home / "up.lock"), ExitStack() as services:
            if self._clickhouse_server:
                from analytics.server import Server  # only tests and who asks for it have a clickhouse-server

                server = services.enter_context(Server(self.home / "clickhouse"))
                self._environment[CLICKHOUSE] = server.url
            asyncio.run(self._run())

    async def _run(self) -> None:
        began = time.monotonic()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stopping.set)
        try:
            self._kafka.look()
            await asyncio.to_thread(self.kafka.wait_ready)
            await admin.ensure(self.installation)
            await self._watch(began)
        finally:
            self.console.print("stopping")
            await asyncio.to_thread(self._stop)

    async def _watch(self, began: float) -> None:
        """Keep the children alive and show what they do."""
        shown = ""
        ready = False
        next_look = 0.0
        async with Meter(self.settings.kafka, self.installation.group("")) as meter:
            with Live(console=self.console, auto_refresh=False) if self.console.is_terminal else nullcontext() as live:
                while not self._stopping.is_set():
                    for kept in (self._kafka, *self._workers):
                        kept.look()
                    if not ready and all(kept.ready() for kept in self._workers):
                        ready, next_look = True, 0.0
                        warehouse = self._environment.get(CLICKHOUSE, self.settings.warehouse)
                        self.console.print(
                            f"ready in {time.monotonic() - began:.1f} s: Kafka at {self.settings.kafka}, ClickHouse at {without_password(warehouse) or '-'}"
                        )
                    now = time.monotonic()
                    if ready and now >= next_look:
                        text, busy = await _status(meter)
                        next_look = now + (BUSY_LOOK_S if busy else IDLE_LOOK_S)
                        if live is not None:
                            live.update(Text(text), refresh=True)
                        elif text != shown:
                            self.console.print(text)
                        shown = text
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._stopping.wait(), POLL_READY_S if ready else POLL_S)

    def _spawn_kafka(self) -> subprocess.Popen[bytes]:
        self.kafka.spawn()
        assert self.kafka.process is not None
        return self.kafka.process

    def _child(self, name: str, log_name: str, ready_name: str, command: Sequence[str]) -> Kept:
        ready, log = self.home / ready_name, self.logs / f"{log_name}.log"

        def start() -> subprocess.Popen[bytes]:
            ready.unlink(missing_ok=True)
            environment = {**os.environ, **self._environment, READY_FILE: str(ready)}
            # SIGKILL: while Kafka goes away too a worker can finish nothing, only hold its files against the next one.
            return child.spawn(list(command), log, env=environment, when_we_die=signal.SIGKILL)

        return Kept(name, start, log, self.console.print, ready)

    def _stop(self) -> None:
        """Workers first, all at once; then Kafka, which takes their last commits."""
        running = [kept.process for kept in self._workers if kept.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + WORKER_GRACE_S
        for process in running:
            child.stop(process, max(0.1, deadline - time.monotonic()))
        self.kafka.stop()


async def _status(meter: Meter) -> tuple[str, bool]:
    """The line to show, and whether anything moves or waits."""
    try:
        loads = await asyncio.wait_for(meter.look(), LOOK_TIMEOUT_S)
    except (KafkaError, OSError, TimeoutError) as error:
        return f"Kafka does not answer ({type(error).__name__})", True
    return line(loads), any(load.rate or load.lag for load in loads.values())


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Hold the lock file; the kernel lets go of it however we end."""
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError(
                f"`postroad up` runs already on {path.parent}: stop it first, or choose a data_dir in another folder"
            ) from None
        yield
