"""The whole road, on a real Kafka and a real ClickHouse, to receivers that check what they get."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from agents.worker import STAGES
from analytics.audit import from_clickhouse, from_topics
from analytics.clickhouse import connect
from analytics.server import Server, available
from topics.catalogue import ALL as TOPICS
from topics.catalogue import (
    DEAD_LETTERS,
    DECISIONS,
    SUBMISSIONS,
    SUPPRESSIONS,
    TENANTS,
)

if TYPE_CHECKING:
    from conftest import Road

pytestmark = pytest.mark.timeout(180)
WHOLE_WAY = ["accepted", "validated", "scored", "cleared", "routed", "delivered"]
EXECUTABLE = {
    "filename": "invoice.exe",
    "content_type": "application/octet-stream",
    "content": b"MZ\0\0",
}  # held: score 6


def _contract() -> ModuleType:
    """tests/contract/test_java.py, which knows how to build the producers in other languages."""
    path = Path(__file__).parents[1] / "contract" / "test_java.py"
    spec = importlib.util.spec_from_file_location("test_java_for_road", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def delivered_to(road: Road, recipient: str) -> int:
    return road.farm.receipts.count()[recipient]


async def test_one_process_from_submission_to_row(road: Road) -> None:
    """Every step is an event; both signatures hold; what goes wrong has its end; poison stops nothing."""
    await road.start()

    for topic in TOPICS:  # of every topic that a stage reads
        if topic not in (DEAD_LETTERS, TENANTS):
            await road.client.send_raw(topic, b"acme", b"\x00\x01 no record of ours")
    await road.client.send_raw(TENANTS, b"broken", b"neither")
    await road.client.send_raw(SUBMISSIONS, b"acme", None)

    plain, _ = await road.submit("plain@accept.test")
    html, _ = await road.submit("html@bücher.test", html="<p>Grüße</p>", subject="Grüße", attachments=[
        {"filename": "weiß.bin", "content_type": "application/octet-stream", "content": bytes(range(256)) * 4000}])  # fmt: skip
    tls, _ = await road.submit("tls@starttls.test")
    grey, _ = await road.submit("grey@greylist.test")
    nobody, _ = await road.submit("unknown-nobody@unknown.test")
    nowhere, _ = await road.submit("x@nxdomain-for-sure.test")
    null_mx, _ = await road.submit("x@nullmx.test")
    held, _ = await road.submit("held@accept.test", attachments=[EXECUTABLE])
    later, _ = await road.submit("later@accept.test", send_at=int(time.time() * 1000) + 3000)
    older, _ = await road.submit("older@accept.test", send_at=int(time.time() * 1000) + 600_000, dedupe_id="d1")
    await road.kinds(older, "scheduled")
    newer, _ = await road.submit("newer@accept.test", dedupe_id="d1", dedupe_policy="replace")
    again, _ = await road.submit("plain@accept.test", submission_id=plain)

    assert await road.kinds(plain, "delivered") and again == plain
    assert Counter(await road.kinds(plain, "rejected")) == Counter([*WHOLE_WAY, "accepted", "rejected"])  # sent twice
    assert await road.kinds(html, "delivered") == WHOLE_WAY
    assert await road.kinds(newer, "delivered") == WHOLE_WAY
    assert (await road.kinds(older, "cancelled"))[-1] == "cancelled"
    assert (await road.kinds(nowhere, "rejected"))[-1] == "rejected"
    assert road.events(nowhere)[-1]["reason"] == "no-such-domain"
    await road.kinds(null_mx, "rejected")
    assert road.events(null_mx)[-1]["reason"] == "null-mx"
    assert (await road.kinds(nobody, "bounced"))[-1] == "bounced"
    assert road.events(nobody)[-1]["enhanced_code"] == "5.1.1"
    await road.kinds(tls, "delivered")
    assert road.events(tls)[-1]["tls"].startswith("TLSv1.3")

    # a hard bounce suppresses the next one
    again_nobody, _ = await road.submit("unknown-nobody@unknown.test")
    assert (await road.kinds(again_nobody, "dropped"))[-1] == "dropped"

    await road.kinds(later, "delivered")
    assert [e["kind"] for e in road.events(later)] == [
        "accepted",
        "validated",
        "scored",
        "scheduled",
        "cleared",
        "routed",
        "delivered",
    ]

    await road.kinds(held, "held")
    message_id = road.events(held)[0]["message_id"]
    decision: Any = {
        "message_id": message_id,
        "recipient": "held@accept.test",
        "action": "release",
        "by": "test",
        "at": 1,
    }
    await road.client.send(DECISIONS.send(decision))
    assert (await road.kinds(held, "delivered"))[-3:] == ["cleared", "routed", "delivered"]

    kinds = await road.kinds(grey, "delivered")
    assert kinds.count("deferred") >= 1 and kinds[-1] == "delivered"

    receipts = road.farm.receipts
    mine = {
        "plain@accept.test",
        "tls@starttls.test",
        "grey@greylist.test",
        "held@accept.test",
        "later@accept.test",
        "newer@accept.test",
    }
    assert all(delivered_to(road, recipient) == 1 for recipient in mine), receipts.count()
    assert not delivered_to(road, "older@accept.test")
    checked = {
        receipt.recipient: results for receipt, results in receipts.verify_signatures() if receipt.recipient in mine
    }
    assert all([r.valid for r in results] == [True, True] for results in checked.values())

    dead = [value async for _, value in road.client.read(DEAD_LETTERS)]
    reads = [topic.name for name in STAGES for topic in importlib.import_module(f"agents.{name}").stage.reads]
    assert {letter["topic"].removeprefix(road.client.installation.prefix) for letter in dead} == set(reads)
    topics, rows = await from_topics(road.client.installation), from_clickhouse(road.warehouse())
    assert topics.ok and rows.ok and topics.total.accepted == rows.total.accepted >= 7, (topics, rows)
    empty = 1  # the submission without a value
    assert len(dead) == len(reads) + empty and {letter["error"] for letter in dead} == {"DecodeError"}


@pytest.mark.skipif(not available(), reason="needs clickhouse-server (make test installs it on Debian)")
async def test_stages_apart_as_faust_users_start_them_into_a_server(road: Road, tmp_path: Path) -> None:
    """`faust -A agents.send worker` beside `postroad worker`; events over the native protocol; other languages produce."""
    with Server(tmp_path / "clickhouse") as server:
        faust = (sys.executable, "-m", "faust", "-A", "agents.send", "worker", "-l", "warn", "--without-web")
        others = ("ingest", "validate", "score", "suppress", "route", "classify", "schedule", "events_sink")
        await road.start(faust, ready=False, POSTROAD_DATA_DIR=str(tmp_path / "send"))
        await road.start((sys.executable, "-m", "postroad", "worker", *others), POSTROAD_CLICKHOUSE=server.url)
        contract, installation = _contract(), road.client.installation
        schema = str(Path(__file__).parents[2] / "avro" / "Submission.avsc")
        for language, producer in (("java", contract.java_producer), ("python", contract.python_producer)):
            mail = ["acme", "ann@acme.test", f"{language}@shop.test", "Žluťoučký kůň"]
            command = [*producer(), schema, installation.bootstrap, installation.name(SUBMISSIONS), *mail]
            done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=90)
            assert done.returncode == 0, done.stderr
            await road.until(lambda: delivered_to(road, f"{language}@shop.test") == 1, f"mail from {language} arrives")  # noqa: B023  # awaited within the turn
        warehouse = connect(server.url)
        submission, _ = await road.submit("server@accept.test")
        assert await road.kinds(submission, "delivered", warehouse) == WHOLE_WAY
        warehouse.close()
        road.stop()


async def test_killed_in_the_middle_of_its_work(road: Road) -> None:
    """kill -9 of the only worker under load, twice: nothing lost, no second delivery without its flag, one end each."""
    count = 300
    await road.client.send(
        SUPPRESSIONS.send(
            {"recipient": "k7@accept.test", "tenant": "", "reason": "manual", "at": 1, "evidence": "test"}
        )
    )
    submissions = [
        (await road.submit(f"k{number}@{'slow' if number % 10 == 0 else 'accept'}.test"))[0] for number in range(count)
    ]
    for _ in range(2):
        worker = await road.start(POSTROAD_INSTANCE_ID="w1")
        before = sum(road.farm.receipts.count().values())
        await road.until(lambda: sum(road.farm.receipts.count().values()) > before + 20, "mail flows")  # noqa: B023  # awaited within the turn
        worker.kill()
        worker.wait()
    await road.start(POSTROAD_INSTANCE_ID="w1")
    ends = "SELECT submission_id, uniqExact(message_id), groupUniqArray(kind), max(possible_duplicate) FROM events WHERE kind IN ('delivered', 'dropped', 'bounced', 'rejected', 'expired', 'cancelled') GROUP BY submission_id"
    await road.until(lambda: len(road.warehouse().query(ends).rows) == count, "every submission has its end", 60)
    rows = {row[0]: row for row in road.warehouse().query(ends).rows}
    assert rows.keys() == set(submissions)
    assert all(messages == 1 and len(kinds) == 1 for _, messages, kinds, _ in rows.values())
    assert [rows[s][2] for s in submissions].count(["dropped"]) == 1
    received = road.farm.receipts.count()
    for number, submission in enumerate(submissions):
        if number != 7:
            times = received[f"k{number}@{'slow' if number % 10 == 0 else 'accept'}.test"]
            assert times == 1 or (times > 1 and rows[submission][3]), f"k{number} was delivered {times} times"
