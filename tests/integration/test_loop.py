"""The loop: the farm takes a mail, then sends a DSN or a complaint back by SMTP, and the next mail to that recipient is stopped."""

from __future__ import annotations

import asyncio
import smtplib
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from deploy.local.kafka import free_port
from postroad.settings import Settings
from topics.catalogue import EVENTS, REPORTS, SUPPRESSIONS

if TYPE_CHECKING:
    from conftest import Road

pytestmark = pytest.mark.timeout(180)
INBOUND = (sys.executable, "-m", "postroad", "gateway", "inbound")
FBL = "fbl@acme.test"


async def read(road: Road, topic: Any) -> list[Any]:
    return [value async for _, value in road.client.read(topic, broken=lambda record, error: None)]


async def about(road: Road, kind: str, recipient: str) -> Any:
    """The event of a kind on a recipient, once it is there."""
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        for event in await read(road, EVENTS):
            if (event["kind"], event["recipient"]) == (kind, recipient):
                return event
        await asyncio.sleep(0.2)
    told = [(event["kind"], event["reason"], event["recipient"], event["detail"]) for event in await read(road, EVENTS)]
    raise AssertionError(f"no event {kind} of {recipient}: {told}\n{road.log()}")


async def inbound(road: Road, **settings: str) -> int:
    port = free_port()
    road.settings |= {"POSTROAD_INBOUND": f"127.0.0.1:{port}", "POSTROAD_FEEDBACK_ADDRESSES": FBL, **settings}
    await road.start(INBOUND)
    return port


def deliver(port: int, *recipients: str, raw: bytes = b"Subject: hi\r\n\r\nhello\r\n") -> list[tuple[int, bytes]]:
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
        client.ehlo("peer.test")
        client.docmd("MAIL FROM:<>")
        replies = [client.docmd(f"RCPT TO:<{recipient}>") for recipient in recipients]
        return [*replies, client.data(raw)] if any(code == 250 for code, _ in replies) else replies


async def test_what_comes_back_stops_the_next_mail(road: Road) -> None:
    port = await inbound(road)
    await road.start()
    returns = {"gone": "dsn 5.1.1 no such user here", "angry": "arf abuse", "large": "dsn 5.1.1 no such user here"}
    road.farm.control(
        {"sites": {"accept": {"returns": returns, "returns_to": f"127.0.0.1:{port}", "feedback_to": FBL}}}
    )
    try:
        recipients = ["gone@accept.test", "angry@accept.test", "fine@accept.test"]
        first, _ = await road.submit(recipients)
        bounced, complained = (
            await about(road, "late_bounce", recipients[0]),
            await about(road, "complained", recipients[1]),
        )
        assert (bounced["bounce_class"], bounced["enhanced_code"], bounced["site"]) == ("hard", "5.1.1", "accept.test")
        evidence = {e["recipient"]: e["evidence"] for e in (bounced, complained)}
        stopping = {s["recipient"]: (s["reason"], s["evidence"]) for s in await read(road, SUPPRESSIONS)}
        assert stopping == {recipients[0]: ("hard_bounce", evidence[recipients[0]]), recipients[1]: ("complaint", evidence[recipients[1]])}  # fmt: skip

        await asyncio.sleep(1.0)  # one pass of mail.suppressions
        again, _ = await road.submit(recipients)
        await road.until(
            lambda: sum(e["kind"] in ("dropped", "delivered") for e in road.events(again)) == 3, "three ends"
        )
        ends = {e["recipient"]: e for e in road.events(again) if e["kind"] in ("dropped", "delivered")}
        assert [ends[each]["kind"] for each in recipients] == ["dropped", "dropped", "delivered"]
        for each in recipients[:2]:
            assert evidence[each] in f"{ends[each]['evidence']} {ends[each]['detail']}", "the evidence is named"

        delivered = [e["recipient"] for e in road.events(first) if e["kind"] == "delivered"]
        assert sorted(delivered) == sorted(recipients), "the ledger still has one end of each"
        before = len(await read(road, SUPPRESSIONS))
        dsn = next(r for r in await read(road, REPORTS) if r["report_id"] == evidence[recipients[0]])
        replies = await asyncio.to_thread(deliver, port, dsn["rcpt_to"], raw=dsn["content"]["inline"])
        assert replies[-1][0] == 250 and dsn["report_id"].encode() in replies[-1][1], "the same evidence"
        await asyncio.sleep(2.0)
        assert len(await read(road, SUPPRESSIONS)) == before
        found = [e for e in await read(road, EVENTS) if (e["kind"], e["recipient"]) == ("late_bounce", recipients[0])]
        assert len({e["event_id"] for e in found}) == 1
    finally:
        road.farm.control({})


async def test_a_forged_return_path_is_refused_and_reaches_nobody(road: Road) -> None:
    port = await inbound(road)
    paths = Settings(topic_prefix=road.client.installation.prefix).return_paths()
    id = "065svpb800r2mmfdtsf68c0kac"
    forged, good = f"b-{id}-{'0' * 16}@acme.test", paths.sign(id, "acme.test")
    replies = await asyncio.to_thread(deliver, port, forged, "victim@elsewhere.test")
    assert [(code, text[:5]) for code, text in replies] == [(550, b"5.1.1"), (550, b"5.7.1")]
    assert await read(road, REPORTS) == []
    assert [code for code, _ in await asyncio.to_thread(deliver, port, good)] == [250, 250]
    large = b"Subject: large\r\n\r\n" + b"x" * 70_000 + b"\r\n"
    assert (await asyncio.to_thread(deliver, port, good, raw=large))[-1][0] == 250
    small_report, large_report = sorted(await read(road, REPORTS), key=lambda report: report["content"]["size"])
    assert small_report["content"]["inline"] and large_report["content"]["blob"]
