"""The producer, a process of its own: writes the plan to mail.submissions with acks=all, whatever becomes of the brokers.

Each line of its file: {"index": place in the plan, "messages", "partition", "offset", "timestamp": what Kafka answered}. A write
that Kafka does not answer is made again, the same bytes: one that had arrived all the same is then a second record of the same
submission id. An offset of -1: Kafka has it from an earlier try and does not know where any more. Started again on the same
file it writes what is not acknowledged there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from aiokafka.errors import KafkaError

from loadtest.chaos.plan import Planned, plan
from topics.catalogue import SUBMISSIONS, Output
from topics.client import Client, Place
from topics.installation import Installation

AT_ONCE = 50  # of neighbours in the plan, whose order then is left to chance
RETRY_S = 0.5
ANSWER_S = 30.0  # then the write's outcome is unknown
CLOSE_S = 5.0


class Producer:
    """Writes until the plan is through. `again`: writes that were made once more."""

    def __init__(self, installation: Installation, notes: TextIO):
        self.installation, self.notes, self.again = installation, notes, 0
        self._client = Client(installation)
        self._changing = asyncio.Lock()

    async def run(self, planned: Iterator[Planned], rate: float, surge: Sequence[float] = ()) -> None:
        """At most `rate` messages a second (0: as fast as it goes); `surge`: from when on, until when (s), and how many then."""
        began, due = time.monotonic(), 0.0
        places = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            for one in planned:
                await places.acquire()
                tasks.create_task(self._note(one, places))
                if rate:
                    due += one.messages / (surge[2] if surge and surge[0] <= due < surge[1] else rate)
                    await asyncio.sleep(max(0.0, began + due - time.monotonic()))
        await self._close(self._client)

    async def _note(self, one: Planned, places: asyncio.Semaphore) -> None:
        try:
            place = await self._write(one)
        finally:
            places.release()
        self.notes.write(json.dumps({"index": one.place, "messages": one.messages, **place._asdict()}) + "\n")
        self.notes.flush()

    async def _write(self, one: Planned) -> Place:
        submission, now = one.submission.copy(), time.time_ns() // 1_000_000
        if one.send_in_s:
            submission["send_at"] = now + round(one.send_in_s * 1000)
        if one.expires_in_s:
            submission["expires_at"] = now + round(one.expires_in_s * 1000)
        output: Output = SUBMISSIONS.send(submission)
        while True:
            client = self._client
            try:
                async with asyncio.timeout(ANSWER_S):
                    return await client.send(output)
            except (KafkaError, OSError, TimeoutError) as error:
                self.again += 1
                print(f"submission {one.place} is written again: {error!r}", file=sys.stderr, flush=True)
                await self._renew(client)

    async def _renew(self, broken: Client) -> None:
        """A new producer in the place of one that has failed: an idempotent one may not go on after an error."""
        async with self._changing:
            if self._client is broken:
                self._client = Client(self.installation)
                await self._close(broken)
        await asyncio.sleep(RETRY_S)

    @staticmethod
    async def _close(client: Client) -> None:
        try:
            async with asyncio.timeout(CLOSE_S):
                await client.__aexit__()
        except (KafkaError, OSError, TimeoutError):
            pass  # whatever it still had is written again by the next one


def noted(path: Path) -> set[int]:
    """Indexes of the plan that are acknowledged in a file; a line that is not whole is taken out of it."""
    with path.open("a+b") as notes:
        notes.seek(0)
        data = notes.read()
        notes.truncate(data.rfind(b"\n") + 1)
    return {json.loads(line)["index"] for line in data[: data.rfind(b"\n") + 1].splitlines()}


def main() -> None:
    """Started by loadtest/chaos/load.py, which ends it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kafka", required=True)
    parser.add_argument("--prefix", default="")
    parser.add_argument("--partitions", type=int, required=True)
    parser.add_argument("--notes", type=Path, required=True)
    parser.add_argument("--messages", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--surge", type=float, nargs=3, default=(), metavar=("FROM", "UNTIL", "RATE"))
    given = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a line for every try to reach a dead broker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for who started us
    done = noted(given.notes)
    installation = Installation(given.kafka, prefix=given.prefix, partitions=given.partitions)

    async def run() -> None:
        with given.notes.open("a", encoding="utf-8") as notes:
            producer = Producer(installation, notes)
            await producer.run(
                (one for one in plan(given.messages, given.seed) if one.place not in done), given.rate, given.surge
            )
            print(f"all written, {producer.again} writes were made again", file=sys.stderr)

    asyncio.run(run())


if __name__ == "__main__":
    main()
