"""Events as a road makes them, many a second, into mail.events: whole lives of messages, the same for one seed."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from avro.records import Event
from postroad.ids import message_id
from topics.catalogue import EVENTS
from topics.installation import Installation
from topics.outputs import partition_for

AT_ONCE = 1000
TENANTS = tuple(f"tenant-{number}" for number in range(40))
SITES = (
    "google.com",
    "outlook.com",
    "yahoodns.net",
    "icloud.com",
    "gmx.net",
    "web.de",
    *(f"site{n}.example" for n in range(60)),
)
REASONS = ("unknown-user", "mailbox-full", "blocked", "policy", "spam")
REPLIES = {
    "delivered": "2.0.0 OK  {id:x} d9443c01a7336-2{id:011d}si5120835ad.12 - gsmtp",
    "bounced": "5.1.1 The email account that you tried to reach does not exist. Please try double-checking the address",
    "deferred": "4.7.0 This message has been temporarily deferred due to user complaints",
}


def lives(seed: int, start_ms: int, span_ms: int = 3_600_000) -> Iterator[Event]:
    """Events without end: messages accepted one after another in `span_ms` from `start_ms` on, then again from its beginning."""
    dice = random.Random(seed)
    number = 0
    while True:
        number += 1
        tenant, site = dice.choice(TENANTS), SITES[int(len(SITES) * dice.random() ** 3)]
        at = start_ms + number * 7 % span_ms
        to = f"reader{dice.randrange(10**7)}@{site}"
        common: Any = {
            "message_id": message_id(at, tenant, f"order-{seed}-{number}", f"0:{number}", to), "tenant": tenant,
            "submission_id": f"order-{seed}-{number}", "stream": "broadcast" if number % 3 else "transactional", "accepted_at": at,
            "recipient": to, "recipient_domain": site, "size": 1500 + dice.randrange(30_000), "tags": [f"campaign-{number % 50}"],
        }  # fmt: skip
        route: Any = {"site": site, "pool": "shared", "source": f"out-{number % 12}"}
        told: Any = {"mx_host": f"mx{number % 4}.{site}", "mx_address": f"192.0.2.{number % 200}", "tls": "TLSv1.3",
                     "shaping": "3f9a1c",
                     "phases": {phase: int(dice.lognormvariate(3.5, 0.8)) for phase in ("connect", "tls", "rcpt", "data")}}  # fmt: skip
        yield _event(common, "accepted", at, "ingest", metadata={"order": str(number)})
        for step, (kind, stage) in enumerate((("validated", "validate"), ("scored", "score"), ("cleared", "suppress"))):
            at += 2 + step
            yield _event(common, kind, at, stage)
        yield _event(common, "routed", at + 5, "route", **route)
        attempt = 1
        while dice.random() < 0.1:
            at += dice.randrange(100, 4000)
            yield _event(common, "deferred", at, "classify", attempt=attempt, reason="greylisted", reply_code=451, enhanced_code="4.7.0",
                         reply=REPLIES["deferred"], duration_ms=dice.randrange(900), due_at=at + 900_000, **route, **told)  # fmt: skip
            attempt += 1
        at += dice.randrange(80, 3000)
        end = "bounced" if dice.random() < 0.04 else "delivered"
        code, reason = (550, dice.choice(REASONS)) if end == "bounced" else (250, "")
        yield _event(common, end, at, "classify", attempt=attempt, reason=reason, reply_code=code, enhanced_code=f"{code // 100}.0.0",
                     reply=REPLIES[end].format(id=dice.getrandbits(36)), duration_ms=dice.randrange(900), **route, **told)  # fmt: skip
        if dice.random() < 0.02:
            yield _event(
                common,
                "complained",
                at + dice.randrange(1, 90_000),
                "reports",
                reason="abuse",
                evidence=f"report-{number}",
                **route,
            )


def _event(common: Any, kind: str, at: int, stage: str, **fields: Any) -> Event:
    told = f":{fields['evidence']}" if "evidence" in fields else ""
    made: Event = {**common, "event_id": f"{common['message_id']}:{kind}:0:{fields.get('attempt', 0)}{told}", "kind": kind, "at": at,
                   "stage": stage, **fields}  # fmt: skip
    return made


class Flow:
    """Writes events in a thread of its own, as far as `allow` goes; a batch that Kafka did not confirm is written again, so the
    topic may have more records than were asked for, and only the topic says what is right.

    `on_time`: events carry the time at which they are written, not that of `lives`.
    """

    def __init__(self, installation: Installation, events: Iterator[Event], per_s: int = 0, on_time: bool = False):
        self._installation, self._events, self._per_s, self._on_time = installation, events, per_s, on_time
        self._allowed, self._ended = 0, threading.Event()
        self.sent = self.repeated = 0
        self.error: BaseException | None = None
        self.written: list[
            tuple[int, int, int, int]
        ] = []  # on_time: partition, first offset, count, ms before they were sent
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin; nothing is written before `allow`."""
        self._thread.start()

    def allow(self, count: int) -> None:
        """So many events in all may be written."""
        self._allowed = count

    @property
    def busy(self) -> bool:
        """Whether something is allowed that is not written."""
        return self.sent < self._allowed and self._thread.is_alive()

    def end(self, timeout_s: float = 120.0) -> None:
        """Return when all that is allowed is written. Raises what the thread has raised, TimeoutError."""
        deadline = time.monotonic() + timeout_s
        while self.busy:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.sent:,} of {self._allowed:,} events are in Kafka after {timeout_s:g} s")
            time.sleep(0.05)
        self._ended.set()
        self._thread.join(timeout_s)
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            asyncio.run(self._write())
        except BaseException as error:  # told by `end`
            self.error = error

    async def _write(self) -> None:
        codec = self._installation.codecs((EVENTS,))[EVENTS]
        producer = await self._producer()
        begun = time.monotonic()
        while not self._ended.is_set():
            most = self._allowed - self.sent
            if self._per_s:
                most = min(most, int((time.monotonic() - begun) * self._per_s) - self.sent)
            if most <= 0:
                await asyncio.sleep(0.02)
                continue
            now = time.time_ns() // 1_000_000
            parts: defaultdict[int, list[tuple[bytes, bytes]]] = defaultdict(list)
            count = 0
            for event in islice(self._events, min(most, AT_ONCE)):
                if self._on_time:
                    event["at"] = now
                key = EVENTS.key(event).encode()
                parts[partition_for(key, self._installation.partitions_of(EVENTS))].append((key, codec.encode(event)))
                count += 1
            while parts:
                try:
                    done = await asyncio.gather(
                        *(self._send(producer, *part) for part in parts.items()), return_exceptions=True
                    )
                    for partition, told in zip(list(parts), done, strict=True):
                        if isinstance(told, BaseException):
                            continue
                        if self._on_time:
                            self.written.append((partition, told, len(parts[partition]), now))
                        del parts[partition]
                    if parts:
                        raise next(each for each in done if isinstance(each, BaseException))
                except (KafkaError, TimeoutError, OSError):  # the broker is away: what was not confirmed goes again
                    self.repeated += sum(map(len, parts.values()))
                    await producer.stop()
                    producer = await self._producer()
            self.sent += count
        await producer.stop()

    async def _producer(self) -> AIOKafkaProducer:
        while True:
            producer = AIOKafkaProducer(
                bootstrap_servers=self._installation.bootstrap, acks="all", enable_idempotence=True, max_batch_size=1 << 20,
                request_timeout_ms=15_000,
            )  # fmt: skip
            try:
                await producer.start()
                return producer
            except (KafkaError, OSError):
                await producer.stop()
                await asyncio.sleep(0.2)

    async def _send(self, producer: AIOKafkaProducer, partition: int, records: list[tuple[bytes, bytes]]) -> int:
        """One batch of one partition; returns its first offset."""
        builder = producer.create_batch()
        for key, value in records:
            if builder.append(timestamp=None, key=key, value=value, headers=[]) is None:
                raise ValueError(f"{len(records)} events are more than a batch holds")
        done = await (await producer.send_batch(builder, self._installation.name(EVENTS), partition=partition))
        return int(done.offset)
