"""What operators do with dead letters, on the whole road: one that is given up, and some that are put back after a repair."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from postroad.events import ENDS
from topics.catalogue import SCHEDULED, SCORED, TENANTS
from topics.codec import Codec
from topics.letters import Chosen, Letter, read

if TYPE_CHECKING:
    from conftest import Road

pytestmark = pytest.mark.timeout(180)
EXECUTABLE = {"filename": "invoice.exe", "content_type": "application/octet-stream", "content": b"MZ\0\0"}  # held


async def operate(road: Road, *arguments: str) -> str:
    """`postroad dead-letters ...` as it is typed."""
    command = [sys.executable, "-m", "postroad", "dead-letters", *arguments]
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=Path(__file__).parents[2], env={**os.environ, **road.settings}, capture_output=True, text=True
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


async def letters_of(road: Road, stage: str, number: int = 1) -> list[Letter]:
    """The open letters of a stage, once there are so many."""
    for _ in range(300):
        letters, _ = await read(road.client)
        if len(found := [one for one in letters.values() if Chosen(stage).takes(one)]) >= number:
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"no {number} dead letters of {stage}\n{road.log()}")


def ends(road: Road, submission_id: str) -> list[tuple[str, str]]:
    return [(event["kind"], event["reason"]) for event in road.events(submission_id) if event["kind"] in ENDS]


def just_too_large(message: Any) -> Any:
    """So large that its topic takes it and no topic takes what is made of it."""
    key, codec, content = SCORED.key(message).encode(), Codec("Message"), message["content"]
    grown = {**message, "round": 1, "content": {**content, "inline": b"x" * (SCORED.max_bytes - 4000)}}
    missing = SCORED.max_bytes - 100 - len(key) - len(codec.encode(grown))
    return {**grown, "content": {**content, "inline": grown["content"]["inline"] + b"x" * missing}}


async def test_given_up_and_put_back(road: Road) -> None:
    (acme,) = [value async for _, value in road.client.read(TENANTS)]
    broken = {**acme, "tenant": "late", "quota_per_second": float("inf")}  # `tenants apply` would not take it
    await road.client.send(TENANTS.send(broken))
    await road.start()

    # poison: its message ends as dropped, once
    held, _ = await road.submit("held@accept.test", attachments=[EXECUTABLE])
    await road.kinds(held, "held")
    (message,) = [entry["message"] async for _, entry in road.client.read(SCHEDULED)]
    await road.client.send(SCORED.send(just_too_large(message)))
    (poison,) = await letters_of(road, "suppress")
    assert poison.letter["error"] == "OutputTooLarge"
    told = await operate(road, "discard", poison.id, "--why", "made by hand", "--by", "ann")
    assert f"message {message['message_id']} to held@accept.test ends as dropped" in told
    await road.kinds(held, "dropped")

    # what failed for a reason outside: mended, put back, delivered
    late = [(await road.submit("late@accept.test", tenant="late"))[0]]
    (letter,) = await letters_of(road, "ingest")
    assert letter.letter["error"] == "OverflowError"
    await road.client.send(TENANTS.send({**broken, "quota_per_second": 100.0}))
    while not road.events(late[-1]):  # until ingest has heard of it: a letter more each time
        late.append((await road.submit("late@accept.test", tenant="late"))[0])
        await asyncio.sleep(0.5)
    count = len(await letters_of(road, "ingest"))
    assert f"replayed: {count}\n" in await operate(road, "replay", "--all", "--stage", "ingest", "--yes")
    for submission in late:
        await road.kinds(submission, "delivered")
        assert [kind for kind, _ in ends(road, submission)] == ["delivered"]
    assert road.farm.receipts.count()["late@accept.test"] == len(late)
    assert ends(road, held) == [("dropped", "dead-letter")]
    assert "mail." not in await operate(road, "list")
