"""The producer, a process of its own: writes the plan to mail.submissions and notes what Kafka has acknowledged.

Each line of its file: {"index": place in the plan, "partition", "offset", "timestamp": what Kafka answered}. A write that
Kafka does not answer is made again; one that had arrived all the same is then a second submission of the same id.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path
from typing import TextIO

from aiokafka.errors import KafkaError

from avro.records import Attachment
from loadtest.demo.plan import Planned, make
from postroad.content import Contents
from topics.catalogue import SUBMISSIONS
from topics.client import Client, Place
from topics.installation import Installation

AT_ONCE = 25  # of neighbours in the plan, whose order then is left to chance
RETRY_S = 0.5


async def produce(plan: list[Planned], installation: Installation, notes: TextIO, rate: float) -> None:
    """Write the plan in order, at most `rate` submissions a second (0: as fast as it goes)."""
    contents = Contents((installation.data_dir.absolute() / "content").as_uri())
    began = time.monotonic()
    async with Client(installation) as client:
        for start in range(0, len(plan), AT_ONCE):
            part = list(enumerate(plan[start : start + AT_ONCE], start))
            for index, place in await asyncio.gather(*(_write(client, contents, *item) for item in part)):
                notes.write(json.dumps({"index": index, **place._asdict()}) + "\n")
            notes.flush()
            if rate:
                await asyncio.sleep(max(0.0, began + (start + len(part)) / rate - time.monotonic()))


async def _write(client: Client, contents: Contents, index: int, planned: Planned) -> tuple[int, Place]:
    output = None
    if planned.submission is not None:
        submission, now = planned.submission.copy(), time.time_ns() // 1_000_000
        if planned.send_in_s:
            submission["send_at"] = now + round(planned.send_in_s * 1000)
        if planned.expires_in_s:
            submission["expires_at"] = now + round(planned.expires_in_s * 1000)
        if planned.by_reference:
            submission["attachments"] = [await _refer(contents, one) for one in submission["attachments"]]
        output = SUBMISSIONS.send(submission)
    while True:
        try:
            if output is None:
                return index, await client.send_raw(SUBMISSIONS, planned.key, planned.raw)
            return index, await client.send(output._replace(key=planned.key))
        except KafkaError:
            await asyncio.sleep(RETRY_S)


async def _refer(contents: Contents, attachment: Attachment) -> Attachment:
    assert isinstance(attachment["content"], bytes)
    return {**attachment, "content": await contents.put_blob(attachment["content"])}


def main() -> None:
    """Started by the demo, which ends it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kafka", required=True)
    parser.add_argument(
        "--data-dir", type=Path, required=True, help="of the installation: attachments by reference go there"
    )
    parser.add_argument("--notes", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--rate", type=float, default=0.0)
    options = parser.parse_args()
    installation = Installation(options.kafka, data_dir=options.data_dir)
    with options.notes.open("a", encoding="utf-8") as notes:
        asyncio.run(produce(make(options.seed), installation, notes, options.rate))


if __name__ == "__main__":
    main()
