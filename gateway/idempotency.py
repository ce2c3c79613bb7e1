"""Idempotency-Key: the same key and body have the same answer for a day, on every replica, and one mail.

Every try claims its key in a topic before it does anything, and reads the topic up to its own claim. The order of the topic decides, so
all replicas agree without talking: the first claim holds. Who holds writes the submission, then the answer (where the submission is:
its message ids follow from that). A claim whose holder says nothing for CLAIM_MS may be taken over: the successor looks in the
submissions' topic whether the submission is there, and only writes it, under the same submission_id, where it is not. Should the
first holder's write come to Kafka after all, ingest stops it as a repeat.

What is known lies in a SQLite file without a name: a day of keys is too much for memory, and the topic makes it anew.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from avro.records import IdempotentStep, IdempotentUse
from topics.catalogue import IDEMPOTENT_USES, Topic
from topics.client import Place

log = logging.getLogger(__name__)

KEPT_MS = 86_400_000
CLAIM_MS = 30_000  # longer than a producer waits for an answer (gateway/writer.py)
WAIT_S = 10.0  # for the answer of another replica, before the client is told to come again
POLL_S = 0.02
SWEEP_EVERY = 10_000  # steps


class Conflict(Exception):
    """The key was used with another body."""


class InProgress(Exception):
    """The same request is being done elsewhere; its answer comes later."""


class Known(NamedTuple):
    """What the topic says of a key. Times are the broker's, ms; `place` None: not done yet."""

    body: str
    claimant: str
    submission_id: str
    first_at: int
    claimed_at: int
    released: bool
    place: Place | None


class Sends(Protocol):
    """Writes records (gateway/writer.py)."""

    async def send(self, topic: Topic[Any], value: Any) -> Place: ...


class Tailed(Protocol):
    """Has handed over the topic up to a place (gateway/tail.py)."""

    async def reached(self, partition: int, offset: int) -> None: ...


Find = Callable[[str, str, int], Awaitable[Place | None]]


class Memory:
    """What all steps so far say, by digest. `hear` is called with every record of the topic, in its order."""

    def __init__(self, folder: Path | None = None) -> None:
        path = ":memory:"
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            path = str(folder / f"keys-{secrets.token_hex(8)}.sqlite")
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute(
            "CREATE TABLE known (digest TEXT PRIMARY KEY, body TEXT, claimant TEXT, submission_id TEXT, first_at INTEGER, "
            "claimed_at INTEGER, released INTEGER, partition INTEGER, offset INTEGER, accepted_at INTEGER) WITHOUT ROWID"
        )
        if folder is not None:
            Path(path).unlink()  # gone with the process
        self._steps = 0

    def hear(self, record: Any, use: IdempotentUse | None) -> None:
        """One step, at the broker's time of its record."""
        if use is None:
            return
        digest, at = use["digest"], int(record.timestamp)
        known = self.get(digest, at)
        if use["step"] == "claim":
            if known is None:
                self._db.execute(
                    "INSERT OR REPLACE INTO known VALUES (?, ?, ?, ?, ?, ?, 0, NULL, NULL, NULL)",
                    (digest, use["body"], use["claimant"], use["submission_id"], at, at),
                )
            elif self._may_take_over(known, use, at):
                self._db.execute(
                    "UPDATE known SET claimant = ?, claimed_at = ?, released = 0 WHERE digest = ?",
                    (use["claimant"], at, digest),
                )
        elif use["step"] == "answer" and known and known.place is None and known.submission_id == use["submission_id"]:
            self._db.execute(
                "UPDATE known SET partition = ?, offset = ?, accepted_at = ? WHERE digest = ?",
                (use.get("partition"), use.get("offset"), use.get("accepted_at"), digest),
            )
        elif use["step"] == "release" and known and known.claimant == use["claimant"]:
            self._db.execute("UPDATE known SET released = 1 WHERE digest = ?", (digest,))
        self._steps += 1
        if self._steps % SWEEP_EVERY == 0:
            self._db.execute("DELETE FROM known WHERE first_at < ?", (at - KEPT_MS,))

    @staticmethod
    def _may_take_over(known: Known, use: IdempotentUse, at: int) -> bool:
        if known.place is not None or known.body != use.get("body"):
            return False
        return known.released or at - known.claimed_at >= CLAIM_MS

    def get(self, digest: str, now: int) -> Known | None:
        """What is known of a key; None where that is nothing, or a day old."""
        row = self._db.execute("SELECT * FROM known WHERE digest = ?", (digest,)).fetchone()
        if row is None or now - row[4] >= KEPT_MS:
            return None
        place = None if row[7] is None else Place(row[7], row[8], row[9])
        return Known(row[1], row[2], row[3], row[4], row[5], bool(row[6]), place)


class Idempotency:
    """Requests of one replica. `find(tenant, submission_id, since)`: where a submission is that was written at `since` (ms) or later."""

    def __init__(self, producer: Sends, tail: Tailed, memory: Memory, find: Find, now: Callable[[], int]) -> None:
        self._producer, self._tail, self._memory, self._find, self._now = producer, tail, memory, find, now
        self._telling: set[asyncio.Task[None]] = set()

    async def once(
        self, tenant: str, key: str, body: str, write: Callable[[str], Awaitable[Place]]
    ) -> tuple[str, Place, bool]:
        """(submission_id, where it is, whether it was there already). `write(submission_id)` is called at most once. Raises Conflict,
        InProgress, gateway.inbound.Unavailable, and what `write` raises."""
        digest = blake2b(f"{len(tenant)}:{tenant}{key}".encode(), digest_size=16).hexdigest()
        claimant, waited = secrets.token_hex(8), 0.0
        while True:
            known = self._memory.get(digest, self._now())
            if known is not None and known.body != body:
                raise Conflict
            if known is not None and known.place is not None:
                return known.submission_id, known.place, True
            if known is not None and not known.released and self._now() - known.claimed_at < CLAIM_MS:
                if waited >= WAIT_S:
                    raise InProgress
                await asyncio.sleep(POLL_S)
                waited += POLL_S
                continue
            submission_id = known.submission_id if known is not None else f"api-{secrets.token_hex(16)}"
            use = self._use(digest, "claim", tenant, claimant, body, submission_id)
            place = await self._producer.send(IDEMPOTENT_USES, use)
            await self._tail.reached(place.partition, place.offset)
            held = self._memory.get(digest, self._now())
            if held is not None and held.claimant == claimant:
                return await self._do(digest, tenant, claimant, held, write)

    async def _do(
        self, digest: str, tenant: str, claimant: str, held: Known, write: Callable[[str], Awaitable[Place]]
    ) -> tuple[str, Place, bool]:
        id, taken_over = held.submission_id, held.claimed_at > held.first_at
        try:
            place = await self._find(tenant, id, held.first_at) if taken_over else None
            found = place is not None
            place = place or await write(id)
        except BaseException:
            self._tell(self._use(digest, "release", tenant, claimant, held.body, id))
            raise
        answer = self._use(digest, "answer", tenant, claimant, held.body, id)
        answer["partition"], answer["offset"], answer["accepted_at"] = place.partition, place.offset, place.timestamp
        self._tell(answer)
        return id, place, found

    def _use(
        self, digest: str, step: IdempotentStep, tenant: str, claimant: str, body: str, submission_id: str
    ) -> IdempotentUse:
        return {"digest": digest, "step": step, "tenant": tenant, "claimant": claimant, "body": body, "submission_id": submission_id}  # fmt: skip

    def _tell(self, use: IdempotentUse) -> None:
        """Without waiting: should it be lost, a successor finds the submission itself."""

        async def send() -> None:
            try:
                await self._producer.send(IDEMPOTENT_USES, use)
            except Exception as error:  # Kafka is away
                log.warning("a step of an idempotent request was not told: %r", error)

        task = asyncio.create_task(send())
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)
