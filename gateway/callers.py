"""Who may come in, and how often: what every door with keys follows in Kafka and tells the other replicas."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from avro.records import ApiKey, RateUse, Tenant
from gateway.identity import Identity
from gateway.inbound import Unavailable
from gateway.limits import Limits
from gateway.tail import Tail
from gateway.writer import KafkaProducer
from postroad.settings import Settings
from topics.catalogue import KEY_USES, KEYS, RATE_USES, TENANTS
from topics.follower import Follower
from topics.installation import Installation

RATES_S = 0.1
USES_S = 60.0


class Callers:
    """Of one process. `door`: its name in control.key-uses; `producer` must know KEY_USES and RATE_USES."""

    def __init__(self, settings: Settings, installation: Installation, producer: KafkaProducer, door: str) -> None:
        self._settings, self._producer, self._door = settings, producer, door
        self.replica = secrets.token_hex(8)
        self.tenants, self.keys = Follower[Tenant](installation, TENANTS), Follower[ApiKey](installation, KEYS)
        tokens = [secret.get_secret_value() for secret in settings.api_token_secret]
        self.identity = Identity(self.keys, self.tenants, tokens, settings.api_token_s)
        self.limits = Limits(self._rate_of)
        self._rates = Tail(installation, RATE_USES, self._heard, lambda: None)
        self._told: dict[str, int] = {}

    async def ready(self) -> None:
        """Return when all of them have been read."""
        await asyncio.gather(self.tenants.ready(), self.keys.ready(), self._rates.ready())

    def for_ever(self) -> list[Callable[[], Awaitable[None]]]:
        """What has to run beside."""
        return [self._tell_rates, self._tell_uses]

    async def stop(self) -> None:
        """Let go of Kafka."""
        await asyncio.gather(self.tenants.stop(), self.keys.stop(), self._rates.stop())

    async def _tell_rates(self) -> None:
        """What passed here, to the other replicas."""
        while True:
            await asyncio.sleep(RATES_S)
            if uses := self.limits.untold():
                with suppress(Unavailable):
                    await self._producer.send(RATE_USES, RateUse(replica=self.replica, uses=uses))

    async def _tell_uses(self) -> None:
        """When keys were used last, for people."""
        while True:
            await asyncio.sleep(USES_S)
            for key_id, at in self.identity.used.items():
                if at > self._told.get(key_id, 0) and (key := self.keys.get(key_id)) is not None:
                    with suppress(Unavailable):
                        use = {"key_id": key_id, "tenant": key["tenant"], "used_at": at, "door": self._door}
                        await self._producer.send(KEY_USES, use)
                        self._told[key_id] = at

    def _rate_of(self, subject: str) -> float | None:
        settings, (kind, _, name) = self._settings, subject.partition(":")
        if kind == "t":
            return settings.api_tenant_per_second
        if kind == "s":
            return settings.submission_sender_per_second
        key = self.keys.get(name)
        return None if key is None else key.get("rate_per_second") or settings.api_key_per_second

    def _heard(self, record: Any, use: RateUse | None) -> None:
        if use is not None and use["replica"] != self.replica:
            self.limits.heard(use["uses"])
