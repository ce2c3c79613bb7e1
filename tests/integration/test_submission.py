"""SMTP submission on a whole road: two replicas, one killed with -9; what was answered with 250 is delivered, once, signed, without our fields."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
import sys
import time
from collections import Counter
from email import message_from_bytes
from typing import TYPE_CHECKING

import pytest
from log_check import known

from deploy.local.kafka import free_port
from postroad import keys
from topics.catalogue import KEYS

if TYPE_CHECKING:
    from conftest import Road

pytestmark = pytest.mark.timeout(180)
SMTP = (sys.executable, "-m", "postroad", "gateway", "smtp")


def mail(to: str) -> bytes:
    return (
        f"From: Shop <shop@acme.test>\r\nTo: {to}\r\nBcc: secret@accept.test\r\nSubject: {to}\r\nX-Postroad-Tags: order\r\n\r\n"
        "Hello.\r\n.\r\n..\r\n"
    ).encode()


async def test_from_the_250_to_the_delivery(road: Road) -> None:
    key, secret = keys.make("acme", ["send"], time.time_ns() // 1_000_000)
    known(secret)
    await road.client.send(KEYS.send(key))
    ports = [free_port(), free_port()]
    doors = [await road.start(SMTP, POSTROAD_SUBMISSION=f"127.0.0.1:{port}") for port in ports]
    await road.start()
    trust = ssl.create_default_context()
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    answered: dict[str, str] = {}

    def send(replica: int, numbers: range) -> None:
        """Until the door is gone."""
        try:
            with smtplib.SMTP("127.0.0.1", ports[replica], timeout=10) as client:
                client.starttls(context=trust)
                client.login("apikey", secret)
                for number in numbers:
                    to = f"door{number}@accept.test"
                    client.mail("shop@acme.test")
                    client.rcpt(to)
                    code, text = client.data(mail(to))
                    if code == 250:
                        answered[to] = text.decode().split()[-1]
        except (smtplib.SMTPException, OSError):
            pass

    sending = [asyncio.to_thread(send, replica, range(replica * 1_000, replica * 1_000 + 300)) for replica in (0, 1)]
    going = asyncio.gather(*sending)
    await road.until(lambda: len(answered) >= 50, "some are answered")
    doors[0].kill()
    doors[0].wait()
    road.workers.remove(doors[0])
    await going
    assert sum(int(to[4:].partition("@")[0]) >= 1_000 for to in answered) == 300

    counts = road.farm.receipts.count
    await road.until(lambda: all(counts()[to] for to in answered), "what was answered is delivered", 60)
    there = Counter(counts())
    assert {there[to] for to in answered} == {1}
    sample = next(one for one in road.farm.receipts if one.recipient in answered)
    found = message_from_bytes(road.farm.receipts.raw(sample))
    assert (
        found["Subject"] == sample.recipient
        and found["Bcc"] is None
        and found["X-Postroad-Tags"] is None
        and found["DKIM-Signature"]
    )
    await road.until(lambda: road.warehouse().query(
        "SELECT count() FROM events WHERE kind = 'delivered' AND message_id = {id:String} AND has(tags, 'order')",
        {"id": answered[sample.recipient]},
    ).rows == [(1,)], "the id that was answered is that of the events")  # fmt: skip
