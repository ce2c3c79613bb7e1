"""What the routes of one process share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from avro.records import ApiKey, Event, Submission, Tenant, Webhook
from gateway.identity import Identity
from gateway.limits import Limits
from postroad.content import Contents
from postroad.settings import Settings
from topics.catalogue import Topic
from topics.client import Place


class Producer(Protocol):
    """What routes write with (gateway/writer.py)."""

    async def send(self, topic: Topic[Any], value: Any, headers: Sequence[tuple[str, bytes]] = ()) -> Place: ...
    async def delete(self, topic: Topic[Any], key: bytes) -> Place: ...


class Writes(Protocol):
    """Takes submissions (gateway/accept.py)."""

    async def write(self, submission: Submission, headers: Sequence[tuple[str, bytes]] = ()) -> Place: ...


class Looks(Protocol):
    """Reads what is young from Kafka itself (gateway/lookup.py)."""

    async def submission(self, tenant: str, message_id: str) -> tuple[Submission, str] | None: ...
    async def events(self, message_id: str, since: int) -> list[Event]: ...
    async def written(self, tenant: str, prefix: str, since: int) -> dict[str, Place]: ...
    async def each(self, topic: Topic[Any], key: str, since: int, take: Callable[[Any], None]) -> None: ...


class Warehouse(Protocol):
    """What routes ask ClickHouse (analytics.clickhouse.Warehouse); blocks."""

    def query(self, sql: str, params: Mapping[str, Any] | None = None) -> Any: ...


def _now() -> int:
    return time.time_ns() // 1_000_000


@dataclass
class Door:
    """One process of REST. `spool`: a folder for what is on its way; `warehouse` None: no statistics here."""

    settings: Settings
    tenants: Mapping[str, Tenant]
    keys: Mapping[str, ApiKey]
    webhooks: Mapping[str, Webhook]
    producer: Producer
    acceptor: Writes
    contents: Contents
    lookup: Looks
    warehouse: Warehouse | None
    spool: Path
    identity: Identity
    limits: Limits
    idempotency: Any = None
    jobs: Any = None
    suppressions: Any = None
    claims: Mapping[str, Any] = field(default_factory=dict)
    key_uses: Mapping[str, int] = field(default_factory=dict)
    dns: Callable[[], Any] = lambda: None  # makes a postroad.spf.Ask
    now: Callable[[], int] = _now
    counts: dict[str, int] = field(default_factory=dict)
    #: A body that is larger than SMALL is in memory once at a time: a hundred clients may send 25 MB at once.
    large: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))

    async def ask(self, sql: str, **params: Any) -> list[dict[str, Any]]:
        """Rows of ClickHouse. Raises Problem 503 where there is none or it does not answer."""
        from gateway.api.problems import Problem

        if self.warehouse is None:
            raise Problem(503, "no-statistics", "this installation has no ClickHouse that REST may ask")
        try:
            found = await asyncio.to_thread(self.warehouse.query, sql, params)
        except Exception as error:  # of another layer, which has its own tree
            if type(error).__name__ != "WarehouseError":
                raise
            raise Problem(503, "unavailable", "ClickHouse does not answer now; try again later",
                          headers={"Retry-After": "5"}) from error  # fmt: skip
        rows: list[dict[str, Any]] = found.dicts()
        return rows
