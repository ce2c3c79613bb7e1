"""A road to drive tests on: the shared broker, an MX farm, and worker processes that are started as a user would."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from log_check import known

from analytics.clickhouse import Warehouse, connect
from deploy.local.kafka import Kafka, free_port
from loadtest.mxfarm import Farm
from postroad.dkim import generate
from topics import admin
from topics.catalogue import SUBMISSIONS, TENANTS
from topics.client import Client, Place
from topics.installation import Installation

ROOT = Path(__file__).parents[2]
ALL = (sys.executable, "-m", "postroad", "worker", "all")


class Road:
    """One installation on the shared broker. `start` may be called for several workers."""

    def __init__(self, kafka: Kafka, farm: Farm, folder: Path, client: Client):
        self.kafka, self.farm, self.folder, self.client = kafka, farm, folder, client
        self.http = f"127.0.0.1:{free_port()}"
        self.workers: list[subprocess.Popen[bytes]] = []
        self.settings = {
            "POSTROAD_KAFKA": kafka.bootstrap,
            "POSTROAD_TOPIC_PREFIX": client.installation.prefix,
            "POSTROAD_KAFKA_SESSION_TIMEOUT_S": "6",
            "POSTROAD_DATA_DIR": str(folder / "data"),
            "POSTROAD_CLICKHOUSE_HTTP": self.http,
            "POSTROAD_DNS_SERVERS": farm.dns,
            "POSTROAD_SMTP_PORT": str(farm.smtp_port),
            "POSTROAD_EHLO": "mail.acme.test",
            "POSTROAD_RETRY_DELAYS_S": "2",
            "POSTROAD_GREYLIST_S": "2",
        }

    async def start(self, command: Sequence[str] = ALL, ready: bool = True, **settings: str) -> subprocess.Popen[bytes]:
        """Start a worker; with `ready`, return when it has its partitions."""
        ready_file = self.folder / f"ready-{len(self.workers)}"
        ready_file.unlink(missing_ok=True)
        environment = {**os.environ, **self.settings, "POSTROAD_READY_FILE": str(ready_file), **settings}
        known(*(value for name, value in environment.items() if name.startswith("POSTROAD_") and "SECRET" in name))
        name = "faust" if "faust" in command else "worker"  # Faust's own command begins with a banner
        with (self.folder / f"{name}-{len(self.workers)}.log").open("ab") as log:
            worker = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        self.workers.append(worker)
        await self.until(lambda: not ready or ready_file.exists() or worker.poll() is not None, "a worker is ready", 60)
        assert worker.poll() is None, self.log()
        return worker

    def log(self) -> str:
        """What the workers said."""
        return "\n".join(path.read_text("utf-8", "replace")[-3000:] for path in sorted(self.folder.glob("*.log")))

    def stop(self) -> None:
        """SIGTERM to what still runs; each has to end by itself."""
        running = [worker for worker in self.workers if worker.poll() is None]
        for worker in running:
            worker.send_signal(signal.SIGTERM)
        codes = [worker.wait(40) for worker in running]
        assert not any(codes), f"exit status {codes}\n{self.log()}"

    async def until(self, true: Callable[[], Any], what: str, seconds: float = 40) -> None:
        """Wait for a condition; fails with the workers' logs."""
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, f"waited {seconds} s until {what}\n{self.log()}"
            await asyncio.sleep(0.1)

    async def submit(self, to: str | Sequence[str], **fields: Any) -> tuple[str, Place]:
        """A plain submission of tenant acme; returns its id, and where it is."""
        recipients = [to] if isinstance(to, str) else to
        submission: Any = {
            "tenant": "acme",
            "submission_id": uuid.uuid4().hex,
            "sender": {"address": "news@acme.test"},
            "recipients": [{"address": address} for address in recipients],
            "subject": "Subject that no log has",
            "text": "Body that no log has.\n",
            **fields,
        }
        known("news@acme.test", *recipients, submission["subject"], submission["text"].strip())
        return submission["submission_id"], await self.client.send(SUBMISSIONS.send(submission))

    def warehouse(self) -> Warehouse:
        """ClickHouse as analysts see it."""
        return connect(f"http://{self.http}")

    def events(self, submission_id: str, warehouse: Warehouse | None = None) -> list[dict[str, Any]]:
        """Its events so far, in order."""
        sql = "SELECT * FROM events WHERE submission_id = {id:String} ORDER BY ts, ts_ms, round, kind"
        return list((warehouse or self.warehouse()).query(sql, {"id": submission_id}).dicts())

    async def kinds(self, submission_id: str, last: str, warehouse: Warehouse | None = None) -> list[str]:
        """Kinds of its events, once one of kind `last` is there."""
        await self.until(
            lambda: any(e["kind"] == last for e in self.events(submission_id, warehouse)), f"{last} is a row"
        )
        return [event["kind"] for event in self.events(submission_id, warehouse)]


@pytest.fixture(scope="session")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with Farm.start(tmp_path_factory.mktemp("farm")) as farm:
        yield farm


@pytest.fixture
async def road(kafka: Kafka, farm: Farm, tmp_path: Path) -> AsyncIterator[Road]:
    """Topics and a tenant are there; no worker yet."""
    installation = Installation(kafka.bootstrap, prefix=f"{uuid.uuid4().hex[:8]}-", data_dir=tmp_path / "data")
    await admin.ensure(installation)
    keys: list[Any] = []
    txt = {}
    for selector, algorithm in (("r1", "rsa"), ("e1", "ed25519")):
        pem, record = generate(algorithm)  # type: ignore[arg-type]  # the two literals
        known(*pem.splitlines()[1:-1])
        keys.append({"selector": selector, "algorithm": algorithm, "private_key": pem})
        txt[f"{selector}._domainkey.acme.test"] = record
    (farm.folder / "txt.json").write_text(json.dumps(txt))
    async with Client(installation) as client:
        await client.send(TENANTS.send({"tenant": "acme", "domains": [{"domain": "acme.test", "dkim": keys}]}))
        road = Road(kafka, farm, tmp_path, client)
        try:
            yield road
            road.stop()
        finally:
            for worker in road.workers:
                if worker.poll() is None:
                    worker.kill()
                    worker.wait()
