"""A whole installation in one folder: the farm, `postroad up` and the command line, as a user would run them.

    with Road(folder, {"greylist_s": [2.5]}) as road:   # ready when the block begins, all of it gone when it ends
        road.cli("tenants", "apply", str(folder / "tenants.yaml"))

FOLDER/: postroad.toml (its settings), up.log, data/, kafka/, logs/ (of `postroad up`), farm/ (receipts, zone).
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console

from analytics.clickhouse import Warehouse, connect
from deploy.local import ROOT, STATE, child
from deploy.local.kafka import free_port
from loadtest.mxfarm import Farm, FarmError
from postroad.settings import CONFIG, PREFIX
from topics.installation import Installation

READY = re.compile(r"ready in ([\d.]+) s")
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 60.0  # longer than `postroad up` gives its workers and Kafka
CLI_TIMEOUT_S = 60.0


class RoadError(RuntimeError):
    """The stack or one of its commands did not do what it had to; the text ends with what it said."""


class Road:
    """`settings`: those of postroad.toml beside the addresses, which are free ports. `shaping`: text of shaping.toml. `farm`: one
    that runs already. `workers`: the stages of each worker process, as `postroad up --worker` takes them."""

    def __init__(
        self, folder: Path, settings: Mapping[str, Any] | None = None, farm: Farm | None = None, shaping: str = "",
        workers: Sequence[str] = (),
    ):  # fmt: skip
        self.folder = folder.absolute()
        self.log = self.folder / "up.log"
        self.ready_s = 0.0
        self._given, self._shaping = dict(settings or {}), shaping
        self._workers = [word for stages in workers for word in ("--worker", stages)]
        self._farm = farm
        self._own_farm = farm is None
        self._up: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            if self._farm is None:
                self._farm = Farm.start(self.folder / "farm")
            clickhouse = f"127.0.0.1:{free_port()}"
            settings = {
                "kafka": f"127.0.0.1:{free_port()}", "data_dir": str(self.folder / "data"), "clickhouse_http": clickhouse,
                "dns_servers": [self._farm.dns], "smtp_port": self._farm.smtp_port, "ehlo": "demo.postroad.test",
                "shaping": str(self.folder / "shaping.toml"), **self._given,
            }  # fmt: skip
            (self.folder / "shaping.toml").write_text(self._shaping, "utf-8")
            config = self.folder / "postroad.toml"
            config.write_text("".join(f"{name} = {_toml(value)}\n" for name, value in settings.items()), "utf-8")
            outside = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
            self.environment = {**outside, CONFIG: str(config)}
            self.installation = Installation(settings["kafka"], data_dir=self.folder / "data")
            self.warehouse: Warehouse = connect(f"http://{clickhouse}")
            self.start()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            if self._own_farm and self._farm is not None:
                self._farm.stop()
        if kind is not None and not issubclass(kind, KeyboardInterrupt):
            self.print_logs()

    @property
    def farm(self) -> Farm:
        """The receiving side."""
        if self._farm is None:
            raise RuntimeError("the road was not entered")
        return self._farm

    def start(self) -> None:
        """`postroad up`; returns when it says that it is ready. Raises RoadError."""
        already = self.log.stat().st_size if self.log.exists() else 0
        self._up = child.spawn([sys.executable, "-m", "postroad", "up", *self._workers], self.log, env=self.environment)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (said := READY.search(self.log.read_bytes()[already:].decode(errors="replace"))):
            if self._up.poll() is not None:
                raise RoadError(f"`postroad up` ended with status {self._up.returncode}")
            if time.monotonic() > deadline:
                raise RoadError(f"`postroad up` is not ready after {START_TIMEOUT_S:g} s")
            time.sleep(0.1)
        self.ready_s = float(said[1])

    def kill(self) -> None:
        """kill -9 of `postroad up`: what it started ends with it."""
        assert self._up is not None
        self._up.kill()
        self._up.wait()

    def stop(self) -> None:
        """Ctrl-C for `postroad up`."""
        if self._up is not None and self._up.poll() is None:
            self._up.send_signal(signal.SIGINT)
            try:
                self._up.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._up.kill()
                self._up.wait()

    def check_running(self) -> None:
        """Raises RoadError when `postroad up` has ended."""
        if self._up is None or self._up.poll() is not None:
            raise RoadError("`postroad up` has ended")

    def cli(self, *arguments: str) -> str:
        """What `postroad ARGUMENTS` prints. Raises RoadError with its words when it fails."""
        command = [sys.executable, "-m", "postroad", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment, timeout=CLI_TIMEOUT_S)
        if done.returncode:
            raise RoadError(f"`postroad {' '.join(arguments)}` ended with status {done.returncode}:\n{done.stderr}")
        return done.stdout

    @property
    def pid(self) -> int:
        """Process of `postroad up`, of which all others are children."""
        self.check_running()
        assert self._up is not None
        return self._up.pid

    @property
    def worker_pid(self) -> int:
        """Process of all stages."""
        return int((self.folder / "ready-0").read_text("ascii"))

    @property
    def broker_pid(self) -> int:
        """Process of Kafka."""
        return int((self.folder / "kafka" / "pid").read_text("ascii"))

    def print_logs(self) -> None:
        """The ends of all logs, to stderr."""
        farm = self.folder / "farm" / "farm.log"
        for path in (self.log, *sorted((self.folder / "logs").glob("*.log")), self.folder / "producer.log", farm):
            if said := child.tail(path, 25):
                print(f"--- {path} ends:\n{said}", file=sys.stderr)


def _toml(value: Any) -> str:
    """A value as TOML writes it, which is JSON but for tables."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


@contextmanager
def fresh(folder: Path) -> Iterator[Path]:
    """An empty folder that is this run's alone. Raises RoadError while another run has it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RoadError(f"another run uses {folder}: wait for it, or name another with --folder") from None
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        yield folder


def stop_on_signals() -> None:
    """SIGINT and SIGTERM end this process by KeyboardInterrupt, so that everything it started is stopped first; also where
    a shell has started it in the background, with SIGINT ignored."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)


def program(name: str, doc: str | None, run: Callable[[Path, Console], int]) -> int:
    """The command `python -m loadtest.<name>`: `run(folder, console)` from the repository's folder; returns the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m loadtest.{name}", description=(doc or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=STATE / name, help="emptied first; kept afterwards")
    folder: Path = parser.parse_args().folder.absolute()
    os.chdir(ROOT)
    stop_on_signals()
    try:
        return run(folder, Console(width=None if sys.stdout.isatty() else 160, highlight=False))
    except (RoadError, FarmError) as error:
        print(f"{name}: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print(f"{name}: stopped", file=sys.stderr)
    return 1
