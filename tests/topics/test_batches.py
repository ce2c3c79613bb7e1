"""The runner of batch stages without a broker: what its store refuses, and dead letters that nobody takes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from faust.types import TP

import topics.batches
from agents.application import build
from loadtest.engine.stages import SCHEMA, SOURCE
from loadtest.engine.stages import record as event
from topics.catalogue import DEAD_LETTERS
from topics.codec import Codec
from topics.consumer import Batch
from topics.installation import Installation
from topics.outputs import Outputs
from topics.stage import BatchStage, Unstorable

CODEC, LETTERS, HERE = Codec(SCHEMA), Codec("DeadLetter"), TP(SOURCE.name, 0)


class Bench:
    """A batch stage over a list, with the broker in memory."""

    def __init__(self, folder, producer):
        stage = BatchStage("s", reads=[SOURCE], writes=[])
        stage.recover(self.recover)
        stage.write(self.write)
        self.rows, self.errors, self.finished, self.producer = [], [], [], producer
        app = build(stage, Installation("127.0.0.1:1", partitions=1, data_dir=folder))
        self.runner, self.limits = app.runner, dict(app.runner.wiring.max_bytes)
        self.runner.__dict__["consumer"] = SimpleNamespace(
            begin_effects=self.begin, abandon=lambda batch: None, finish=self.finished.append,
            sought=lambda: {HERE}, committed=lambda tps: {0: 0},
        )  # fmt: skip
        app.consumer_generation_id = 1
        self.runner.outputs = lambda: Outputs(producer, self.runner.wiring.partitions, self.limits)

    async def begin(self, batch):
        return True

    async def recover(self, committed, services):
        pass

    async def write(self, rows, services):
        if self.errors:
            raise self.errors.pop()
        self.rows += [offset for _, offset, _ in rows]
        return [Unstorable(0, offset, "out of range") for _, offset, value in rows if value["kind"] == "poison"]

    def batch(self, *raws):
        records = [SimpleNamespace(topic=SOURCE.name, partition=0, offset=n, timestamp=5, key=b"k", value=raw, headers=())
                   for n, raw in enumerate(raws)]  # fmt: skip
        return Batch(HERE, records, 1)

    @property
    def dead(self):
        return [LETTERS.decode(value) for value in self.producer.values(DEAD_LETTERS.name)]


@pytest.fixture
def bench(tmp_path, producer, monkeypatch):
    monkeypatch.setattr(topics.batches, "RETRY_SECONDS", 0.001)
    return Bench(tmp_path, producer)


async def test_rows_dead_letters_and_a_store_that_comes_back(bench):
    bench.errors = [OSError("away"), OSError("away")]
    batch = bench.batch(CODEC.encode(event(0)), b"broken", CODEC.encode(event(2, kind="poison")))
    await bench.runner._flush([batch])
    assert (bench.rows, bench.finished) == ([0, 2], [batch])
    assert [(letter["offset"], letter["error"]) for letter in bench.dead] == [(1, "DecodeError"), (2, "ValueError")]
    assert bench.runner.metrics.counts["held"] == 2
    assert bench.runner.wait_of(HERE) == ""


@pytest.mark.parametrize("cause", ["hangs", "refuses", "too small"])
async def test_dead_letters_that_are_not_taken_end_the_worker(bench, cause):
    """They were taken for a store that is away, and waited for without an end."""

    async def never(*args, **kwargs):
        await asyncio.sleep(60)

    class Everything(set):
        def __contains__(self, value):
            return True

    if cause == "hangs":
        object.__setattr__(bench.runner.wiring, "delivery_s", 0.01)
        bench.producer.send_batch = never
    elif cause == "refuses":
        bench.producer.refuses = Everything()
    else:
        bench.limits[DEAD_LETTERS.name] = 100
    with pytest.raises((TimeoutError, RuntimeError, ValueError)):
        await asyncio.wait_for(bench.runner._flush([bench.batch(b"broken")]), 20)
    assert bench.finished == []
    assert bench.runner.metrics.counts["held"] == 0


async def test_a_packed_stage_is_given_bytes_of_our_own_schema_and_records_of_others(bench):
    bench.runner.stage.packed = True
    given = []

    async def write(rows, services):
        given.extend(rows)
        return []

    bench.runner._writer = write
    other = Codec(SCHEMA)
    other._header = b"\0\0\0\0\7"
    bench.runner.codec_of[SOURCE.name]._writers[other._header] = None  # known by another header
    await bench.runner._flush([bench.batch(CODEC.encode(event(0)), b"broken", other.encode(event(2)))])
    assert [(offset, value if isinstance(value, bytes) else value["kind"]) for _, offset, value in given] == [
        (0, CODEC.body(CODEC.encode(event(0)))), (2, event(2)["kind"]),
    ]  # fmt: skip
    assert CODEC.of_body(given[0][2]) == CODEC.decode(CODEC.encode(event(0)))
    assert [letter["offset"] for letter in bench.dead] == [1]


async def test_a_backlog_is_taken_in_parts_in_its_order(bench):
    bench.runner.stage.flush_records = 4
    batches = [bench.batch(*[b"x"] * 3) for _ in range(5)]
    bench.runner._waiting = list(batches)
    assert bench.runner._take() == batches[:2] and bench.runner._full.is_set()
    assert bench.runner._take() == batches[2:4]
    bench.runner._full.clear()
    assert bench.runner._take() == batches[4:] and not bench.runner._full.is_set()
