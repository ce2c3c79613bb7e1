"""The scripted runner is what tests of stages lean on: it must do as the real one does."""

import asyncio

import pytest

from tables.seen import SEEN
from topics.catalogue import CANCELLATIONS, CLEARED, SUPPRESSIONS
from topics.codec import DecodeError, EncodeError
from topics.stage import EffectStage, Hold, Stage
from topics.state import Table
from topics.testing import Scripted

COUNT: Table[int] = Table(1, "count", lambda value: b"%d" % value, int)


def decision(id="m1", **fields):
    return {"message_id": id, "recipient": "R@there.test", "action": "cancel", "by": "op", "at": 1, **fields}


def suppression(recipient="r@there.test"):
    return {"recipient": recipient, "reason": "manual", "at": 1, "evidence": "e"}


@pytest.fixture
def stage():
    return Stage("test", reads=[CANCELLATIONS, SUPPRESSIONS], writes=[SUPPRESSIONS], tables=[COUNT, SEEN])


async def test_values_pass_through_the_codec_on_both_ways(stage):
    found = []

    @stage.on(CANCELLATIONS)
    def handle(given, state):
        found.append(
            (given["reason"], state.record.key, state.record.timestamp, state.record.offset, state.record.topic)
        )
        return SUPPRESSIONS.send(suppression())

    runner = Scripted(stage, now=5)
    (output,) = await runner.feed(CANCELLATIONS, decision())
    assert found == [("", b"r@there.test", 5, 0, "mail.cancellations")], "a default is filled in"
    assert output.value["action"] == "add"
    await runner.feed(CANCELLATIONS, decision(), key=b"k", timestamp=9)
    assert found[1][1:4] == (b"k", 9, 1)
    with pytest.raises(EncodeError):
        await runner.feed(CANCELLATIONS, decision(action="explode"))


async def test_a_record_that_fails_changes_nothing_and_its_neighbours_go_on(stage):
    @stage.on(CANCELLATIONS)
    def handle(given, state):
        state.count.put("n", (state.count.get("n") or 0) + 1)
        yield SUPPRESSIONS.send(suppression())
        if given["message_id"] == "bad":
            raise ValueError("what mail can do to us")

    runner = Scripted(stage)
    outputs = await runner.feed(CANCELLATIONS, decision(), decision("bad"), decision())
    assert len(outputs) == 2
    assert runner.state.count.get("n") == 2
    (letter,) = runner.dead_letters
    assert (letter["error"], letter["text"], letter["offset"], letter["stage"]) == (
        "ValueError",
        "what mail can do to us",
        1,
        "test",
    )


async def test_hold_is_raised_and_nothing_is_written(stage):
    @stage.on(CANCELLATIONS)
    def handle(given, state):
        state.count.put("n", 1)
        if given["message_id"] == "later":
            raise Hold("away")

    runner = Scripted(stage)
    with pytest.raises(Hold):
        await runner.feed(CANCELLATIONS, decision(), decision("later"))
    assert runner.database.values == {}
    assert runner.dead_letters == []


async def test_an_output_that_is_not_declared_or_does_not_fit_is_a_dead_letter(stage):
    @stage.on(CANCELLATIONS)
    def handle(given, state):
        return (
            CLEARED.send({"recipient_domain": "x"})
            if given["message_id"] == "m1"
            else SUPPRESSIONS.send(suppression() | {"at": "now"})
        )

    runner = Scripted(stage)
    assert await runner.feed(CANCELLATIONS, decision(), decision("m2")) == []
    assert [letter["error"] for letter in runner.dead_letters] == ["ValueError", "EncodeError"]


async def test_prepare_is_bounded_and_the_handler_sees_what_it_found():
    stage = Stage("test", reads=[CANCELLATIONS], writes=[SUPPRESSIONS], prepare_s=0.05)
    found = []

    @stage.prepare(CANCELLATIONS)
    async def prepare(todo, state):
        state.found["ids"] = [value["message_id"] for _, value in todo]
        await asyncio.Event().wait()

    @stage.on(CANCELLATIONS)
    def handle(given, state):
        found.append(state.found["ids"])

    await Scripted(stage).feed(CANCELLATIONS, decision(), decision("m2"))
    assert found == [["m1", "m2"]] * 2


async def test_ticks_change_state(stage):
    @stage.every(1)
    def tick(state):
        state.count.put("n", (state.count.get("n") or 0) + 1)
        return SUPPRESSIONS.send(suppression())

    runner = Scripted(stage)
    assert len(await runner.tick() + await runner.tick()) == 2
    assert runner.state.count.get("n") == 2


async def test_what_has_expired_is_not_seen(stage):
    @stage.on(CANCELLATIONS)
    def handle(given, state):
        state.seen.put(given["message_id"], 1, state.now + 60_000)

    runner = Scripted(stage, now=0)
    await runner.feed(CANCELLATIONS, decision())
    assert runner.state.seen.get("m1") == 1
    runner.now = 120_000
    assert runner.state.seen.get("m1") is None


async def test_an_effect_stage():
    stage = EffectStage("test", reads=[CANCELLATIONS], writes=[SUPPRESSIONS], tables=[COUNT])

    @stage.perform
    async def perform(given, state, possible_duplicate):
        if given["message_id"] == "bad":
            raise ValueError("x")
        return possible_duplicate, state.count.get("n") or 0

    @stage.settle
    def settle(given, result, state):
        state.count.put("n", result[1] + 1)
        return SUPPRESSIONS.send(suppression(f"{result}@there.test"))

    runner = Scripted(stage)
    outputs = await runner.feed(CANCELLATIONS, decision(), decision("bad"), decision())
    outputs += await runner.feed(CANCELLATIONS, decision(), possible_duplicate=True)
    assert [output.value["recipient"] for output in outputs] == [
        "(False, 0)@there.test", "(False, 1)@there.test", "(True, 2)@there.test",
    ]  # fmt: skip
    assert len(runner.dead_letters) == 1
    with pytest.raises(AssertionError, match="no ticks"):
        await runner.tick()


async def test_bytes_as_they_come_from_kafka(stage):
    @stage.on(CANCELLATIONS)
    def handle(given, state):
        return None

    with pytest.raises(DecodeError):
        await Scripted(stage).feed_raw(CANCELLATIONS, b"no avro")
