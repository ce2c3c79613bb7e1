"""The runner of pure stages, batch by batch, without a broker: hostile records, what is held, what is taken in parts."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from types import SimpleNamespace

import pytest
from faust.types import TP

import topics.pure
import topics.runner
from agents.application import build
from loadtest.engine.stages import COUNTS, SCHEMA, SOURCE, TARGET
from loadtest.engine.stages import record as event
from topics.catalogue import DEAD_LETTERS
from topics.codec import Codec, RegistryUnavailable
from topics.consumer import Batch, Tick
from topics.installation import Installation
from topics.outputs import Outputs
from topics.stage import Hold, Stage
from topics.state import Table
from topics.unreadable import Unreadable

CODEC, LETTERS = Codec(SCHEMA), Codec("DeadLetter")
SEEN: Table[bytes] = Table(2, "seen", bytes, bytes, expires=True)
HERE = TP(SOURCE.name, 0)


class Consumer:
    """The consumer of a partition that stays ours."""

    def __init__(self):
        self.finished, self.current, self.oldest = [], True, True

    def is_current(self, work):
        return self.current

    async def begin_effects(self, work):
        return self.current

    may_finish = until_current = begin_effects

    def is_oldest(self, batch):
        return self.oldest

    def finish(self, batch):
        self.finished.append(batch)

    def abandon(self, work):
        pass


class Bench:
    """A stage on a real RocksDB, with the broker in memory."""

    def __init__(self, stage, folder, producer, **limits):
        self.app = build(stage, Installation("127.0.0.1:1", partitions=1, data_dir=folder))
        self.runner, self.producer, self.consumer = self.app.runner, producer, Consumer()
        self.runner.__dict__["consumer"] = self.consumer
        wiring = self.runner.wiring
        self.runner.outputs = lambda: Outputs(producer, wiring.partitions, {**wiring.max_bytes, **limits})
        self.counts = self.runner.metrics.counts
        self.offset = 0

    def batch(self, *values, key=b"k"):
        records = []
        for value in values:
            raw = value if value is None or isinstance(value, bytes) else CODEC.encode(value)
            records.append(SimpleNamespace(topic=SOURCE.name, partition=0, offset=self.offset, timestamp=5, key=key,
                                           value=raw, headers=()))  # fmt: skip
            self.offset += 1
        return Batch(HERE, records, 1)

    async def run(self, *values, **kwargs):
        return await self.runner._run(self.batch(*values, **kwargs))

    @property
    def out(self):
        return [CODEC.decode(value)["seq"] for value in self.producer.values(TARGET.name)]

    @property
    def dead(self):
        return [LETTERS.decode(value) for value in self.producer.values(DEAD_LETTERS.name)]

    def count(self, actor):
        return self.runner.store.view(0).counts.get(actor)


def counting(**changes):
    stage = Stage(**{"name": "s", "reads": [SOURCE], "writes": [TARGET], "tables": [COUNTS, SEEN], **changes})

    @stage.on(SOURCE)
    def count(value, state):
        state.counts.put(value["actor"], (state.counts.get(value["actor"]) or 0) + 1)
        value["seq"] += 1000  # a handler may change its record: it gets a fresh one at every try
        yield TARGET.send(value)
        if value["kind"] == "poison":
            raise ValueError("poison")

    return stage


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(topics.pure, "HOLD_SECONDS", 0.001)


@pytest.fixture
def bench(tmp_path, producer):
    return Bench(counting(), tmp_path, producer)


async def test_hostile_records_go_to_the_dead_letters_as_they_were(bench):
    hostile = [
        None,
        b"",
        b"\x00",
        b"\x00\x00\x00\x00\x07payload",  # a registry's id where no registry is configured
        b"\xc3\x01" + b"\xff" * 40,
        b"\xff\xfe garbage",
        CODEC.encode(event(1))[:-5],
        CODEC.encode(event(1)) + b"more",
        CODEC.encode(event(1))[:10] + b"\xff" * 600,
    ]
    assert await bench.run(event(0, 1), *hostile, event(9, 1), key=None)
    assert bench.out == [1000, 1009]
    assert [letter["value"] for letter in bench.dead] == hostile
    assert {letter["key"] for letter in bench.dead} == {None}
    assert [letter["offset"] for letter in bench.dead] == list(range(1, 10))
    assert bench.count("user-000000") == 2


async def test_record_without_headers_value_survives(bench):
    batch = bench.batch(b"broken")
    batch.records[0].headers = (("a", None), ("b", b"1"))
    assert await bench.runner._run(batch)
    assert bench.dead[0]["headers"] == [{"name": "a", "value": b""}, {"name": "b", "value": b"1"}]


async def test_dead_letter_of_a_record_that_its_topic_does_not_take(tmp_path, producer):
    bench = Bench(counting(), tmp_path, producer)
    bench.runner.wiring.max_bytes[DEAD_LETTERS.name] = 2 << 20
    batch = bench.batch(b"\xff" * (3 << 20), event(1), key=b"k" * 2000)
    batch.records[0].headers = (("a", b"1"),)
    assert await bench.runner._run(batch)
    (letter,) = bench.dead
    assert letter["text"].startswith("cut from 2000 bytes of key, 3145728 of value, 1 headers: ")
    assert (letter["value"], letter["key"], letter["headers"]) == (b"\xff" * (1 << 20), b"k" * 1024, [])
    assert (letter["error"], letter["offset"], bench.out) == ("DecodeError", 0, [1001])


async def test_error_that_quotes_half_a_character_has_its_dead_letter(tmp_path, producer):
    stage = Stage("s", reads=[SOURCE], writes=[TARGET], tables=[COUNTS])

    @stage.on(SOURCE)
    def fail(value, state):
        raise ValueError("in \udcff here")

    bench = Bench(stage, tmp_path, producer)
    assert await bench.run(event(0))
    assert bench.dead[0]["text"] == "in ? here"


async def test_record_that_could_not_be_unpacked_is_a_dead_letter(bench):
    batch = bench.batch(event(0), event(1), event(2))
    batch.records[1] = Unreadable(SOURCE.name, 0, 1, 5, "BadGzipFile: no gzip", b"as it was")
    assert await bench.runner._run(batch)
    (letter,) = bench.dead
    assert (letter["text"], letter["value"], letter["offset"]) == ("BadGzipFile: no gzip", b"as it was", 1)
    assert bench.out == [1000, 1002]


async def test_parts_of_a_batch_begin_with_what_fitted_before(tmp_path, producer):
    """120 records of which 15 fit a write: tried as 120, then as 15; halving from all at each part made 1,185 calls."""
    calls, big = [], Table(1, "big", bytes, bytes)
    stage = Stage("s", reads=[SOURCE], writes=[TARGET], tables=[big])

    @stage.on(SOURCE)
    def keep(value, state):
        calls.append(value["seq"])
        state.big.put(str(value["seq"]), b"x" * 33_000)

    bench = Bench(stage, tmp_path, producer)
    assert await bench.run(*[event(n) for n in range(120)])
    assert len(calls) <= 120 + 120 + 60
    assert calls[-1] == 119
    assert len({key for key, _ in bench.runner.store._db(0).items() if key[0] == 1}) == 120
    assert bench.counts["parts"] <= 10


async def test_what_a_poisoned_record_did_is_taken_back(bench):
    assert await bench.run(event(0, 1), event(1, 1, "poison"), event(2, 1))
    assert bench.out == [1000, 1002]
    assert bench.count("user-000000") == 2
    (letter,) = bench.dead
    assert (letter["error"], letter["text"], letter["offset"]) == ("ValueError", "poison", 1)
    assert CODEC.decode(letter["value"])["seq"] == 1


async def test_records_at_or_below_the_mark_are_passed_over(bench):
    batch = bench.batch(event(0, 1), event(1, 1))
    assert await bench.runner._run(batch)
    assert await bench.runner._run(batch)
    assert bench.out == [1000, 1001]
    assert bench.counts["passed_over"] == 2
    assert bench.consumer.finished == [batch, batch]
    longer = Batch(HERE, [*batch.records, *bench.batch(event(2, 1)).records], 1)
    assert await bench.runner._run(longer)
    assert bench.out == [1000, 1001, 1002]
    assert bench.count("user-000000") == 3


async def test_a_partition_that_was_taken_away_is_left_alone(bench):
    bench.consumer.current = False
    assert not await bench.run(event(0, 1))
    assert not bench.producer.logs
    assert bench.consumer.finished == []


async def test_undeclared_topic_and_value_that_does_not_fit_are_the_handlers_mistakes(tmp_path, producer):
    stage = Stage("s", [SOURCE], [])
    stage.on(SOURCE)(lambda value, state: TARGET.send(value))
    bench = Bench(stage, tmp_path, producer)
    assert await bench.run(event(0))
    assert "does not name in writes" in bench.dead[0]["text"]
    stage = Stage("s2", [SOURCE], [TARGET])
    stage.on(SOURCE)(lambda value, state: TARGET.send({**value, "ts": "noon"}))
    bench = Bench(stage, tmp_path / "2", producer)
    assert await bench.run(event(0))
    assert bench.dead[1]["error"] == "EncodeError"


async def test_hold_tries_again_with_fresh_records_and_passes_nothing_over(tmp_path, producer):
    stage, away = counting(), [Hold("blob store"), Hold("blob store")]
    count = stage.handlers[SOURCE]

    waits = []

    def held(value, state):
        waits.append(bench.runner.wait_of(HERE))
        yield from count(value, state)
        if value["seq"] == 1001 and away:
            raise away.pop()

    stage.handlers[SOURCE] = held
    bench = Bench(stage, tmp_path, producer)
    assert await bench.run(event(0, 1), event(1, 1))
    assert bench.out == [1000, 1001]
    assert bench.counts["held"] == 2
    assert bench.count("user-000000") == 2
    assert waits == ["", "", "hold", "hold", "hold", "hold"], "on purpose, also while it is tried again"
    assert bench.runner.wait_of(HERE) == ""


async def test_hold_ends_when_the_partition_goes(tmp_path, producer):
    stage = Stage("s", [SOURCE], [TARGET])

    @stage.on(SOURCE)
    def hold(value, state):
        bench.consumer.current = False
        raise Hold("away")

    bench = Bench(stage, tmp_path, producer)
    assert not await bench.run(event(0))
    assert not bench.dead


class Registry:
    """Ids of schemas; `away` failures first."""

    def __init__(self, schemas, away=0):
        self.schemas, self.away, self.asked = schemas, away, []

    async def schema(self, id):
        self.asked.append(id)
        if self.away:
            self.away -= 1
            raise RegistryUnavailable("away")
        return self.schemas.get(id)

    async def register(self, subject, schema):
        return 1


def with_id(id, value):
    return b"\0" + id.to_bytes(4, "big") + CODEC.encode(value)[10:]


async def test_unknown_schema_is_waited_for(bench):
    registry = Registry({7: SCHEMA}, away=2)
    bench.runner.codec_of[SOURCE.name] = Codec(SCHEMA, registry)
    assert await bench.run(with_id(7, event(0)), with_id(7, event(1)))
    assert bench.out == [1000, 1001]
    assert registry.asked == [7, 7, 7]
    assert not bench.dead


async def test_schema_id_that_the_registry_does_not_have_is_a_dead_letter(bench):
    """It ended the worker, at every start."""
    registry = Registry({7: SCHEMA})
    bench.runner.codec_of[SOURCE.name] = Codec(SCHEMA, registry)
    assert await bench.run(with_id(666, event(0)), with_id(7, event(1)), with_id(666, event(2)), with_id(667, event(3)))
    assert bench.out == [1001]
    assert [letter["offset"] for letter in bench.dead] == [0, 2, 3]
    assert "the registry has no schema with id 666" in bench.dead[0]["text"]
    assert registry.asked == [666, 7, 667], "each is asked for once"


async def test_refused_schema_ids_are_asked_again_later_and_do_not_pile_up(bench, monkeypatch):
    registry = Registry({})
    bench.runner.codec_of[SOURCE.name] = Codec(SCHEMA, registry)
    monkeypatch.setattr(topics.runner, "REFUSED_MAX", 3)
    for id in range(10, 30):
        assert await bench.run(with_id(id, event(id)))
    assert len(bench.runner._refused) <= 4
    bench.runner._refused = {key: (0.0, error) for key, (_, error) in bench.runner._refused.items()}
    registry.schemas[29] = SCHEMA
    assert await bench.run(with_id(29, event(1)))
    assert bench.out == [1001]


async def test_prepare_finds_for_the_whole_batch_and_a_timeout_is_for_the_handler(tmp_path, producer):
    stage = Stage("s", [SOURCE], [TARGET], prepare_s=0.02)
    seen = []

    @stage.prepare(SOURCE)
    async def look_up(records, state):
        seen.append([record.offset for record, _ in records])
        for _, value in records:
            state.found[value["seq"]] = True
        if len(records) == 2:
            await asyncio.sleep(5)

    @stage.on(SOURCE)
    def use(value, state):
        if state.found.get(value["seq"]):
            return TARGET.send(value)
        raise AssertionError("not found")

    bench = Bench(stage, tmp_path, producer)
    assert await bench.run(event(0), b"broken", event(1), event(2))
    assert await bench.run(event(3), event(4))
    assert seen == [[0, 2, 3], [4, 5]], "what does not decode is not prepared"
    assert bench.out == [0, 1, 2, 3, 4]
    assert bench.counts["prepare_timeouts"] == 1
    assert [letter["offset"] for letter in bench.dead] == [1]


async def test_prepare_is_a_stated_wait_within_its_limit(tmp_path, producer):
    """That of ingest may take as long as a stall needs."""
    stage, waits = Stage("s", [SOURCE], [TARGET], prepare_s=60.0), []

    @stage.prepare(SOURCE)
    async def look(records, state):
        ((_, partition, _, until),) = bench.runner._waits.values()
        waits.append((bench.runner.wait_of(HERE), partition, round(until - time.monotonic())))
        if len(waits) > 1:
            raise RuntimeError("resolver")

    stage.on(SOURCE)(lambda value, state: waits.append(bench.runner.wait_of(HERE)))
    bench = Bench(stage, tmp_path, producer)
    assert await bench.run(event(0))
    assert await bench.run(event(1))
    assert waits == [("prepare", 0, 65), "", ("prepare", 0, 65), ""]


async def test_prepare_may_fail_or_hold(tmp_path, producer, caplog):
    stage, failures = Stage("s", [SOURCE], [TARGET]), [RuntimeError("resolver"), Hold("blob store")]

    @stage.prepare(SOURCE)
    async def fail(records, state):
        if failures:
            raise failures.pop()

    stage.on(SOURCE)(lambda value, state: TARGET.send(value))
    bench = Bench(stage, tmp_path, producer)
    with caplog.at_level(logging.ERROR):
        assert await bench.run(event(0))
    assert bench.out == [0]
    assert bench.counts["held"] == 1
    assert "prepare failed" in caplog.text


async def test_too_much_change_is_taken_in_parts_each_with_its_mark(tmp_path, producer):
    """Every record changes 300 KB of state; a write takes half a megabyte."""
    stage = Stage("s", [SOURCE], [TARGET], tables=[Table(1, "big", bytes, bytes)])
    tries = []

    @stage.on(SOURCE)
    def grow(value, state):
        tries.append(value["seq"])
        state.big.put(value["event_id"], b"x" * value["ts"])
        return TARGET.send(value)

    bench = Bench(stage, tmp_path, producer)
    values = [{**event(n), "ts": 300_000} for n in range(4)]
    values[2]["ts"] = 3_000_000  # never fits
    assert await bench.run(*values)
    assert bench.out == [0, 1, 3]
    (letter,) = bench.dead
    assert (letter["offset"], letter["error"]) == (2, "TooMuchChange")
    assert bench.counts["parts"] == 4
    assert len(bench.runner.store.view(0).big.scan()) == 3
    assert bench.runner.store.mark(0, 0) == 3
    assert len(tries) > 4, "processing is free of effects: it is done again with fewer records"


async def test_output_too_large_sends_its_input_to_the_dead_letters(tmp_path, producer):
    bench = Bench(counting(), tmp_path, producer, **{TARGET.name: 1000})
    assert await bench.run(event(0, 1), {**event(1, 1), "body": b"y" * 1000}, event(2, 1))
    assert bench.out == [1000, 1002]
    assert bench.dead[0]["error"] == "OutputTooLarge"
    assert bench.count("user-000000") == 2, "known before the write: its change is taken back"


async def test_output_that_the_broker_refuses_goes_to_the_dead_letters_itself(bench):
    refused = CODEC.encode({**event(1, 1), "seq": 1001})
    bench.producer.refuses.add(refused)
    batch = bench.batch(event(0, 1), event(1, 1), event(2, 1))
    assert await bench.runner._run(batch)
    assert bench.out == [1000, 1002]
    (letter,) = bench.dead
    assert (letter["error"], letter["topic"], letter["partition"], letter["offset"]) == (
        "MessageSizeTooLargeError", TARGET.name, 0, -1)  # fmt: skip
    assert (letter["key"], letter["value"], letter["source"]) == (
        b"user-000000",
        refused,
        f"{SOURCE.name}[0]@1#{TARGET.name}[0]:dcced6d8e0e0ea3c",
    )
    assert bench.count("user-000000") == 3, "its input is finished, a replay writes the output alone"
    assert bench.consumer.finished == [batch]
    assert bench.runner.store.mark(0, 0) == 2


async def test_refused_outputs_of_one_input_are_told_apart_and_keep_their_headers(tmp_path, producer):
    stage = Stage("s", reads=[SOURCE], writes=[TARGET])

    @stage.on(SOURCE)
    def three(value, state):
        for n in range(3):
            yield TARGET.send({**value, "seq": n}, headers=(("n", b"%d" % n),))

    producer.refuses |= {CODEC.encode({**event(0), "seq": n}) for n in (0, 2)}
    bench = Bench(stage, tmp_path, producer)
    assert await bench.run(event(0))
    assert bench.out == [1]
    assert [letter["headers"] for letter in bench.dead] == [
        [{"name": "n", "value": b"0"}],
        [{"name": "n", "value": b"2"}],
    ]
    keys = [record.key.decode() for record in producer.logs[DEAD_LETTERS.name, 0]]
    assert keys == [letter["source"] for letter in bench.dead], "each is a letter of its own"
    assert len(set(keys)) == 2
    assert all(re.fullmatch(rf"{SOURCE.name}\[0\]@0#{TARGET.name}\[0\]:[0-9a-f]{{16}}", key) for key in keys)


async def test_a_refused_output_has_one_id_whatever_an_earlier_run_has_refused(tmp_path, producer):
    """They were numbered as they were refused: after a crash another one had the id of the first, and a replay lost one."""
    stage = Stage("s", reads=[SOURCE], writes=[TARGET])

    @stage.on(SOURCE)
    def two(value, state):
        return [TARGET.send({**value, "seq": n}) for n in range(2)]

    first, second = [CODEC.encode({**event(0), "seq": n}) for n in range(2)]
    bench = Bench(stage, tmp_path, producer)
    batch = bench.batch(event(0))
    producer.refuses = {second}
    assert await bench.runner._run(batch)
    producer.refuses = {first, second}  # made smaller again, before the offset was committed
    assert await bench.runner._run(batch)
    ids = {}
    for letter in bench.dead:
        ids.setdefault(letter["source"], set()).add(letter["value"])
    assert sorted(ids.values(), key=min) == [{first}, {second}]


async def test_refused_output_of_a_tick_is_a_dead_letter(tmp_path, producer):
    """It ended the worker, at every turn of the tick."""
    stage = counting()

    @stage.every(1)
    def due(state):
        if state.counts.get("ticks") is None:
            state.counts.put("ticks", 1)
            return [TARGET.send(event(5)), TARGET.send(event(6))]
        return None

    producer.refuses.add(CODEC.encode(event(5)))
    bench = Bench(stage, tmp_path, producer)
    object.__setattr__(bench.runner.wiring, "clock", lambda: 1234)
    assert await bench.runner._tick(Tick(HERE, 1), due)
    assert bench.out == [6]
    (letter,) = bench.dead
    assert letter["source"].startswith(f"tick:s[0]@1234#{TARGET.name}[0]:")
    assert (letter["topic"], letter["timestamp"]) == (TARGET.name, 1234)
    assert bench.count("ticks") == 1


async def test_a_dead_letter_that_is_refused_too_is_not_passed_over(bench):
    """Its topic was made smaller while we ran: the worker ends, and the record is read again."""

    class Everything(set):
        def __contains__(self, value):
            return True

    bench.producer.refuses = Everything()
    with pytest.raises(RuntimeError, match="refuses what it is for"):
        await bench.run(event(0, 1))
    with pytest.raises(RuntimeError, match="refuses what it is for"):  # of a record that did not decode
        await bench.run(b"broken")
    assert bench.consumer.finished == []


async def test_record_at_the_limit_passes(bench):
    limit = TARGET.max_bytes
    body = limit - 128 - len(CODEC.encode({**event(0), "body": b""})) - len("user-000000") - 4
    assert await bench.run({**event(0), "body": b"y" * body}, {**event(1), "body": b"y" * (body + 8)})
    assert bench.out == [1000]
    assert bench.dead[0]["error"] == "OutputTooLarge"


async def test_ticks_write_outputs_and_state_and_a_failure_waits_for_the_next_turn(tmp_path, producer):
    stage, fail = counting(), [ValueError("not yet")]

    @stage.every(1)
    def due(state):
        if fail:
            state.counts.put("lost", 1)
            raise fail.pop()
        if state.counts.get("ticks") is None:
            state.counts.put("ticks", 1)
            return TARGET.send(event(5))
        return None

    bench = Bench(stage, tmp_path, producer)
    ticks = [await bench.runner._tick(Tick(HERE, 1), due) for _ in range(3)]
    assert ticks == [False, True, False], "True: there may be more that is due"
    assert bench.out == [5]
    assert (bench.count("ticks"), bench.count("lost")) == (1, None)
    assert bench.counts["failed_ticks"] == 1


BIG: Table[bytes] = Table(1, "big", bytes, bytes)


def growing(sizes):
    """A ticker that makes two large ones, of a size of `sizes`, of each small entry; the second after its output."""
    stage = Stage("s", reads=[SOURCE], writes=[TARGET], tables=[BIG])
    stage.on(SOURCE)(lambda value, state: None)

    @stage.every(1)
    def grow(state):
        for key, value in state.big.scan(limit=500):
            if value == b"due":
                n = int(key)
                state.big.delete(key)
                state.big.put(b"x" + key, b"x" * (sizes[n] // 2))
                yield TARGET.send(event(n))
                state.big.put(b"y" + key, b"y" * (sizes[n] // 2))

    def fill(state):
        for n in range(len(sizes)):
            state.big.put(f"{n:03}", b"due")

    return stage, grow, fill


async def test_a_tick_that_changes_more_than_one_write_takes_is_done_in_pieces(tmp_path, producer):
    """It ended the worker, at every start. 40 entries of 60 KB; a write takes half a megabyte."""
    stage, grow, fill = growing([60_000] * 40)
    bench = Bench(stage, tmp_path, producer)
    assert await bench.runner._tick(Tick(HERE, 1), fill)
    turns = 0
    while await bench.runner._tick(Tick(HERE, 1), grow):
        turns += 1
        found = [key[1:] for key, _ in bench.runner.store._db(0).items() if key[0] == BIG.number]
        done = {key[1:] for key in found if key[:1] == b"x"}
        assert done == {key[1:] for key in found if key[:1] == b"y"} == {b"%03d" % n for n in bench.out}, "no halves"
        assert {key for key in found if key[:1] == b"0"} == {b"%03d" % n for n in range(40)} - done
    assert bench.out == list(range(40))
    assert turns >= 5
    assert bench.counts["failed_ticks"] == 0


async def test_one_entry_of_a_tick_that_no_write_takes_waits_for_its_next_turn(tmp_path, producer, caplog):
    stage, grow, fill = growing([700_000])
    bench = Bench(stage, tmp_path, producer)
    assert await bench.runner._tick(Tick(HERE, 1), fill)
    assert not await bench.runner._tick(Tick(HERE, 1), grow), "not at once again"
    assert (bench.counts["failed_ticks"], bench.out) == (1, [])
    assert "one turn of a ticker" in caplog.text
    assert await bench.run(event(0)), "records go on"


async def test_a_tick_that_finds_nothing_when_it_may_find_less_is_no_empty_one(tmp_path, producer, caplog):
    """What is done stands in front of what is due: it would be passed over in silence, for ever."""
    stage, grow, fill = growing([60_000] * 20)
    bench = Bench(stage, tmp_path, producer)

    def done(state):
        for n in range(100):
            state.big.put(f"!{n:03}", b"done")

    assert await bench.runner._tick(Tick(HERE, 1), done)
    assert await bench.runner._tick(Tick(HERE, 1), fill)
    assert not await bench.runner._tick(Tick(HERE, 1), grow)
    assert bench.counts["failed_ticks"] == 1
    assert "one turn of a ticker" in caplog.text


async def test_a_tick_with_a_value_that_its_table_does_not_hold_is_a_failed_one(tmp_path, producer):
    stage = counting()
    bench = Bench(stage, tmp_path, producer)

    def wrong(state):
        state.counts.put("a", "no number")

    assert not await bench.runner._tick(Tick(HERE, 1), wrong)
    assert bench.counts["failed_ticks"] == 1


async def test_sweep_deletes_what_has_expired(tmp_path, producer):
    stage = counting()
    bench = Bench(stage, tmp_path, producer)

    @stage.every(1)
    def fill(state):
        for n in range(10):
            state.seen.put(f"{n}", b"v", expires_at=state.now - 120_000 if n < 6 else state.now + 3_600_000)

    assert await bench.runner._tick(Tick(HERE, 1), fill)
    assert await bench.runner._tick(Tick(HERE, 1), bench.runner._sweep)
    assert len([key for key, _ in bench.runner.store._db(0).items() if key[0] == 2]) == 4
    assert not await bench.runner._tick(Tick(HERE, 1), bench.runner._sweep)


async def test_delivery_that_hangs_ends_the_worker(bench, monkeypatch):
    """Nothing unconfirmed may be committed: the supervisor starts the process again."""
    object.__setattr__(bench.runner.wiring, "delivery_s", 0.01)

    async def never(*args, **kwargs):
        await asyncio.sleep(60)

    bench.producer.send_batch = never
    with pytest.raises(TimeoutError):
        await bench.run(event(0))
    assert bench.consumer.finished == []
    ended = []
    monkeypatch.setattr(topics.pure, "give_up", lambda exc: ended.append(exc) or (_ for _ in ()).throw(SystemExit))
    lane = topics.pure.Lane()
    lane.put_nowait(bench.batch(event(1)))
    with pytest.raises(SystemExit):
        await bench.runner._work(lane)
    assert isinstance(ended[0], TimeoutError)


async def test_a_mark_never_passes_over_a_batch_that_was_dropped(bench):
    """79 messages were lost so: their batch was dropped, the next one's mark said that they were done, and after the restart
    that followed nobody read them."""
    assert await bench.run(event(0, 1))
    mark = bench.runner.store.mark(0, 0)
    bench.consumer.oldest = False
    with pytest.raises(topics.pure.Passed, match="never finished"):
        await bench.run(event(1, 1))
    assert bench.runner.store.mark(0, 0) == mark and bench.count("user-000000") == 1


async def test_a_tick_tells_before_it_forgets_also_where_state_comes_first(tmp_path, producer):
    """Nobody reads a tick again: what it had deleted before a crash would never be told."""
    stage = counting(state_first=True)

    @stage.every(1)
    def tell(state):
        for key, _ in state.counts.scan():
            state.counts.delete(key)
            yield TARGET.send(event(7))

    found = Bench(stage, tmp_path, producer)
    await found.run(event(0, 1))
    written, deliver = list[str](), found.runner.deliver

    async def delivered(*arguments):
        written.append(f"told while there are {found.count('user-000000') or 0}")
        return await deliver(*arguments)

    found.runner.deliver = delivered
    _, ticker = next(each for each in stage.tickers)
    await found.runner._tick(Tick(HERE, 1), ticker)
    assert written == ["told while there are 1"]
    assert found.count("user-000000") is None


async def test_a_glance_decides_who_needs_the_handler_and_one_that_fails_does_not(tmp_path, producer):
    stage = Stage("s", [SOURCE], [TARGET])
    heads = []

    @stage.glance(SOURCE, "seq")
    def odd(head, state):
        heads.append(head)
        return 7 // head["seq"] and head["seq"] % 2

    @stage.on(SOURCE)
    def use(value, state):
        return TARGET.send(value)

    bench = Bench(stage, tmp_path, producer)
    assert await bench.run(event(1), event(2), b"broken", event(3), event(4), event(0))
    assert [head["seq"] for head in heads] == [1, 2, 3, 4, 0] and list(heads[0])[-1] == "seq", "no more than the head"
    assert bench.out == [1, 3, 0]
    assert [letter["offset"] for letter in bench.dead] == [2]
    assert await bench.run(event(5)) and bench.out == [1, 3, 0, 5], "what was passed over is finished"
