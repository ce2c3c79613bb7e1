"""REST on a whole road: what curl's user sees of a mail from the 202 to its delivery, on two replicas, with a real ClickHouse."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from log_check import known

from analytics.server import Server, available
from deploy.local.kafka import free_port
from postroad import keys
from topics.catalogue import KEYS

if TYPE_CHECKING:
    from conftest import Road

pytestmark = pytest.mark.timeout(180)
API = (sys.executable, "-m", "postroad", "gateway", "api")
MAIL = {"from": "Shop <shop@acme.test>", "subject": "Hi {{name}}", "text": "Hello {{name}}", "tags": ["welcome"]}


class Rest:
    """A client of one key at several replicas."""

    def __init__(self, session: aiohttp.ClientSession, ports: list[int], secret: str) -> None:
        self.session, self.ports, self.secret = session, ports, secret

    async def ask(
        self, method: str, path: str, body: Any = None, *, replica: int = 0, data: Any = None, **headers: str
    ) -> tuple[int, Any]:
        headers = {
            "Authorization": f"Bearer {self.secret}",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        url = f"http://127.0.0.1:{self.ports[replica]}{path}"
        async with self.session.request(method, url, json=body, data=data, headers=headers) as answer:
            raw = await answer.read()
            return answer.status, json.loads(
                raw
            ) if raw and "json" in answer.content_type and "ndjson" not in answer.content_type else raw

    async def until(self, path: str, true: Any, seconds: float = 40) -> Any:
        """The answer, once it is as wanted."""
        deadline = time.monotonic() + seconds
        while True:
            status, found = await self.ask("GET", path)
            if status == 200 and true(found):
                return found
            assert time.monotonic() < deadline, (status, found)
            await asyncio.sleep(0.1)


async def _rest(road: Road, session: aiohttp.ClientSession, **settings: str) -> Rest:
    key, secret = keys.make("acme", keys.SCOPES, time.time_ns() // 1_000_000)
    known(secret)
    await road.client.send(KEYS.send(key))
    ports = [free_port(), free_port()]
    await road.start(**settings)
    for port in ports:
        await road.start(API, POSTROAD_API=f"127.0.0.1:{port}", **settings)
    return Rest(session, ports, secret)


@pytest.mark.parametrize("engine", ["chdb", "server"])
async def test_from_the_202_to_the_delivery(road: Road, tmp_path: Any, engine: str) -> None:
    if engine == "server" and not available():
        pytest.skip("no clickhouse-server here")
    if engine == "server":
        with Server(tmp_path / "clickhouse") as server:
            await _walk(road, engine, POSTROAD_CLICKHOUSE=server.url)
            road.stop()
            road.workers.clear()
    else:
        await _walk(road, engine)


async def _walk(road: Road, engine: str, **settings: str) -> None:
    async with aiohttp.ClientSession() as session:
        rest = await _rest(road, session, **settings)
        to = [{"address": f"{name}.{engine}@accept.test", "variables": {"name": name}} for name in ("ann", "bob")]
        # the same request at two replicas at once is one mail, and its status is right at once on both
        asked = [
            rest.ask("POST", "/v1/send", {**MAIL, "to": to}, replica=n % 2, Idempotency_Key="k1") for n in range(6)
        ]
        answers = await asyncio.gather(*asked)
        assert {status for status, _ in answers} == {202} and len({json.dumps(body) for _, body in answers}) == 1
        id = answers[0][1]["messages"][0]["message_id"]
        for replica in (0, 1):
            status, found = await rest.ask("GET", f"/v1/status/{id}", replica=replica)
            assert (status, found["recipient"]) == (200, f"ann.{engine}@accept.test"), found
        found = await rest.until(f"/v1/status/{id}", lambda one: one["ended"])
        assert found["state"] == "delivered", found
        assert [step["kind"] for step in found["timeline"]] == [
            "accepted",
            "validated",
            "scored",
            "cleared",
            "routed",
            "delivered",
        ]
        assert road.farm.receipts.count()[f"ann.{engine}@accept.test"] == 1
        # scheduled, moved, cancelled
        later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        _, sent = await rest.ask("POST", "/v1/send", {**MAIL, "to": to[0], "send_at": later})
        soon = sent["messages"][0]["message_id"]
        _, sent = await rest.ask("POST", "/v1/send", {**MAIL, "to": to[1], "send_at": later})
        never = sent["messages"][0]["message_id"]
        for each in (soon, never):
            await rest.until(f"/v1/status/{each}", lambda one: one["state"] == "scheduled")
        assert (await rest.ask("PATCH", f"/v1/messages/{soon}", {"send_at": datetime.now(UTC).isoformat()}))[0] == 202
        assert (await rest.ask("DELETE", f"/v1/messages/{never}"))[0] == 202
        assert (await rest.until(f"/v1/status/{soon}", lambda one: one["ended"]))["state"] == "delivered"
        assert (await rest.until(f"/v1/status/{never}", lambda one: one["ended"]))["state"] == "cancelled"
        # a list that stops mail
        assert (await rest.ask("POST", "/v1/suppressions", {"recipients": [f"carol.{engine}@accept.test"]}))[0] == 202
        await rest.until(
            "/v1/suppressions",
            lambda one: [each["recipient"] for each in one["suppressions"]] == [f"carol.{engine}@accept.test"],
        )
        _, sent = await rest.ask(
            "POST", "/v1/send", {**MAIL, "to": f"carol.{engine}@accept.test", "subject": "x", "text": "x"}
        )
        dropped = sent["messages"][0]["message_id"]
        assert (await rest.until(f"/v1/status/{dropped}", lambda one: one["ended"]))["timeline"][-1][
            "reason"
        ] == "suppressed"
        # a file
        form = aiohttp.FormData()
        form.add_field("message", json.dumps({**MAIL, "stream": "broadcast"}), content_type="application/json")
        rows = "to,name\r\n" + "".join(f"r{n}.{engine}@accept.test,R{n}\r\n" for n in range(20)) + "nobody,x\r\n"
        form.add_field("recipients", rows, filename="r.csv", content_type="text/csv")
        status, job = await rest.ask("POST", "/v1/send/batch", data=form)
        assert status == 202, job
        done = await rest.until(f"/v1/jobs/{job['job_id']}", lambda one: one["messages"] == {"delivered": 20})
        assert (done["state"], done["accepted"], done["refused"]) == ("done", 20, 1)
        _, refused = await rest.ask("GET", f"/v1/jobs/{job['job_id']}/refusals", replica=1)
        assert json.loads(refused)["line"] == 22
        # statistics
        _, listed = await rest.ask("GET", "/v1/messages?tag=welcome&state=delivered&limit=5")
        assert len(listed["messages"]) == 5 and listed["next"] == listed["messages"][-1]["message_id"]
        _, more = await rest.ask("GET", f"/v1/messages?tag=welcome&state=delivered&limit=1000&cursor={listed['next']}")
        assert len({one["message_id"] for one in listed["messages"] + more["messages"]}) == 23 and more["next"] is None
        _, one = await rest.ask("GET", f"/v1/messages?recipient=Carol.{engine}@accept.test&state=dropped")
        assert [each["message_id"] for each in one["messages"]] == [dropped]

        def counted(one: Any) -> bool:
            """Rows of ClickHouse follow by some seconds; a status is known before."""
            return [(each["delivered"], each["cancelled"]) for each in one["metrics"]] == [(23, 1)]

        await rest.until("/v1/metrics?group_by=none", counted)
        for group in ("day", "hour", "stream", "tag", "recipient_domain", "site", "reason"):
            status, told = await rest.ask("GET", f"/v1/metrics?group_by={group}")
            assert status == 200, told
        # a test key: the whole road, and nobody is reached or suppressed
        key, test = keys.make("acme", keys.SCOPES, time.time_ns() // 1_000_000, test_mode=True)
        await road.client.send(KEYS.send(key))
        tester = Rest(session, rest.ports, test)
        while (await tester.ask("GET", "/v1/keys"))[0] == 401:
            await asyncio.sleep(0.1)
        nobody = [f"{what}+{engine}@accept.test" for what in ("bounce", "complaint", "ann")]
        _, sent = await tester.ask("POST", "/v1/send", {**MAIL, "subject": "x", "text": "x", "to": nobody})
        ends = [
            await rest.until(f"/v1/status/{one['message_id']}", lambda found: found["ended"])
            for one in sent["messages"]
        ]
        assert [one["state"] for one in ends] == ["bounced", "delivered", "delivered"]
        assert not any(road.farm.receipts.count()[address] for address in nobody)
        _, lists = await rest.ask("GET", "/v1/suppressions")
        assert [one["recipient"] for one in lists["suppressions"]] == [f"carol.{engine}@accept.test"]
        await rest.until("/v1/usage", lambda one: one["accepted"] == 28)
