"""One run of a job: its file line by line into submissions, what is refused into a file of its own, and every so often how far it is.

Submissions are cut where the file says, not where a run began: LINES lines of a CSV (a recipient each) or one line of NDJSON. So a run
that goes on behind another makes the same submissions under the same ids.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from avro.records import Job, Submission
from gateway.inbound import Unavailable
from gateway.jobs import TELL_S, Jobs, State
from gateway.writer import TooLarge
from postroad.content import Contents, ContentUnavailable
from postroad.intake import distinct
from postroad.suppression_rows import Row, rows
from topics.client import Place

LINES = 200  # of a CSV in one submission
LINE_MAX = 8 << 20  # bytes of a line of NDJSON
WINDOW = 16  # submissions on their way at a time
PART_LINES = 5_000  # refusals in a file of them
AGAIN_S = 2.0  # before a write is tried again while Kafka is away
CHUNK = 1 << 20


class Refusal(NamedTuple):
    """A line that nothing was made of."""

    line: int
    reason: str


class Made(NamedTuple):
    """A submission of some lines (None: all were refused), and what was refused. `lines`: up to and with."""

    first: int
    lines: int
    submission: Submission | None
    refused: list[Refusal]


class Writes(Protocol):
    """Takes submissions (gateway/accept.py)."""

    async def write(self, submission: Submission) -> Place: ...


class Finds(Protocol):
    """Knows which submissions were written (gateway/lookup.py)."""

    async def written(self, tenant: str, prefix: str, since: int) -> dict[str, Place]: ...


class Lost(Exception):
    """Another process runs the job."""


#: (job, lines with their numbers) -> a submission without its id, and the refused lines.
Make = Callable[[Job, list[tuple[int, Any]]], tuple[Submission | None, list[Refusal]]]


class Batch:
    """Runs jobs of one process. `make`: what a route would make of the lines (gateway/api/batch.py)."""

    def __init__(self, contents: Contents, acceptor: Writes, finds: Finds, make: Make, spool: Path) -> None:
        self._contents, self._acceptor, self._finds, self._make, self._spool = contents, acceptor, finds, make, spool

    async def run(self, jobs: Jobs, state: State) -> None:
        """Go on with a job to its end. Raises Unavailable, ContentUnavailable; returns where it is another process's."""
        job, far, id = state.created, state.far, state.created["job_id"]
        progress = _Progress(self._contents, far or job)
        await progress.open()
        known = await self._finds.written(job["tenant"], f"{id}-", state.far_at or state.created_at)
        self._spool.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self._spool, prefix="job-") as file:
            await self._contents.copy(job.get("input", ""), file)
            file.seek(0)
            groups = _groups(file, job)
            under_way: list[tuple[Made, asyncio.Task[int]]] = []
            told, outcome = time.monotonic(), "done"
            try:
                while True:
                    if jobs.states[id].cancelled:
                        outcome = "cancelled"
                        break
                    group = await asyncio.to_thread(next, groups, None)
                    if group is None:
                        break
                    made = self._made(job, group)
                    if made.lines <= progress.lines:
                        continue
                    under_way.append((made, asyncio.create_task(self._accept(made, known))))
                    while len(under_way) >= WINDOW or (under_way and under_way[0][1].done()):
                        await progress.add(*under_way.pop(0))
                    if time.monotonic() - told > TELL_S:
                        await progress.keep()
                        await self._tell(jobs, progress.record(job, "progressed"))
                        told = time.monotonic()
                for done in under_way:
                    await progress.add(*done)
                await progress.keep()
                await self._tell(jobs, progress.record(job, "ended", outcome))
            except Lost:
                return
            finally:
                for _, task in under_way:
                    task.cancel()

    def _made(self, job: Job, group: list[tuple[int, Any]]) -> Made:
        submission, refused = self._make(job, group)
        if submission is not None:
            submission["submission_id"] = f"{job['job_id']}-{group[0][0]}"
        return Made(group[0][0], group[-1][0], submission, refused)

    async def _accept(self, made: Made, known: dict[str, Place]) -> int:
        """How many recipients were accepted."""
        submission = made.submission
        if submission is None:
            return 0
        while submission["submission_id"] not in known:
            try:
                await self._acceptor.write(submission)
                break
            except TooLarge:
                made.refused.append(Refusal(made.first, "too large: a record holds 8 MiB of text and variables"))
                return 0
            except (Unavailable, ContentUnavailable):
                await asyncio.sleep(AGAIN_S)
        return len(distinct(submission["recipients"]))

    async def _tell(self, jobs: Jobs, record: Job) -> None:
        await jobs.say(record)
        state = jobs.states[record["job_id"]]
        if state.ended is None and not jobs.is_mine(record["job_id"]):
            raise Lost


class _Progress:
    """How far a run is: what is told was done, refusals are in the store before it is."""

    def __init__(self, contents: Contents, last: Job) -> None:
        self._contents = contents
        self.lines, self.accepted, self.refused = last.get("lines", 0), last.get("accepted", 0), last.get("refused", 0)
        self.parts = list(last.get("refusals", []))
        self._open: list[str] = []  # of the last part, which is in the store as far as it was kept
        self._begun = self._changed = False

    async def open(self) -> None:
        """Go on with the last file of refusals, where it is not full."""
        if self.parts:
            text = (await self._contents.get_blob(self.parts[-1])).decode()
            if text.count("\n") < PART_LINES:
                self._open, self._begun = text.splitlines(keepends=True), True

    async def add(self, made: Made, task: asyncio.Task[int]) -> None:
        """The next submission is done."""
        self.accepted += await task
        self.lines = made.lines
        self.refused += len(made.refused)
        self._open += [json.dumps({"line": line, "reason": reason}) + "\n" for line, reason in made.refused]
        self._changed = self._changed or bool(made.refused)

    async def keep(self) -> None:
        """Put what was refused into the store. Raises ContentUnavailable."""
        if self._changed:
            reference = await self._contents.put_blob("".join(self._open).encode())
            self.parts = [*(self.parts[:-1] if self._begun else self.parts), reference]
            self._begun, self._changed = len(self._open) < PART_LINES, False
            self._open = self._open if self._begun else []

    def record(self, job: Job, step: Any, outcome: str = "") -> Job:
        """As it is told."""
        return {
            "job_id": job["job_id"], "tenant": job["tenant"], "step": step, "lines": self.lines, "accepted": self.accepted,
            "refused": self.refused, "refusals": self.parts, "outcome": outcome,
        }  # fmt: skip


def _groups(file: IO[bytes], job: Job) -> Iterator[list[tuple[int, Any]]]:
    """Lines with their numbers, as many as make a submission: rows by column, or text; a str is why there is none."""
    if job.get("format") == "csv":
        try:
            found = ((one.line, one.values if isinstance(one, Row) else one.text) for one in rows(file, lower=False))  # type: ignore[arg-type]
            while group := list(islice(found, LINES)):
                yield group
        except ValueError as error:
            yield [(1, str(error))]
        return
    number = 0
    while line := file.readline(LINE_MAX + 1):
        number += 1
        if len(line) > LINE_MAX:
            while line and not line.endswith(b"\n"):
                line = file.readline(CHUNK)
            yield [(number, f"is longer than {LINE_MAX:,} bytes")]
        elif line.strip():
            yield [(number, line)]
