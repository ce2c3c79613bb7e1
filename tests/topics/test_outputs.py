"""Outputs: Kafka's partitioner, record batches that fit, what is taken back and what is refused."""

import pytest
from aiokafka.errors import MessageSizeTooLargeError, OutOfOrderSequenceNumber
from hypothesis import given
from hypothesis import strategies as st

from agents.application import build
from loadtest.engine import stages
from topics.admin import ensure
from topics.outputs import Outputs, OutputTooLarge, murmur2, partition_for, size_of


@pytest.mark.parametrize(
    ("key", "hash"),
    [  # org.apache.kafka.common.utils.UtilsTest.testMurmur2
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(key, hash):
    assert murmur2(key) == hash & 0xFFFFFFFF


@given(st.binary(max_size=200), st.integers(1, 64))
def test_partitioner_is_that_of_aiokafka(key, partitions):
    from aiokafka.partitioner import murmur2 as theirs

    assert partition_for(key, partitions) == (theirs(key) & 0x7FFFFFFF) % partitions


def outputs(producer, **max_bytes):
    limits = {"t": 1000, "u": 10_000, **max_bytes}
    return Outputs(producer, dict.fromkeys(limits, 1), limits)


async def test_batches_fit_the_limit_and_keep_the_order(producer):
    out = outputs(producer)
    for n in range(40):
        out.add("t", b"k", b"%03d" % n + b"x" * 100, n)
    await out.deliver()
    assert [value[:3] for value in producer.values("t")] == [b"%03d" % n for n in range(40)]
    assert len(producer.batches) > 4
    assert all(n * size_of(b"k", b"x" * 103) <= 1000 for _, _, n in producer.batches)


@given(st.lists(st.integers(0, 800), min_size=1, max_size=50))
def test_no_chunk_is_empty_or_too_large(sizes):
    from types import SimpleNamespace

    out = outputs(SimpleNamespace(max_batch_size=700))
    items = [(b"k", b"x" * size, [], n) for n, size in enumerate(sizes)]
    chunks = list(out._chunks("t", items))
    assert [item for chunk in chunks for item in chunk] == items
    for chunk in chunks:
        assert chunk
        assert len(chunk) == 1 or 64 + sum(size_of(*item[:3]) for item in chunk) <= 700


async def test_drop_takes_back_what_one_input_has_added(producer):
    out = outputs(producer)
    out.add("t", b"k", b"one", 1)
    out.add("t", b"k", b"two", 2)
    out.add("u", b"k", b"two", 2)
    out.drop(2)
    await out.deliver()
    assert (producer.values("t"), producer.values("u")) == ([b"one"], [])


def test_too_large_is_said_while_its_input_is_at_hand(producer):
    out = outputs(producer)
    with pytest.raises(OutputTooLarge, match="1000 bytes for t, which takes 1000"):
        out.add("t", b"k", b"x" * 1000, 1)
    out.add("u", b"k", b"x" * 1000, 1)
    out.add("t", b"k", None, 1)  # a tombstone


async def test_only_the_culprit_of_a_refused_batch_stays_out(producer):
    producer.refuses.add(b"bad")
    out = outputs(producer)
    for n, value in enumerate((b"a", b"bad", b"b")):
        out.add("t", b"k", value, n)
    await out.deliver()
    assert producer.values("t") == [b"a", b"b"]
    ((topic, partition, record, error),) = out.refused
    assert (topic, partition, record[1], record[3], type(error)) == ("t", 0, b"bad", 1, MessageSizeTooLargeError)
    assert producer.renewed == 2, "after each refusal: its sequence numbers are used up"


async def test_out_of_order_sequence_is_sent_again_by_a_new_producer(producer):
    send, failures = producer.send_batch, [OutOfOrderSequenceNumber()]

    async def failing(*args, **kwargs):
        if failures:
            raise failures.pop()
        return await send(*args, **kwargs)

    producer.send_batch = failing
    assert await outputs(producer).send("t", 0, [(b"k", b"v", [], None)]) == 0
    assert producer.renewed == 1


async def test_headers_arrive_and_none_is_a_list(producer):
    out = outputs(producer)
    out.add("t", b"k", b"v", 1, (("a", b"1"),))
    out.add("t", b"k", b"v", 2)
    await out.deliver()
    assert [record.headers for record in producer.logs["t", 0]] == [[("a", b"1")], []]


async def test_real_broker_refusal_leaves_a_producer_that_works(installation):
    """The limit that we know is above the topic's: the batch comes back, and everything after it still goes out."""
    await ensure(installation, stages.TOPICS)
    app = build(stages.pure, installation)
    async with app.producer:
        name = installation.name(stages.TARGET)
        out = Outputs(app.producer, {name: 1}, {name: 4 << 20})
        for source, size in enumerate((100, 2 << 20, 100)):
            out.add(name, b"k", b"x" * size, source)
        await out.deliver()
        assert [refused.record[3] for refused in out.refused] == [1]
        out.add(name, b"k", b"after", 3)
        await out.deliver()
        assert not out.refused
        assert await out.send(name, 0, [(b"k", b"last", [], None)]) == 3


async def test_real_broker_takes_the_largest_dead_letter(installation):
    """8 MiB of submission inside a dead letter: above the producer's batch size, in a record batch of its own."""
    await ensure(installation, stages.TOPICS)
    app = build(stages.pure, installation)
    async with app.producer:
        letters = installation.name(stages.DEAD_LETTERS)
        out = Outputs(app.producer, {letters: 1}, {letters: stages.DEAD_LETTERS.max_bytes})
        for source, size in enumerate((100, 8 << 20, 100)):
            out.add(letters, b"k", b"x" * size, source)
        await out.deliver()
        assert not out.refused
