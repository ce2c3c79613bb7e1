"""Two releases side by side in the same consumer groups, forward and back: docs/decisions/0008-rolling-upgrade.md.

The newer release is that of loadtest/drills/release.py.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import avro
from loadtest.drills.release import add_campaign, newer_release
from loadtest.engine.harness import read_raw
from topics.catalogue import DEAD_LETTERS, EVENTS, OUTBOUND, SCHEMAS, VALIDATED
from topics.codec import Codec
from topics.writers import Writers

if TYPE_CHECKING:
    from conftest import Road

pytestmark = pytest.mark.timeout(180)
ROOT = Path(__file__).parents[2]
STAGES = ("ingest", "validate", "score", "suppress", "route", "send", "classify", "schedule")
ENDS = {"delivered", "bounced", "dropped", "rejected", "expired", "cancelled"}


class Mail:
    """Submissions without a pause, of all ways through the road, and who they were for."""

    def __init__(self, road: Road):
        self.road, self.recipients, self.submissions = road, list[str](), list[str]()
        self.stopping = False
        self.going = asyncio.create_task(self._write())

    async def _write(self) -> None:
        while not self.stopping:
            number = len(self.recipients)
            site = "greylist.test" if number % 5 == 0 else "accept.test"
            later = {"send_at": int(time.time() * 1000) + 6000} if number % 5 == 1 else {}
            recipient = f"m{number}@{site}"
            self.submissions.append((await self.road.submit(recipient, **later))[0])
            self.recipients.append(recipient)
            await asyncio.sleep(0.05)

    async def more(self, count: int = 20) -> None:
        """Return when so many more were delivered at once: the workers of this moment do their work."""
        first = len(self.recipients)
        await self.road.until(lambda: len(self.recipients) > first + count, "more is written")
        mine = [recipient for recipient in self.recipients[first : first + count] if recipient.endswith("@accept.test")]
        mine = [recipient for recipient in mine if int(recipient[1:].partition("@")[0]) % 5 != 1]
        await self.road.until(lambda: all(self.road.farm.receipts.count()[one] for one in mine), "more is delivered")

    async def stop(self) -> None:
        """Return when the last one is written and known: of one that is cancelled nobody knows whether it was."""
        self.stopping = True
        await self.going


async def test_two_releases_side_by_side_and_back(road: Road, tmp_path: Path) -> None:
    newer = await asyncio.to_thread(newer_release, tmp_path / "newer")

    async def start(name: str, checkout: Path) -> subprocess.Popen[bytes]:
        command = (sys.executable, "-P", "-m", "postroad", "worker", *STAGES)
        return await road.start(command, PYTHONPATH=str(checkout), POSTROAD_DATA_DIR=str(tmp_path / name))

    def leave(worker: subprocess.Popen[bytes]) -> int:
        worker.terminate()
        return worker.wait(40)

    earlier = Counter(road.farm.receipts.count())  # the farm is that of all tests here

    def received() -> dict[str, int]:
        return dict(Counter(road.farm.receipts.count()) - earlier)

    old = await start("a", ROOT)
    mail = Mail(road)
    await mail.more()
    new = await start("b", newer)  # side by side: half of all partitions, and tables that the old one wrote
    await mail.more(40)
    assert await asyncio.to_thread(leave, old) == 0
    await mail.more()  # the new release alone
    by_the_new = mail.submissions[-1]
    old = await start("a", ROOT)  # back: the same the other way
    await mail.more(40)
    assert await asyncio.to_thread(leave, new) == 0
    await mail.more()
    await mail.stop()
    await road.until(lambda: len(received()) >= len(mail.recipients), "all are delivered")

    # what tables of the new release say, the old one understands
    client = road.client
    before = received()
    assert set(before) == set(mail.recipients) and set(before.values()) == {1}
    routed = [record async for record in read_raw(client.installation, client.installation.name(OUTBOUND), 4)]
    for record in routed:  # every one of them was tried in this round
        await client.send_raw(OUTBOUND, record.key, record.value)
    again, _ = await road.submit("again@accept.test", submission_id=by_the_new)
    await road.submit("last@accept.test")
    await road.until(lambda: received().get("last@accept.test"), "the last one is delivered")

    async def events() -> list[Any]:
        return [event async for _, event in client.read(EVENTS)]

    async def ended() -> bool:
        found = await events()
        return {e["message_id"] for e in found} == {e["message_id"] for e in found if e["kind"] in ENDS}

    deadline = time.monotonic() + 20
    while not await ended():
        assert time.monotonic() < deadline, road.log()
        await asyncio.sleep(0.3)
    after, found = received(), await events()
    assert after == {**before, "last@accept.test": 1}
    assert [e["reason"] for e in found if e["submission_id"] == again and e["kind"] == "rejected"] == ["duplicate"]
    # a step done again by the next owner of its partition has the same id
    ends = Counter(message for message, _ in {(e["message_id"], e["event_id"]) for e in found if e["kind"] in ENDS})
    assert set(ends.values()) == {1} and len(ends) == len(mail.recipients) + 2
    assert not [e for e in found if e["kind"] == "reported" or e["possible_duplicate"]]
    assert [record async for record, _ in client.read(DEAD_LETTERS)] == []

    # and both have written
    message = avro.load("Message")
    add_campaign(message)
    codec = Codec(message, look=Writers(client.installation.bootstrap, client.installation.name(SCHEMAS)).look)
    validated = [record async for record in read_raw(client.installation, client.installation.name(VALIDATED), 4)]
    campaigns = Counter(codec.decode(record.value)["campaign"] for record in validated)
    assert min(campaigns["spring"], campaigns[""]) > 40, campaigns
