"""Webhooks: notifications a second of one process to a local endpoint, and what 50 dead endpoints (half refuse, half never answer) do to another,
against 50 that are alive and get the same.

`run(short)`: the stage itself, with the codec of every record, its tables in memory, and HTTP over loopback to a receiver in a process
of its own. Kafka and RocksDB are not in it: bench_hop has what a hop costs.
`faults(short)`: a whole worker, with Kafka, killed with -9 again and again; webhooks_lost: events of which the receiver was never told.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import socket
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

from agents import notify
from avro.records import Event, Webhook
from loadtest.doors.rig import ROOT, Rig, rig
from postroad.webhooks.guard import Rules
from postroad.webhooks.notifier import Notifier, wall_clock
from postroad.webhooks.payload import notification
from postroad.webhooks.signing import new_secret
from topics.catalogue import EVENTS, NOTIFICATIONS, NOTIFIED, WEBHOOKS
from topics.client import Client
from topics.testing import Scripted

DEAD, RATE_MUST, RATIO_MUST = 50, 1000, 1.2


def _receive(told: Any) -> None:
    """A receiver that answers 204 to whatever comes; tells its port."""

    async def serve() -> None:
        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while head := await reader.readuntil(b"\r\n\r\n"):
                    size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                    await reader.readexactly(size)
                    writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            except (asyncio.IncompleteReadError, OSError):
                writer.close()

        server = await asyncio.start_server(take, "127.0.0.1", 0)
        told.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


def _webhook(n: int, tenant: str, port: int) -> Webhook:
    secret = new_secret("hmac")
    return {"webhook_id": f"wh_{n}", "tenant": tenant, "url": f"http://127.0.0.1:{port}/", "kind": "hmac", "created_at": 0, "updated_at": 0,
            "secrets": [{"secret": secret, "until": None}], "concurrency": 20}  # fmt: skip


def _event(n: int, tenant: str, now: int) -> Event:
    return {"event_id": f"m{n}:delivered:0:1", "message_id": f"m{n}", "tenant": tenant, "submission_id": "s", "stream": "transactional",
            "kind": "delivered", "at": now, "accepted_at": now, "recipient": f"r{n}@there.test", "stage": "classify",
            "reply": "2.0.0 Ok: queued as 4BCDEF", "reply_code": 250, "tags": ["welcome"]}  # fmt: skip


async def _drive(webhooks: dict[str, Webhook], tenants: list[str], n: int, rate: float) -> tuple[float, float, float]:
    """(delivered a second, p95 in ms from the event to its delivery, CPU us an event); `rate`: events a second, 0: all at once."""
    rules = Rules(("127.0.0.0/8",), True, 5.0)
    services = SimpleNamespace(webhooks=webhooks, notifier=Notifier(rules))
    runner, latencies, fed = Scripted(notify.stage, services, wall_clock()), list[float](), 0
    began, cpu = time.monotonic(), time.process_time()
    while len(latencies) < n:
        runner.now = wall_clock()
        due = min(n - fed, 200 if not rate else int((time.monotonic() - began) * rate) - fed)
        if due > 0:
            # events of tenants with dead endpoints come beside the others, one for each
            batch = [_event(fed + k, tenant, runner.now) for k in range(due) for tenant in tenants]
            fed += due
            said = await runner.feed(EVENTS, *batch)
            await runner.feed(NOTIFICATIONS, *(each.value for each in said))
        for output in await runner.tick():
            if (
                output.topic is NOTIFIED
                and output.value["outcome"] == "delivered"
                and output.value["webhook_id"] == "wh_0"
            ):
                latencies.append(output.value["tried_at"] - output.value["at"])
        await asyncio.sleep(0.002)
    took, used = time.monotonic() - began, time.process_time() - cpu
    await services.notifier.close()
    return n / took, sorted(latencies)[int(0.95 * n)], used / n * 1e6


def run(short: bool = False) -> dict[str, float]:
    """webhooks_per_s, webhook_cpu_us, webhook_p95_ms, webhook_p95_dead_ms, webhook_isolation_ratio."""
    mine, its = multiprocessing.Pipe()
    receiver = multiprocessing.get_context("spawn").Process(target=_receive, args=(its,), daemon=True)
    receiver.start()
    try:
        good = {"wh_0": _webhook(0, "good", mine.recv())}
        silent = socket.create_server(("127.0.0.1", 0), backlog=4096)  # takes connections and never answers
        ports = 1, silent.getsockname()[1]
        dead = {f"wh_{n}": _webhook(n, "beside", ports[n % 2]) for n in range(1, DEAD + 1)}
        alive: dict[str, Any] = {name: {**each, "url": good["wh_0"]["url"]} for name, each in dead.items()}
        n = 2000 if short else 10_000
        rate, _, cpu = asyncio.run(_drive(good, ["good"], n, 0))
        _, alone, _ = asyncio.run(_drive({**good, **alive}, ["good", "beside"], n // 10, 10))
        _, beside, _ = asyncio.run(_drive({**good, **dead}, ["good", "beside"], n // 10, 10))
        silent.close()
    finally:
        receiver.terminate()
    return {"webhooks_per_s": round(rate), "webhook_cpu_us": round(cpu), "webhook_p95_ms": alone, "webhook_p95_dead_ms": beside,
            "webhook_isolation_ratio": round(beside / max(alone, 1), 2)}  # fmt: skip


def faults(short: bool = False) -> dict[str, float]:
    """webhooks_lost, webhooks_again (told more than once), webhooks_told."""
    with rig() as made:
        return asyncio.run(_killed(made, 2 if short else 20))


async def _killed(made: Rig, kills: int) -> dict[str, float]:
    dice, told, under_way = random.Random(8), list[str](), set[str]()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower():
                await reader.readexactly(int(head.partition("content-length: ")[2].partition("\r\n")[0]))
                told.append(head.partition("webhook-id: ")[2].partition("\r\n")[0])
                status = "204 No Content" if dice.random() < 0.98 else "500 Internal Server Error"
                if status.startswith("204"):
                    under_way.discard(told[-1])
                writer.write(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n".encode())
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            writer.close()

    def start() -> subprocess.Popen[bytes]:
        settings = {
            "POSTROAD_KAFKA": made.kafka.bootstrap, "POSTROAD_DATA_DIR": str(made.folder / "data"), "POSTROAD_CLICKHOUSE_HTTP": "",
            "POSTROAD_WEBHOOK_HTTP": "true", "POSTROAD_WEBHOOK_NETWORKS": "127.0.0.0/8",
        }  # fmt: skip
        with (made.folder / "notify.log").open("ab") as log:
            return subprocess.Popen((sys.executable, "-m", "postroad", "worker", "notify"), cwd=ROOT,
                                    env={**os.environ, **settings}, stdout=log, stderr=log)  # fmt: skip

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    worker, sent = start(), 0
    try:
        async with Client(made.installation) as client:
            webhook = _webhook(0, "acme", server.sockets[0].getsockname()[1])
            await client.send(WEBHOOKS.send(webhook))
            for _ in range(kills):
                # a worker is killed while it delivers, wherever it stands: most die in their first second of work
                seen, deadline = len(told), time.monotonic() + 60
                while (len(told) == seen and time.monotonic() < deadline) or not sent:
                    for _ in range(20):
                        sent += 1
                        event = _event(sent, "acme", wall_clock())
                        under_way.add(notification(webhook, "", "", event["event_id"], 0)["notification_id"])
                        await client.send(EVENTS.send(event))
                    await asyncio.sleep(0.1)
                await asyncio.sleep(dice.uniform(0, 1.0))
                worker.kill()
                worker.wait()
                worker = await asyncio.to_thread(start)
            deadline = time.monotonic() + 180  # failures are tried again after 5 s, then 30 s
            while under_way and time.monotonic() < deadline:
                await asyncio.sleep(0.5)
    finally:
        worker.terminate()
        worker.wait(60)
        server.close()
    return {
        "webhooks_lost": len(under_way),
        "webhooks_again": len(told) - len(set(told)),
        "webhooks_told": sent,
        "webhooks_kills": kills,
    }


if __name__ == "__main__":
    found = run("--short" in sys.argv)
    print("RESULT " + json.dumps(found))
    sys.exit(found["webhooks_per_s"] < RATE_MUST or found["webhook_isolation_ratio"] > RATIO_MUST)
