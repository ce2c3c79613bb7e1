"""A Kafka of its own, a tenant with a key, and doors as processes, each on a core of its own where there are two."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from avro.records import Tenant
from deploy.local.kafka import Kafka
from postroad import keys
from topics import admin
from topics.catalogue import KEYS, TENANTS
from topics.client import Client
from topics.installation import Installation

ROOT = Path(__file__).parents[2]
READY_S = 60.0
TENANT: Tenant = {"tenant": "acme", "active": True, "domains": [{"domain": "acme.test", "return_path": "b.acme.test"}]}
STRANGER: Tenant = {"tenant": "other", "active": True, "domains": [{"domain": "other.test"}]}


class Rig:
    """`secret`, `stranger`: keys of two tenants with every scope."""

    def __init__(self, folder: Path, kafka: Kafka) -> None:
        self.folder, self.kafka = folder, kafka
        self.installation = Installation(kafka.bootstrap, partitions=4, data_dir=folder / "data")
        self.secret = self.stranger = ""
        self._doors: list[subprocess.Popen[bytes]] = []

    async def prepare(self) -> None:
        """Topics, tenants, keys."""
        await admin.ensure(self.installation)
        now = time.time_ns() // 1_000_000
        mine, self.secret = keys.make("acme", keys.SCOPES, now, rate_per_second=100_000)
        its, self.stranger = keys.make("other", keys.SCOPES, now)
        async with Client(self.installation) as client:
            for output in (TENANTS.send(TENANT), TENANTS.send(STRANGER), KEYS.send(mine), KEYS.send(its)):
                await client.send(output)

    def start(
        self, port: int, *, door: str = "api", core: int | None = None, wait: bool = True, **settings: str
    ) -> subprocess.Popen[bytes]:
        """A door: api, or smtp (TLS from the first byte)."""
        ready = self.folder / f"ready-{len(self._doors)}"
        environment = {
            **os.environ, "POSTROAD_KAFKA": self.kafka.bootstrap, "POSTROAD_DATA_DIR": str(self.folder / "data"),
            "POSTROAD_API" if door == "api" else "POSTROAD_SUBMISSION_TLS": f"127.0.0.1:{port}", "POSTROAD_CLICKHOUSE_HTTP": "", "POSTROAD_READY_FILE": str(ready),
            "POSTROAD_API_TENANT_PER_SECOND": "100000", "POSTROAD_SUBMISSION_SENDER_PER_SECOND": "100000", **settings,
        }  # fmt: skip
        with (self.folder / "api.log").open("ab") as log:
            process = subprocess.Popen(
                (sys.executable, "-m", "postroad", "gateway", door), cwd=ROOT, env=environment, stdout=log, stderr=log
            )
        self._doors.append(process)
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        if wait:
            deadline = time.monotonic() + READY_S
            while not ready.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the door did not start:\n{self.log()}")
                time.sleep(0.02)
        return process

    def log(self) -> str:
        """The end of what doors said."""
        path = self.folder / "api.log"
        return path.read_text("utf-8", "replace")[-3000:] if path.exists() else ""

    def stop(self) -> None:
        """End what still runs."""
        for door in self._doors:
            if door.poll() is None:
                door.send_signal(signal.SIGTERM)
        for door in self._doors:
            try:
                door.wait(20)
            except subprocess.TimeoutExpired:
                door.kill()


@contextmanager
def rig() -> Iterator[Rig]:
    """Kafka runs while it is open. Nothing is left behind."""
    with tempfile.TemporaryDirectory(prefix="doors-") as folder:
        kafka = Kafka(Path(folder) / "kafka").start()
        made = Rig(Path(folder), kafka)
        try:
            asyncio.run(made.prepare())
            yield made
        finally:
            made.stop()
            kafka.kill()


def cpu_s(pid: int) -> float:
    """CPU time of a process so far, seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mib(pid: int) -> float:
    """The most memory that a process had (VmHWM), MiB."""
    line = next(
        line for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines() if line.startswith("VmHWM")
    )
    return int(line.split()[1]) / 1024


def quantile(values: list[float], share: float) -> float:
    """Of sorted or unsorted values."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
