"""Webhooks on a whole road: what a tenant's receiver is told, verified by the library that it would use; a worker killed, an endpoint dead."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from standardwebhooks import Webhook as Verifier

from deploy.local.kafka import free_port

if TYPE_CHECKING:
    from conftest import Road

pytestmark = pytest.mark.timeout(180)


class Receiver:
    """Two endpoints: `/good` takes all, `/bad` answers with `status`."""

    def __init__(self) -> None:
        self.status, self.port, self.seen = 500, free_port(), list[tuple[str, dict[str, str], bytes]]()

    async def take(self, request: web.Request) -> web.Response:
        self.seen.append((request.path, dict(request.headers), await request.read()))
        return web.Response(status=200 if request.path == "/good" else self.status)

    def told(self, path: str) -> dict[str, list[dict[str, Any]]]:
        """Events by webhook-id."""
        found: dict[str, list[dict[str, Any]]] = {}
        for at, headers, body in self.seen:
            if at == path:
                found.setdefault(headers["webhook-id"], []).append(json.loads(body))
        return found


async def command(road: Road, *words: str) -> str:
    done = await asyncio.to_thread(
        subprocess.run, (sys.executable, "-m", "postroad", "webhooks", *words), capture_output=True, text=True,
        env={**os.environ, **road.settings, "POSTROAD_WEBHOOK_HTTP": "true", "POSTROAD_WEBHOOK_NETWORKS": "127.0.0.0/8"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_a_receiver_is_told_of_each_end_whatever_is_killed(road: Road) -> None:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/{any}", receiver.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", receiver.port).start()
    try:
        await _told(road, receiver)
    finally:
        await runner.cleanup()


async def _told(road: Road, receiver: Receiver) -> None:
    url = f"http://127.0.0.1:{receiver.port}"
    made = await command(
        road, "create", "--tenant", "acme", "--url", f"{url}/good", "--type", "delivered", "--type", "bounced"
    )
    secret = re.search(r"secret: (whsec_\S+)", made)
    good, bad = (
        re.search(r"wh_\S+", text)
        for text in (made, await command(road, "create", "--tenant", "acme", "--url", f"{url}/bad"))
    )
    assert secret and good and bad
    settings = {"POSTROAD_WEBHOOK_HTTP": "true", "POSTROAD_WEBHOOK_NETWORKS": "127.0.0.0/8"}
    worker = await road.start(**settings)
    recipients = [f"hook{n}@accept.test" for n in range(40)]
    await road.submit(recipients[:20])
    await road.until(lambda: len(receiver.told("/good")) >= 5, "some are told")
    worker.kill()
    worker.wait()
    road.workers.remove(worker)
    await road.submit(recipients[20:])
    await road.start(**settings)
    await road.until(lambda: len(receiver.told("/good")) >= 40, "all are told", 60)

    told = receiver.told("/good")
    assert {each[0]["data"]["recipient"] for each in told.values()} == set(recipients)
    for each in told.values():  # what was told twice, around the kill, has the same id
        assert {(one["type"], one["data"]["recipient"]) for one in each} == {
            ("message.delivered", each[0]["data"]["recipient"])
        }
    for path, headers, body in receiver.seen:
        if path == "/good":
            Verifier(secret[1]).verify(body, headers)

    # the dead endpoint: disabled by its owner, what waited is dead; enabled again and redriven it is told once more
    assert len(receiver.told("/bad")) >= 1
    await command(road, "update", bad[0], "--disable")

    async def dead() -> bool:
        said = await command(road, "deliveries", bad[0], "--limit", "1000")
        return len({line.split()[2] for line in said.splitlines() if " dead " in line}) >= 40

    for _ in range(40):
        if await dead():
            break
        await asyncio.sleep(0.5)
    assert await dead()
    receiver.status = 204
    await command(road, "update", bad[0], "--enable")
    before = len(receiver.seen)
    assert "redriven: 40" in await command(road, "redrive", bad[0])
    await road.until(
        lambda: len({h["webhook-id"] for p, h, _ in receiver.seen[before:] if p == "/bad"}) >= 40, "all are told again"
    )
    assert set(receiver.told("/bad")) >= set(told)
    await command(road, "test", good[0])
    await road.until(
        lambda: any(one[0]["type"] == "webhook.test" for one in receiver.told("/good").values()),
        "the test event is told",
    )
