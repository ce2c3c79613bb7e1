"""Writes Avro submissions to Kafka: `python -m loadtest.peers.source BOOTSTRAP RUN COUNT BYTES TENANTS SITES DOMAIN`.

DOMAIN has {} where the number of a site goes. Everything is encoded first; it says `ready`, waits for a line and writes them all, RATE a second if that is in the environment. Then
one line of JSON, in the order of their numbers: when Kafka had each of them (ms), and how long (ms) each waited for that. STREAM in the
environment: of the messages; RECIPIENTS: of each submission, to one site after another; broadcasts go to the topic of their own.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

from avro.records import Submission
from topics.catalogue import BROADCASTS, SUBMISSIONS
from topics.client import Client
from topics.installation import Installation

AT_ONCE = 400
LINE = "The quick brown fox jumps over the lazy dog.\n"


def submission(run: str, number: int, size: int, tenants: int, sites: int, domain: str) -> Submission:
    """A mail with `size` bytes of text, as smtp-source -l counts them. Its recipients are RUN.NUMBER@, numbered through all."""
    tenant, each = f"t{number % tenants}", int(os.environ.get("RECIPIENTS", "1"))
    return {
        "stream": "broadcast" if os.environ.get("STREAM") == "broadcast" else "transactional", "tenant": tenant,
        "submission_id": f"{run}-{number}", "sender": {"address": f"news@{tenant}.example"},
        "recipients": [
            {"address": f"{run}.{n}@{domain.format(n % sites)}"} for n in range(number * each, (number + 1) * each)
        ],
        "subject": f"Bench {number}", "text": (LINE * (size // len(LINE) + 1))[:size],
    }  # fmt: skip


async def main(bootstrap: str, run: str, count: str, size: str, tenants: str, sites: str, domain: str) -> None:
    """See the module."""
    rate = float(os.environ.get("RATE", "0"))
    topic = BROADCASTS if os.environ.get("STREAM") == "broadcast" else SUBMISSIONS
    waits, places = [0.0] * int(count), [0] * int(count)
    async with Client(Installation(bootstrap)) as client:
        codec = await client.codec(topic)
        records = []
        for number in range(int(count)):
            output = topic.send(submission(run, number, int(size), int(tenants), int(sites), domain))
            records.append((output.key, codec.encode(output.value)))
        print("ready", flush=True)
        if not await asyncio.to_thread(sys.stdin.readline):
            return
        began = time.monotonic()

        async def write(number: int) -> None:
            key, value = records[number]
            started = time.monotonic()
            place = await client.send_raw(topic, key, value)
            waits[number] = round((time.monotonic() - started) * 1000, 1)
            places[number] = place.timestamp

        if not rate:
            for start in range(0, len(records), AT_ONCE):
                await asyncio.gather(*map(write, range(start, min(start + AT_ONCE, len(records)))))
        else:
            tasks: list[asyncio.Task[None]] = []
            while len(tasks) < len(records):
                due = min(len(records), int((time.monotonic() - began) * rate) + 1)
                tasks += [asyncio.create_task(write(number)) for number in range(len(tasks), due)]
                await asyncio.sleep(0.005)
            await asyncio.gather(*tasks)
    print(json.dumps({"at": places, "waits": waits}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
