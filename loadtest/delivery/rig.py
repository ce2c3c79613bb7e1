"""What a part of `make check-delivery` runs on: Kafka, a farm with sites of its own, send workers, the other stages together.

    with Rig(folder, sites, shaping=caps, send_workers=3) as rig:
        rig.write(OUTBOUND.send(rig.routed(n, "rate-5")) for n in range(1000))

Each send worker is a process; the stages around it are one more, so that CPU and memory of the first are send's. FOLDER/: kafka/,
farm/, postroad.toml, shaping.toml, content/, and of each worker data/NAME, logs/NAME.log, ready/NAME. Main thread only.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from avro.records import DkimAlgorithm, DkimKey, Message, Tenant
from deploy.local import ROOT, child
from deploy.local.kafka import Kafka, free_port
from loadtest.demo.road import _toml
from loadtest.mxfarm import Farm, Site
from loadtest.mxfarm.receipts import TXT
from postroad import ids
from postroad.dkim import generate
from postroad.settings import CONFIG, PREFIX, READY_FILE
from topics.admin import ensure
from topics.catalogue import TENANTS, Output
from topics.client import Client
from topics.installation import Installation

TENANT, DOMAIN, OTHER = "lantern", "lantern.example", "harbour"  # two tenants send from two domains
KEYS: dict[str, DkimAlgorithm] = {"r1": "rsa", "e1": "ed25519"}  # by selector
REST = ("ingest", "validate", "score", "suppress", "route", "classify", "schedule")
READY_S, GRACE_S, POLL_S = 120.0, 40.0, 0.1
AT_ONCE = 500  # records that Kafka is given together
EXPIRES_MS = 24 * 3_600_000
TEXT_BYTES = 1200  # with headers and two signatures, 2 KB on the wire


class RigError(RuntimeError):
    """Something that should run does not; the text ends with what it said."""


class Worker:
    """One process with stages in it."""

    def __init__(self, name: str, stages: Sequence[str], folder: Path, environment: Mapping[str, str]):
        self.name, self.stages = name, stages
        self.log, self._ready = folder / "logs" / f"{name}.log", folder / "ready" / name
        self._environment = {
            **environment, READY_FILE: str(self._ready), f"{PREFIX}DATA_DIR": str(folder / "data" / name)}  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of its process. RigError when that has ended by itself."""
        if self.process is None or self.process.poll() is not None:
            raise RigError(f"{self.name} does not run:\n{child.tail(self.log)}")
        return self.process.pid

    def start(self) -> None:
        """Start it; `wait_ready` says when it has its partitions."""
        self._ready.parent.mkdir(parents=True, exist_ok=True)
        self._ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", "postroad", "worker", *self.stages]
        self._began = time.monotonic()
        self.process = child.spawn(command, self.log, env=self._environment, when_we_die=signal.SIGKILL)

    def wait_ready(self, timeout_s: float = READY_S) -> float:
        """Return when it has its partitions: how many seconds after its start, if nobody was waited for before. RigError."""
        while not self._ready.exists():
            if time.monotonic() - self._began > timeout_s:
                raise RigError(f"{self.name} is not ready after {timeout_s:g} s:\n{child.tail(self.log)}")
            _ = self.pid
            time.sleep(POLL_S)
        return time.monotonic() - self._began

    def stop(self, grace_s: float = GRACE_S) -> int:
        """SIGTERM; returns the exit status, -9 where the grace was over."""
        process, self.process = self.process, None
        return child.stop(process, grace_s) if process is not None else 0


class Rig:
    """See the module. `settings`: those of postroad.toml beside addresses and folders. `rest`: stages of one process,
    `alone`: stages with a process each. `partitions`: a multiple of the workers, or one that joins may stay without any."""

    def __init__(
        self, folder: Path, sites: Sequence[Site], *, shaping: str = "", settings: Mapping[str, Any] | None = None,
        send_workers: int = 1, rest: Sequence[str] = REST, alone: Sequence[str] = (),
        partitions: int = 4,
    ):  # fmt: skip
        self.folder = folder.absolute()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.sites = {site.name: site for site in sites}
        self._shaping, self._settings = shaping, dict(settings or {})
        self._counts = send_workers, tuple(rest), tuple(alone)
        self._partitions = partitions
        self._running = ExitStack()
        self._content: dict[int, bytes] = {}

    def __enter__(self) -> Self:
        try:
            kafka = Kafka(self.folder / "kafka", heap="320m")
            self._running.callback(kafka.kill)
            kafka.start()
            self.farm = Farm.start(self.folder / "farm", smtp_port=free_port(), sites=self.sites.values())
            self._running.callback(self.farm.stop)
            (self.folder / "shaping.toml").write_text(self._shaping, "utf-8")
            values = {
                "kafka": kafka.bootstrap, "data_dir": str(self.folder / "data"), "clickhouse_http": "",
                "content_url": (self.folder / "content").as_uri(), "dns_servers": [self.farm.dns],
                "smtp_port": self.farm.smtp_port, "ehlo": "out.postroad.test",
                "partitions": self._partitions,
                "shaping": str(self.folder / "shaping.toml"), **self._settings,
            }  # fmt: skip
            (self.folder / "postroad.toml").write_text(
                "".join(f"{k} = {_toml(v)}\n" for k, v in values.items()), "utf-8"
            )
            outside = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
            self.environment = {**outside, CONFIG: str(self.folder / "postroad.toml"), "PYTHONPATH": str(ROOT)}
            self.installation = Installation(
                kafka.bootstrap, partitions=self._partitions, data_dir=self.folder / "data"
            )
            asyncio.run(ensure(self.installation))
            self._publish()
            count, rest, alone = self._counts
            self.send = [self._worker(f"send-{n}", ("send",)) for n in range(count)]
            self.rest = [self._worker("rest", rest)] if rest else []
            self.alone = [self._worker(stage, (stage,)) for stage in alone]
            self.workers = [*self.send, *self.rest, *self.alone]
            for worker in self.workers:
                worker.start()
            for worker in self.workers:
                worker.wait_ready()
        except BaseException:
            self._running.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers:
            if worker.process is not None and error is None:
                worker.process.terminate()  # all at once, rather than one after the other
        self._running.close()

    def check(self) -> None:
        """Raises RigError where a worker has ended by itself."""
        for worker in self.workers:
            if worker.process is not None:
                _ = worker.pid

    def sleep(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Wait, looking after the workers; whether `until` came true before the time was over. Raises RigError."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.check()
            if until():
                return True
            time.sleep(min(0.2, max(0.0, deadline - time.monotonic())))
        return until()

    # -- mail ------------------------------------------------------------------------------------------------------
    def write(self, outputs: Iterable[Output]) -> int:
        """Write records as fast as Kafka takes them; returns how many."""
        return asyncio.run(self._write(iter(outputs)))

    async def _write(self, outputs: Iterable[Output]) -> int:
        written, rest = 0, iter(outputs)
        async with Client(self.installation) as client:
            while batch := list(islice(rest, AT_ONCE)):
                await asyncio.gather(*map(client.send, batch))
                written += len(batch)
        return written

    def routed(self, number: int, site: str, tenant: str = TENANT, bytes: int = TEXT_BYTES) -> Message:
        """A message as route writes it, to the only domain of a site; `number` tells it from all others."""
        one, now = self.sites[site], time.time_ns() // 1_000_000
        recipient, host = f"r{number}@{one.domains[0]}", one.hosts[0].name
        content = self._content.setdefault(bytes, _content(bytes))
        message_id = ids.message_id(now, tenant, f"s{number}", "0:0", recipient)
        return {
            "message_id": message_id, "tenant": tenant, "submission_id": f"s{number}", "stream": "transactional",
            "accepted_at": now, "recipient": recipient, "recipient_domain": one.domains[0], "sender": f"news@{DOMAIN}",
            "return_path": f"b-{message_id}@{DOMAIN}", "expires_at": now + EXPIRES_MS, "cleared": True,
            "top": f"To: <{recipient}>\r\nMessage-ID: <{message_id}@{DOMAIN}>\r\n".encode(),
            "content": {"hash": hashlib.sha256(content).hexdigest(), "size": len(content), "inline": content},
            "route": {"site": f"{site}.test", "shard": 0, "hosts": [host], "pool": "default", "source": "default"},
        }  # fmt: skip

    def _worker(self, name: str, stages: Sequence[str]) -> Worker:
        worker = Worker(name, stages, self.folder, self.environment)
        self._running.callback(worker.stop)
        return worker

    def _publish(self) -> None:
        """Tenants, and their public keys where the farm's name server reads them."""
        keys: list[DkimKey] = []
        records = {}
        for selector, algorithm in KEYS.items():
            private, records[f"{selector}._domainkey.{DOMAIN}"] = generate(algorithm)
            keys.append({"selector": selector, "algorithm": algorithm, "private_key": private})
        draft = self.farm.folder / f"{TXT}.new"
        draft.write_text(json.dumps(records), "utf-8")
        draft.replace(self.farm.folder / TXT)
        tenants: list[Tenant] = [
            {"tenant": name, "name": name, "domains": [{"domain": DOMAIN, "dkim": keys}]} for name in (TENANT, OTHER)
        ]
        self.write(TENANTS.send(tenant) for tenant in tenants)


def _content(size: int) -> bytes:
    line = "The quick brown fox jumps over the lazy dog.\r\n"
    return (
        f"From: The Lantern <news@{DOMAIN}>\r\nDate: Mon, 23 Nov 2026 08:00:00 +0000\r\nSubject: What is new\r\n"
        f"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{line * max(1, size // len(line))}"
    ).encode()


def caps_toml(limits: Mapping[str, Mapping[str, Any]]) -> str:
    """shaping.toml with these keys by site."""
    return "".join(f"[site.{json.dumps(site + '.test')}]\n" + "".join(f"{k} = {_toml(v)}\n" for k, v in keys.items())
                   for site, keys in limits.items())  # fmt: skip
