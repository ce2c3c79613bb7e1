"""Jobs: files of mails, read by one process at a time, whichever is alive.

A job is the order of its steps in control.jobs. A process claims it, says that it is still at it, and tells how far it is; when it says
nothing for LEASE_MS (by the broker's clock) the next one claims it and goes on there. What was written after the last word is found in
the submissions' topic itself: a submission's id is made of the job and its first line, so nothing is sent twice and nothing is left
out. Should a frozen process wake up and write all the same, ingest knows the id and stops the repeat.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from avro.records import Job
from gateway.inbound import Unavailable
from postroad.content import ContentUnavailable
from topics.catalogue import JOBS, Topic
from topics.client import Place

log = logging.getLogger(__name__)

LEASE_MS = 15_000
LOOK_S = 0.5  # between two looks for jobs that nobody runs
TELL_S = 2.0  # between two words of a job that runs; several fit a lease
AT_ONCE = 2  # jobs of one process
KEPT_MS = 30 * 86_400_000


class State(NamedTuple):
    """What the steps so far say of a job. Times are the broker's, ms. `far`: the last word on lines, accepted, refused, refusals."""

    created: Job
    created_at: int
    owner: str = ""
    heard_at: int = 0
    far: Job | None = None
    far_at: int = 0
    cancelled: bool = False
    ended: Job | None = None
    ended_at: int = 0

    @property
    def name(self) -> str:
        """waiting, running, done, cancelled or failed."""
        if self.ended is not None:
            return self.ended.get("outcome", "")
        return "running" if self.owner else "waiting"

    @property
    def counts(self) -> Job:
        """The record with the last numbers."""
        return self.ended or self.far or self.created

    def is_free(self, now: int) -> bool:
        """Whether nobody has run it for a lease."""
        return self.ended is None and (not self.owner or now - self.heard_at >= LEASE_MS)


class Sends(Protocol):
    """Writes records (gateway/writer.py)."""

    async def send(self, topic: Topic[Any], value: Any) -> Place: ...


class Tailed(Protocol):
    """Has handed over the topic up to a place (gateway/tail.py)."""

    async def reached(self, partition: int, offset: int) -> None: ...


class Jobs:
    """All jobs of the last 30 days. `hear` is called with every record of the topic, in its order."""

    def __init__(self, replica: str, producer: Sends, tail: Tailed | None = None) -> None:
        self.replica, self._producer, self.tail = replica, producer, tail
        self.states: dict[str, State] = {}

    def hear(self, record: Any, job: Job | None) -> None:
        """One step. What comes from a process that does not run the job any more is passed over."""
        if job is None:
            return
        at, id, by = int(record.timestamp), job["job_id"], job.get("by", "")
        known = self.states.get(id)
        if known is None:
            if job["step"] == "created":
                self.states[id] = State(job, at)
            return
        step = job["step"]
        if known.ended is not None:
            return
        if step == "cancelled":
            self.states[id] = known._replace(cancelled=True)
        elif step == "claimed" and known.is_free(at):
            self.states[id] = known._replace(owner=by, heard_at=at)
        elif by == known.owner and step == "claimed":
            self.states[id] = known._replace(heard_at=at)
        elif by == known.owner and step == "progressed":
            self.states[id] = known._replace(heard_at=at, far=job, far_at=at)
        elif by == known.owner and step == "ended":
            self.states[id] = known._replace(ended=job, ended_at=at)

    def forget(self, now: int) -> None:
        """Let go of what is older than the topic."""
        self.states = {id: one for id, one in self.states.items() if now - one.created_at < KEPT_MS}

    def is_mine(self, job_id: str) -> bool:
        """Whether this process runs a job."""
        state = self.states.get(job_id)
        return state is not None and state.ended is None and state.owner == self.replica

    async def say(self, job: Job) -> None:
        """Write a step, and return when all that came before it has been heard. Raises Unavailable."""
        place = await self._producer.send(JOBS, {**job, "by": job.get("by") or self.replica})
        assert self.tail is not None
        await self.tail.reached(place.partition, place.offset)

    async def claim(self, job_id: str) -> bool:
        """Whether this process runs the job from now on. Raises Unavailable."""
        state = self.states[job_id]
        await self.say({"job_id": job_id, "tenant": state.created["tenant"], "step": "claimed"})
        return self.is_mine(job_id)


Run = Callable[[Jobs, State], Any]


async def work(jobs: Jobs, run: Run, now: Callable[[], int]) -> None:
    """Run what nobody runs, for ever. `run(jobs, state)` ends when the job has, or is somebody else's."""
    running: dict[str, asyncio.Task[None]] = {}

    async def one(job_id: str) -> None:
        try:
            if await jobs.claim(job_id):
                beating = asyncio.create_task(_beat(jobs, job_id))
                try:
                    await run(jobs, jobs.states[job_id])
                finally:
                    beating.cancel()
        except (Unavailable, ContentUnavailable) as error:
            log.warning("job %s stops here and goes on later: %s", job_id, error)
            await asyncio.sleep(LEASE_MS / 1000)
        except Exception as error:
            log.error("job %s failed", job_id, exc_info=error)
            await _fail(jobs, job_id, error)

    try:
        while True:
            running = {id: task for id, task in running.items() if not task.done()}
            for id, state in list(jobs.states.items()):
                if len(running) < AT_ONCE and id not in running and state.is_free(now()):
                    running[id] = asyncio.create_task(one(id))
            jobs.forget(now())
            await asyncio.sleep(LOOK_S)
    finally:
        for task in running.values():
            task.cancel()
        await asyncio.gather(*running.values(), return_exceptions=True)


async def _beat(jobs: Jobs, job_id: str) -> None:
    """Say that a job is still run here, whatever keeps it from telling more."""
    while True:
        await asyncio.sleep(LEASE_MS / 4_000)
        if jobs.is_mine(job_id):
            with suppress(Unavailable):
                await jobs.claim(job_id)


async def _fail(jobs: Jobs, job_id: str, error: Exception) -> None:
    """A job that cannot go on says so: nobody waits for it."""
    counts = jobs.states[job_id].counts
    ended: Job = {
        **counts,
        "step": "ended",
        "by": jobs.replica,
        "outcome": "failed",
        "error": f"{type(error).__name__}: {error}"[:500],
    }
    try:
        await jobs.say(ended)
    except Unavailable as unavailable:
        log.warning("job %s: %s", job_id, unavailable)
