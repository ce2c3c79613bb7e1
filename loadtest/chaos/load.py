"""The load of a chaos run: tenants, lists, the producer's process and what it got acknowledged."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from subprocess import Popen
from typing import Any

from avro.records import DkimAlgorithm, DkimKey, Suppression, Tenant
from deploy.local import child
from loadtest.chaos.plan import NEVER, TENANTS, gone
from loadtest.demo.checks import Acknowledged
from loadtest.mxfarm import Farm
from loadtest.mxfarm.receipts import TXT
from postroad.dkim import generate
from topics.catalogue import SUPPRESSIONS, Output
from topics.catalogue import TENANTS as TENANTS_TOPIC
from topics.client import Client
from topics.installation import Installation

# Short waits, so that a run drains within minutes of its last fault; what no site takes expires by the plan. What expires by
# the setting could have been delivered and was not for an hour: more than a clock is stepped and a name server is silent.
SETTINGS: dict[str, Any] = {
    "smtp_timeout_scale": 0.02,  # 12 s for the reply after the final dot, where RFC 5321 gives 10 minutes
    "dns_timeout_s": 2.0,
    "retry_delays_s": [2.0, 3.0, 5.0],
    "greylist_s": [2.5, 3.0],
    "expires_hours": 1.0,
}
SHARDS = 16  # of the site that takes most: work for every partition
SHAPING = f"""
[site."accept.test"]
shards = {SHARDS}
connections = 64
new_connections_per_minute = 20000
messages_per_second = 2000
"""
KEYS: dict[str, DkimAlgorithm] = {"r1": "rsa", "e1": "ed25519"}  # by selector
STOP_S = 10.0


class LoadError(RuntimeError):
    """The producer has ended although it had not written everything; the text has its last words."""


class Load:
    """One run. `acknowledged`, `planned`: messages, not submissions; `acknowledgements`: what Kafka answered, by submission;
    `done`: all is written. The main thread's alone."""

    def __init__(self, installation: Installation, folder: Path, farm: Farm, messages: int, seed: int):
        self.installation, self.folder, self.farm = installation, folder, farm
        self.planned, self.seed = messages, seed
        self.acknowledged = 0
        self.acknowledgements: dict[int, Acknowledged] = {}
        self.notes, self.log = folder / "acknowledged.jsonl", folder / "producer.log"
        self._read = 0
        self._producer: Popen[bytes] | None = None

    @property
    def done(self) -> bool:
        return self.acknowledged >= self.planned

    def prepare(self) -> None:
        """Write tenants, their keys, and two kinds of suppression list."""
        tenants, records = configured()
        draft = self.farm.folder / f"{TXT}.new"
        draft.write_text(json.dumps(records), "utf-8")
        draft.replace(self.farm.folder / TXT)
        outputs = [TENANTS_TOPIC.send(tenant) for tenant in tenants]
        outputs += [SUPPRESSIONS.send(entry) for entry in suppressed()]
        asyncio.run(self._send(outputs))

    async def _send(self, outputs: list[Output]) -> None:
        async with Client(self.installation) as client:
            for output in outputs:
                await client.send(output)

    def start(self, rate: float, surge: Sequence[float] = ()) -> None:
        """The producer's process: at most `rate` messages a second (0: as fast as it goes), and from `surge[0]` to `surge[1]`
        (s) `surge[2]`. It goes on behind what is acknowledged already."""
        at = self.installation
        command = [sys.executable, "-m", "loadtest.chaos.producer", "--kafka", at.bootstrap, "--prefix", at.prefix]
        command += ["--partitions", str(at.partitions), "--notes", str(self.notes), "--messages", str(self.planned)]
        command += ["--surge", *map(str, surge)] if surge else []
        self._producer = child.spawn([*command, "--seed", str(self.seed), "--rate", str(rate)], self.log)

    def stop(self) -> None:
        """End the producer, if it still runs, and read its last acknowledgements."""
        if self._producer is not None:
            child.stop(self._producer, STOP_S)
            self._refresh()

    def look(self) -> None:
        """Read what was acknowledged by now. Raises LoadError when the producer has ended before its time."""
        status = None if self._producer is None else self._producer.poll()
        self._refresh()
        if status is not None and not self.done:
            raise LoadError(f"the producer ended with status {status}:\n{child.tail(self.log)}")

    def _refresh(self) -> None:
        if not self.notes.exists():
            return
        with self.notes.open("rb") as notes:
            notes.seek(self._read)
            data = notes.read()
        data = data[: data.rfind(b"\n") + 1]
        self._read += len(data)
        for line in data.splitlines():
            one = json.loads(line)
            self.acknowledged += one.pop("messages")
            self.acknowledgements[one["index"]] = one


def configured() -> tuple[list[Tenant], dict[str, str]]:
    """The tenants, and the DNS records of their DKIM keys: two keys for all, since making one takes long.

    One has a quota a second, so that some of its mail waits; half have one a day that they never reach, which counts.
    """
    keys: list[DkimKey] = []
    published: dict[str, str] = {}
    for selector, algorithm in KEYS.items():
        private, published[selector] = generate(algorithm)
        keys.append({"selector": selector, "algorithm": algorithm, "private_key": private})
    tenants: list[Tenant] = []
    for n, name in enumerate(TENANTS):
        tenant: Tenant = {"tenant": name, "name": name, "domains": [{"domain": f"{name}.example", "dkim": keys}]}
        if n == 0:
            tenant["quota_per_second"] = 20.0
        if n % 2:
            tenant["quota_per_day"] = 10_000_000
        if n % 5 == 2:
            tenant["suppress_after"] = 2
        tenants.append(tenant)
    records = {f"{name}._domainkey.{tenant}.example": text for tenant in TENANTS for name, text in published.items()}
    return tenants, records


def suppressed() -> list[Suppression]:
    """Entries of the global list, and one on the list of each tenant."""
    listed = [("", address) for address in NEVER] + [(tenant, gone(n)) for n, tenant in enumerate(TENANTS)]
    now = time.time_ns() // 1_000_000
    return [{"recipient": address, "tenant": tenant, "action": "add", "reason": "manual", "at": now, "evidence": "chaos"}
            for tenant, address in listed]  # fmt: skip
