"""Debian's clickhouse-server (18.16) on this machine: a child process on loopback with everything in one folder.

    with Server("data/clickhouse") as server:
        warehouse = connect(server.url)

Ports are chosen on the first start and kept in the folder. `stop()` is SIGTERM, `kill()` is kill -9, `start()` after either
goes on where it was. The server dies with the thread that started it: start it from one that lives as long as you do.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from types import TracebackType

BINARY = "clickhouse-server"
MISSING = f"{BINARY} is not installed: apt-get install clickhouse-server (Debian, Ubuntu), or use chdb"
_PR_SET_PDEATHSIG = 1  # prctl(2)

# Small: one local user, a few queries. 18.16 keeps no query log unless asked.
_CONFIG = """<yandex>
 <logger><level>warning</level><log>{folder}/server.log</log><errorlog>{folder}/error.log</errorlog><size>10M</size><count>2</count></logger>
 <listen_host>127.0.0.1</listen_host><http_port>{http}</http_port><tcp_port>{native}</tcp_port>
 <path>{folder}/data/</path><tmp_path>{folder}/tmp/</tmp_path>
 <users_config>{folder}/users.xml</users_config><default_profile>default</default_profile><default_database>default</default_database>
 <mark_cache_size>67108864</mark_cache_size><max_concurrent_queries>50</max_concurrent_queries><timezone>UTC</timezone>
</yandex>
"""
_USERS = """<yandex>
 <profiles><default><max_threads>2</max_threads><max_memory_usage>2000000000</max_memory_usage><log_queries>0</log_queries>
  <background_pool_size>2</background_pool_size><background_schedule_pool_size>2</background_schedule_pool_size></default></profiles>
 <users><default><password></password><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota></default></users>
 <quotas><default/></quotas>
</yandex>
"""


def available() -> bool:
    """Whether the program is on this machine."""
    return _binary() is not None


def _binary() -> str | None:
    return shutil.which(BINARY, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """One server with its data in `folder`. Raises RuntimeError with the log's last lines when it does not come up."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).resolve()
        self.process: subprocess.Popen[bytes] | None = None
        kept = self.folder / "ports"
        if not kept.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            kept.write_text(f"{_free_port()} {_free_port()}")
        self.native_port, self.http_port = map(int, kept.read_text().split())

    @property
    def url(self) -> str:
        """For `analytics.clickhouse.connect`; the database is the default one."""
        return f"clickhouse://127.0.0.1:{self.native_port}"

    def start(self, timeout_s: float = 30.0) -> None:
        """Start, and wait until it answers; does nothing when it runs."""
        if self.process is not None and self.process.poll() is None:
            return
        binary = _binary()
        if binary is None:
            raise RuntimeError(MISSING)
        for part in ("data", "tmp"):
            (self.folder / part).mkdir(exist_ok=True)
        config = self.folder / "config.xml"
        config.write_text(_CONFIG.format(folder=self.folder, http=self.http_port, native=self.native_port))
        (self.folder / "users.xml").write_text(_USERS)
        libc = ctypes.CDLL(None)
        with open(self.folder / "stderr.log", "ab") as log:
            self.process = subprocess.Popen(
                [binary, f"--config-file={config}"], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                # A session of its own, or Ctrl-C would reach it before we have stopped what writes to it.
                start_new_session=True, preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),
            )  # fmt: skip
        deadline = time.monotonic() + timeout_s
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{BINARY} in {self.folder} did not start:\n{self._log()}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/ping", timeout=2) as answer,
        ):
            return bool(answer.read() == b"Ok.\n")
        return False

    def _log(self) -> str:
        texts = [
            path.read_text(errors="replace")
            for name in ("error.log", "stderr.log")
            if (path := self.folder / name).exists()
        ]
        return "\n".join(text[-1500:] for text in texts)

    def stop(self, timeout_s: float = 10.0) -> None:
        """SIGTERM, then after `timeout_s` SIGKILL: 18.16 waits for its clients to hang up, so close them first. What had
        been inserted stays either way."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
        self.process = None

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
