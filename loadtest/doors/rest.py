"""REST: how many a second one process on one core takes, how late at half of that, and what a kill in the middle leaves.

`run(short)`: rest_per_s, rest_p95_ms, rest_cpu_us. `faults(short)`: lost, second_mails, foreign_reads. `peak()`: two processes, the road running.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections import defaultdict
from typing import Any

from deploy.local.kafka import free_port
from gateway.accept import ids_of
from loadtest.doors.client import Connection, at_rate, closed, mail, request
from loadtest.doors.rig import ROOT, Rig, cpu_s, quantile, rig
from loadtest.mxfarm import Farm
from topics.catalogue import SUBMISSIONS
from topics.client import Client, Place

PER_S_MUST, P95_MUST_MS, PEAK_PER_S, PEAK_P95_MUST_MS = 1_200, 50.0, 1_700, 2_000.0
CONNECTIONS = 32


def run(short: bool = False) -> dict[str, float]:
    """rest_per_s, rest_p95_ms (at half the rate that is a must), rest_cpu_us (of a request)."""
    with rig() as made:
        port, cores = free_port(), os.cpu_count() or 1
        door = made.start(port, core=0 if cores > 1 else None)
        if cores > 1:
            os.sched_setaffinity(0, set(range(1, cores)))
        try:
            return asyncio.run(_measure(made, port, door.pid, 5.0 if short else 20.0))
        finally:
            os.sched_setaffinity(0, set(range(cores)))


async def _measure(made: Rig, port: int, pid: int, seconds: float) -> dict[str, float]:
    mails = [request(made.secret, mail(number)) for number in range(2_000)]

    def make(number: int) -> bytes:
        return mails[number % len(mails)]

    await closed([port], make, CONNECTIONS, 2.0)  # warm
    before = cpu_s(pid)
    number, took, _ = await closed([port], make, CONNECTIONS, seconds)
    used = cpu_s(pid) - before
    answers = await at_rate([port], make, PER_S_MUST / 2, seconds)
    assert {one.status for one in answers} == {202}
    p95 = quantile([one.took_s for one in answers], 0.95) * 1000
    return {"rest_per_s": round(number / took), "rest_p95_ms": round(p95, 1), "rest_cpu_us": round(used / number * 1e6)}


def peak(seconds: float = 20.0) -> dict[str, float]:
    """peak_per_s, peak_p95_ms: two processes behind one port, the whole road running and delivering to a farm."""
    with rig() as made, Farm.start(made.folder / "farm") as farm:
        settings = {
            "POSTROAD_KAFKA": made.kafka.bootstrap, "POSTROAD_DATA_DIR": str(made.folder / "data"), "POSTROAD_CLICKHOUSE_HTTP": "",
            "POSTROAD_DNS_SERVERS": farm.dns, "POSTROAD_SMTP_PORT": str(farm.smtp_port),
        }  # fmt: skip
        with (made.folder / "worker.log").open("ab") as log:
            worker = subprocess.Popen(
                (sys.executable, "-m", "postroad", "worker", "all"),
                cwd=ROOT,
                env={**os.environ, **settings},
                stdout=log,
                stderr=log,
            )
        try:
            port = free_port()
            for _ in range(2):
                made.start(port)
            mails = [request(made.secret, mail(number)) for number in range(2_000)]
            answers = asyncio.run(at_rate([port], lambda number: mails[number % len(mails)], PEAK_PER_S, seconds))
        finally:
            worker.terminate()
            worker.wait(60)
    good = [one for one in answers if one.status == 202]
    return {
        "peak_per_s": round(len(good) / seconds),
        "peak_p95_ms": round(quantile([one.took_s for one in answers], 0.95) * 1000),
    }


def faults(short: bool = False) -> dict[str, float]:
    """lost: success answers whose messages are not in Kafka; second_mails: Idempotency-Keys with more than one submission;
    foreign_reads: messages of which a stranger's key learned. The door is killed with -9 again and again, under load."""
    with rig() as made:
        return asyncio.run(_killed(made, 5 if short else 100))


async def _killed(made: Rig, kills: int) -> dict[str, float]:
    port, dice, answers = free_port(), random.Random(8), dict[str, dict[str, Any]]()
    door, keys = made.start(port), iter(range(1 << 40))
    stopping = asyncio.Event()

    async def client() -> None:
        while not stopping.is_set():
            key = f"key-{next(keys)}"
            sent = request(made.secret, mail(int(key[4:])), more=f"Idempotency-Key: {key}\r\n")
            connection = Connection(port)
            while True:
                try:
                    async with asyncio.timeout(60):
                        status, body = await connection.ask(sent)
                except (OSError, EOFError, TimeoutError):
                    await asyncio.sleep(0.05)
                    continue
                if status == 202:
                    answers[key] = json.loads(body)
                    break
                if status not in (409, 503):
                    raise AssertionError(f"{status}: {body[:500]!r}")
                await asyncio.sleep(0.2)
            connection.close()

    clients = [asyncio.create_task(client()) for _ in range(8)]
    for _ in range(kills):
        await asyncio.sleep(dice.uniform(0.2, 1.0))
        door.kill()
        door.wait()
        door = await asyncio.to_thread(made.start, port)
    await asyncio.sleep(1.0)
    stopping.set()
    await asyncio.gather(*clients)
    foreign = await _strange(made, port, [one["messages"][0]["message_id"] for one in answers.values()][-40:])
    written: defaultdict[str, list[Place]] = defaultdict(list)
    there: set[str] = set()
    recipients: defaultdict[str, set[str]] = defaultdict(set)
    async with Client(made.installation) as client_:
        async for record, value in client_.read(SUBMISSIONS):
            place = Place(record.partition, record.offset, record.timestamp)
            written[value["submission_id"]].append(place)
            recipients[value["recipients"][0]["address"]].add(value["submission_id"])
            there.update(ids_of(value, place))
    lost = sum(one["message_id"] not in there for answer in answers.values() for one in answer["messages"])
    return {
        "lost": lost, "second_mails": sum(len(ids) - 1 for ids in recipients.values()), "foreign_reads": foreign, "kills": kills,
        "answered": len(answers), "repeats_stopped_by_ingest": sum(len(places) - 1 for places in written.values()),
    }  # fmt: skip


async def _strange(made: Rig, port: int, ids: list[str]) -> int:
    """Of how many messages a stranger's key learns, or that it can cancel; each is really there."""
    connection, found = Connection(port), 0
    for id in ids:
        for method in ("GET", "DELETE"):
            path = f"/v1/status/{id}" if method == "GET" else f"/v1/messages/{id}"
            status, _ = await connection.ask(request(made.stranger, b"", method=method, path=path))
            found += status != 404
    status, _ = await connection.ask(request(made.secret, b"", method="GET", path=f"/v1/status/{ids[-1]}"))
    assert status == 200, "its owner sees it"
    connection.close()
    return found


if __name__ == "__main__":
    began = time.monotonic()
    found = run("--short" in sys.argv)
    print(f"{time.monotonic() - began:.0f} s")
    print("RESULT " + json.dumps(found))
    sys.exit(found["rest_per_s"] < PER_S_MUST or found["rest_p95_ms"] > P95_MUST_MS)
