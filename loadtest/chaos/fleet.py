"""The workers of a road, one process a stage, `each` of every stage, and what may happen to them.

    fleet = Fleet(folder, {"kafka": cluster.proxied, ...}, worker.STAGES)
    fleet.start()
    fleet.kill(fleet.of("send")[0])     # fleet.look() starts it again

FOLDER/: postroad.toml (the settings), data/<worker>/ (its RocksDB), content/ (bodies, one for all), logs/<worker>.log,
fleet.log (who ended how), clock. Nothing here is for threads: processes are started from the main thread alone.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from deploy.local import ROOT, child
from deploy.local.stack import Kept
from loadtest.chaos.worker import CLOCK_FILE, Clock
from loadtest.demo.road import _toml
from postroad.settings import CONFIG, PREFIX, READY_FILE

COMMAND = (sys.executable, "-m", "loadtest.chaos.worker")
BACKOFF_S = (0.2, 5.0)
GRACE_S = 40.0  # longer than a worker's own
READY_TIMEOUT_S = 180.0  # of 20 processes on two cores; 25 s where nothing else runs
POLL_S = 0.05

# Twenty processes where a production has machines: what each may keep is less.
SMALL = {"cache_entries": 5_000, "rocksdb_cache_mib": 2, "rocksdb_write_buffer_mib": 1}
LEAN = {"MALLOC_ARENA_MAX": "2"}  # glibc keeps 8 arenas a core: 30 MB of a worker


class FleetError(RuntimeError):
    """The workers do not get ready; the text ends with what they said."""


class Worker:
    """One process of one stage, which its fleet starts again when it ends. `exits`: statuses that it has ended with, those
    that it was told to end with too; a signal is negative. Change it through its fleet only."""

    def __init__(
        self, stage: str, ordinal: int, folder: Path, environment: Mapping[str, str], say: Callable[[str], None],
    ):  # fmt: skip
        self.stage, self.ordinal, self.name = stage, ordinal, f"{stage}-{ordinal}"
        self.data_dir, self.log = folder / "data" / self.name, folder / "logs" / f"{self.name}.log"
        self.exits: list[int] = []
        self.frozen = self.ending = self.disk_full = False
        self._ready_file = folder / "ready" / self.name
        self.environment = {
            **environment, READY_FILE: str(self._ready_file), f"{PREFIX}DATA_DIR": str(self.data_dir),
            f"{PREFIX}INSTANCE_ID": f"chaos-{ordinal}",
        }  # fmt: skip
        self.kept = Kept(self.name, self._spawn, self.log, say, self._ready_file, backoff_s=BACKOFF_S)

    @property
    def pid(self) -> int:
        """Of its process; 0 while it has none."""
        return self.kept.process.pid if self.kept.process is not None else 0

    @property
    def running(self) -> bool:
        """Whether it has a process that has not ended; a frozen one has not."""
        return self.kept.process is not None and self.kept.process.poll() is None

    @property
    def ready(self) -> bool:
        """Whether its present process has had its partitions."""
        try:
            return self.running and self._ready_file.read_text("ascii") == str(self.pid)
        except FileNotFoundError:
            return False

    def look(self) -> None:
        """Notice its end, start it again when its wait is over."""
        if self.ending:
            return
        if self.kept.process is not None and (status := self.kept.process.poll()) is not None:
            self.exits.append(status)
            self.frozen = False
        self.kept.look()

    def signal(self, number: signal.Signals) -> None:
        """Send it; nothing where there is no process."""
        if self.running:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM; it is not started again. What is frozen has to go on to hear it."""
        self.ending = True
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)

    def set_disk(self, full: bool) -> None:
        """Of the running process and of those that follow it."""
        self.disk_full = full
        if self.running:
            limit_files(self.pid, full)

    def forget_process(self) -> int:
        """After its end: the next `look` starts it without a wait. Returns the exit status."""
        process, self.kept.process = self.kept.process, None
        self.ending = self.frozen = False
        if process is None:
            return self.exits[-1] if self.exits else 0
        self.exits.append(process.wait())
        return self.exits[-1]

    def _spawn(self) -> subprocess.Popen[bytes]:
        self._ready_file.parent.mkdir(parents=True, exist_ok=True)
        self._ready_file.unlink(missing_ok=True)
        process = child.spawn([*COMMAND, self.stage], self.log, env=self.environment, when_we_die=signal.SIGKILL)
        if self.disk_full:  # before it has loaded anything
            limit_files(process.pid, True)
        return process


def limit_files(pid: int, full: bool) -> None:
    """As on a full disk each write to a file fails, with EFBIG: RLIMIT_FSIZE. Pipes and sockets go on. The signal that comes
    with it, SIGXFSZ, is ignored by Python, and so in what Python has loaded."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0 if full else hard, hard))


class Fleet:
    """`settings`: those of postroad.toml beside the folders; kafka is what workers see. `shaping`: text of shaping.toml. Topics have
    to be there before `start`."""

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], stages: Sequence[str], each: int = 2, shaping: str = ""
    ):
        self.folder = folder.absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config, self.log = self.folder / "postroad.toml", self.folder / "fleet.log"
        content = (self.folder / "content").as_uri()
        values = {
            **SMALL,
            "data_dir": str(self.folder / "data"),
            "content_url": content,
            "clickhouse_http": "",
            "shaping": str(self.folder / "shaping.toml"),
            **settings,
        }
        (self.folder / "shaping.toml").write_text(shaping, "utf-8")
        self.config.write_text("".join(f"{name} = {_toml(value)}\n" for name, value in values.items()), "utf-8")
        self.clock = Clock(self.folder / "clock")
        outside = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
        self.environment = {
            **LEAN, **outside, CONFIG: str(self.config), CLOCK_FILE: str(self.folder / "clock"), "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        self.stages = tuple(stages)
        self._full: set[str] = set()
        self.workers = [self._worker(stage, ordinal) for stage in stages for ordinal in range(each)]

    def of(self, stage: str) -> list[Worker]:
        """The workers of one stage."""
        return [worker for worker in self.workers if worker.stage == stage]

    def start(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """All at once; returns when all are ready. Raises FleetError."""
        self.look()
        self.wait_ready(timeout_s=timeout_s)

    def wait_ready(self, workers: Collection[Worker] = (), timeout_s: float = READY_TIMEOUT_S) -> None:
        """Return when these, or all, have had their partitions; looks after all of them meanwhile. Raises FleetError."""
        if not self._until(lambda: not self.unready(workers), timeout_s):
            late = self.unready(workers)
            said = "\n".join(
                f"--- {worker.name} ({worker.exits}):\n{child.tail(worker.log, 10)}" for worker in late[:3]
            )
            raise FleetError(f"not ready after {timeout_s:g} s: {', '.join(w.name for w in late)}\n{said}")

    def unready(self, workers: Collection[Worker] = ()) -> list[Worker]:
        """Those of them, or of all, that are not ready."""
        return [worker for worker in workers or self.workers if not worker.ready]

    def look(self) -> None:
        """Start again what has ended, a few times a second."""
        for worker in self.workers:
            worker.look()

    def stop(self, grace_s: float = GRACE_S) -> dict[str, int]:
        """SIGTERM to all at once; returns the exit status of each by its name, -9 where the grace was over. Last of all: there
        are no workers afterwards."""
        workers, self.workers = self.workers, []
        for worker in workers:
            worker.terminate()
        self._until(lambda: not any(worker.running for worker in workers), grace_s)
        for worker in workers:
            worker.signal(signal.SIGKILL)
        return {worker.name: worker.forget_process() for worker in workers}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(GRACE_S if error is None else 2.0)

    # -- processes -------------------------------------------------------------------------------------------------
    def kill(self, worker: Worker) -> None:
        """kill -9; `look` starts it again."""
        worker.signal(signal.SIGKILL)

    def freeze(self, worker: Worker) -> None:
        """SIGSTOP: it does nothing, and has not ended."""
        worker.signal(signal.SIGSTOP)
        worker.frozen = worker.running

    def thaw(self, worker: Worker) -> None:
        """SIGCONT: it goes on as if no time had passed."""
        worker.signal(signal.SIGCONT)
        worker.frozen = False

    def restart(self, *workers: Worker, grace_s: float = GRACE_S) -> dict[str, int]:
        """SIGTERM to all of them; when they have ended they are started again. Returns the exit statuses by name, -9 where the
        grace was over; the new processes are not waited for (`wait_ready(workers)`)."""
        for worker in workers:
            worker.terminate()
        self._until(lambda: not any(worker.running for worker in workers), grace_s)
        statuses = {worker.name: self._end(worker, 0.0) for worker in workers}
        self.look()
        return statuses

    def join(self, stage: str) -> Worker:
        """One more worker of a stage; it gets the lowest free number, and with it what an earlier one has left in its folder."""
        taken = {worker.ordinal for worker in self.of(stage)}
        worker = self._worker(stage, next(n for n in range(len(taken) + 1) if n not in taken))
        self.workers.append(worker)
        worker.look()
        return worker

    def leave(self, worker: Worker, grace_s: float = GRACE_S) -> int:
        """SIGTERM, and not again; returns the exit status, -9 where the grace was over."""
        status = self._end(worker, grace_s)
        self.workers.remove(worker)
        return status

    # -- what they stand on ----------------------------------------------------------------------------------------
    def lose_state(self, worker: Worker) -> None:
        """kill -9, and its folder with every RocksDB is gone before it starts again, at once."""
        worker.signal(signal.SIGKILL)
        worker.forget_process()
        shutil.rmtree(worker.data_dir, ignore_errors=True)
        worker.look()

    def fill_disk(self, stage: str) -> None:
        """No file of this stage's workers grows, RocksDB, bodies and logs, until `free_disk`; of those that start meanwhile
        neither, which so cannot start."""
        self._set_disk(stage, True)

    def free_disk(self, stage: str) -> None:
        """There is room again."""
        self._set_disk(stage, False)

    def step_clock(self, ms: int) -> None:
        """The clock of all workers jumps by so much, back where negative, from where it is now."""
        self.clock.offset_ms += ms

    # --------------------------------------------------------------------------------------------------------------
    def _worker(self, stage: str, ordinal: int) -> Worker:
        worker = Worker(stage, ordinal, self.folder, self.environment, self._say)
        worker.disk_full = stage in self._full
        return worker

    def _set_disk(self, stage: str, full: bool) -> None:
        (self._full.add if full else self._full.discard)(stage)
        for worker in self.of(stage):
            worker.set_disk(full)

    def _end(self, worker: Worker, grace_s: float) -> int:
        worker.terminate()
        if not self._until(lambda: not worker.running, grace_s):
            self._say(f"{worker.name} does not end within {grace_s:g} s: killed")
            worker.signal(signal.SIGKILL)
        return worker.forget_process()

    def _until(self, true: Callable[[], bool], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not true():
            if time.monotonic() > deadline:
                return False
            self.look()
            time.sleep(POLL_S)
        return True

    def _say(self, text: str) -> None:
        with self.log.open("a", encoding="utf-8") as stream:
            stream.write(f"{time.strftime('%H:%M:%S')} {text}\n")
