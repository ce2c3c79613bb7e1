"""The endpoints of a process: what is under way to each, its circuit, its results until they are written down.

What is here is lost with the process, and nothing else is: everything handed over stands in the stage's table until its result does.
An endpoint holds `AHEAD` notifications here at most and has tasks of its own, `concurrency` at most, so that a dead one holds nothing
of another's; once its circuit opens, what waits for it here is let go and waits in the table.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from avro.records import Notification, Webhook
from postroad.webhooks import retries
from postroad.webhooks.guard import Rules
from postroad.webhooks.sender import Sender, Tried

log = logging.getLogger(__name__)

AHEAD = 256  # of an endpoint in memory,
AHEAD_EACH = 16  # for each try at a time that it has earned
AHEAD_ALL = 16_384  # of all of them; each may have its share, and one in any case
CONCURRENCY_MAX = 100
MANY = 10_000  # endpoints that are remembered


class Result(NamedTuple):
    """What came of a try that was `attempt` tries after the first, at `at` (ms)."""

    attempt: int
    at: int
    tried: Tried


class Given(NamedTuple):
    """What is to be tried."""

    key: bytes
    webhook: Webhook
    notification: Notification


@dataclass(slots=True)
class Endpoint:
    """`updated_at`: of its record (ms); `held`: by key in the table, None while it is under way; `reach`: tries at a time that it has
    earned, one more by each success, so that one that is dead from the start never holds more than one connection; `failures`: in a row;
    `opened`: so often without a success between."""

    updated_at: int
    queue: deque[Given] = field(default_factory=deque)
    held: dict[bytes, Result | None] = field(default_factory=dict)
    running: int = 0
    reach: int = 1
    failures: int = 0
    opened: int = 0
    open_until: int = 0

    @property
    def is_open(self) -> bool:
        """Its circuit: one try at a time, after a rest."""
        return self.failures >= retries.FAILURES_OPEN


def wall_clock() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Notifier:
    """One per process. `clock`: ms."""

    def __init__(self, rules: Rules, sender: Sender | None = None, clock: Callable[[], int] = wall_clock):
        self.sender, self._clock = sender or Sender(rules), clock
        self._endpoints: dict[str, Endpoint] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._index: dict[str, list[Webhook]] = {}
        self._indexed: tuple[int, int] | None = None

    def of_tenant(self, tenant: str, webhooks: Mapping[str, Webhook], now: int) -> list[Webhook]:
        """The endpoints in use of a tenant, at most a second old."""
        if (at := (now // 1000, len(webhooks))) != self._indexed:
            self._indexed, self._index = at, {}
            for webhook in webhooks.values():
                if webhook.get("disabled_at") is None:
                    self._index.setdefault(webhook["tenant"], []).append(webhook)
        return self._index.get(tenant, [])

    def room(self, webhook: Webhook) -> int:
        """How many more notifications of an endpoint may be given; 0 until half of its share is free, since each look reads what waits anew.

        One that its owner has changed is tried at once: it may be mended.
        """
        endpoint = self._endpoints.get(webhook["webhook_id"])
        reach = 1 if endpoint is None else endpoint.reach
        share = min(AHEAD, AHEAD_EACH * reach, max(1, AHEAD_ALL // max(1, len(self._endpoints))))
        if endpoint is None:
            return share
        if endpoint.updated_at != webhook["updated_at"]:
            endpoint.updated_at = webhook["updated_at"]
            endpoint.failures = endpoint.opened = endpoint.open_until = 0
        if endpoint.is_open:
            return 0 if endpoint.held or self._clock() < endpoint.open_until else 1
        free = share - len(endpoint.held)
        return free if 2 * free >= share else 0

    def holds(self, webhook_id: str) -> Mapping[bytes, Result | None]:
        """Keys of an endpoint that were given and not forgotten yet, with their results."""
        endpoint = self._endpoints.get(webhook_id)
        return {} if endpoint is None else endpoint.held

    def give(self, key: bytes, webhook: Webhook, notification: Notification) -> None:
        """Try it as soon as the endpoint has a place. Given twice, it is tried once."""
        endpoint = self._endpoints.get(webhook["webhook_id"])
        if endpoint is None:
            self._tidy()
            endpoint = self._endpoints[webhook["webhook_id"]] = Endpoint(webhook["updated_at"])
        if key not in endpoint.held:
            endpoint.held[key] = None
            endpoint.queue.append(Given(key, webhook, notification))
            self._pump(endpoint)

    def forget(self, webhook_id: str, key: bytes) -> None:
        """Its result is written down, or it is not to be delivered any more."""
        endpoint = self._endpoints.get(webhook_id)
        if endpoint is not None and endpoint.held.get(key) is not None:
            del endpoint.held[key]

    async def close(self) -> None:
        """End what is under way."""
        for endpoint in self._endpoints.values():
            endpoint.queue.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.sender.close()

    def _tidy(self) -> None:
        if len(self._endpoints) >= MANY:
            self._endpoints = {name: each for name, each in self._endpoints.items() if each.held or each.failures}

    def _pump(self, endpoint: Endpoint) -> None:
        while endpoint.queue:
            most = min(endpoint.queue[0].webhook.get("concurrency", 10), endpoint.reach, CONCURRENCY_MAX)
            if endpoint.running >= max(1, most):
                return
            endpoint.running += 1
            task = asyncio.create_task(self._try(endpoint, endpoint.queue.popleft()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _try(self, endpoint: Endpoint, given: Given) -> None:
        """As many as wait, one after another: a task for each costs more."""
        try:
            while True:
                try:
                    tried = await self.sender.post(given.webhook, given.notification, self._clock())
                except Exception as exc:  # whatever it is: it is this endpoint's alone
                    log.exception("webhook %s: a try failed", given.webhook["webhook_id"])
                    tried = Tried(0, f"{type(exc).__name__}", 0)
                endpoint.held[given.key] = Result(given.notification.get("attempt", 0), self._clock(), tried)
                self._judge(endpoint, tried)
                if not endpoint.queue or endpoint.is_open:
                    return
                given = endpoint.queue.popleft()
                self._pump(endpoint)  # it may have earned one more
        finally:
            endpoint.running -= 1
            self._pump(endpoint)

    def _judge(self, endpoint: Endpoint, tried: Tried) -> None:
        if tried.delivered:
            endpoint.failures = endpoint.opened = 0
            endpoint.reach = min(endpoint.reach + 1, CONCURRENCY_MAX)
            return
        endpoint.failures += 1
        if endpoint.is_open:
            endpoint.reach = 1
        if endpoint.is_open and self._clock() >= endpoint.open_until:
            endpoint.open_until = self._clock() + retries.rest(endpoint.opened)
            endpoint.opened += 1
            for given in endpoint.queue:
                del endpoint.held[given.key]
            endpoint.queue.clear()
