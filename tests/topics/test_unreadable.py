"""Batches that aiokafka gives up on, as bytes: what can be read is read, the rest is said, and the next batch comes."""

import gzip
import struct
from types import SimpleNamespace

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import CorruptRecordException, MessageSizeTooLargeError
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c, encode_varint
from faust.types import TP

from loadtest.engine import stages
from topics.admin import ensure
from topics.consumer import Batch, Consumer  # and its `install`
from topics.unreadable import RAW_MAX, Contained, Fetched, Unreadable

HERE = TopicPartition("t", 3)
HEADER = 61  # bytes of a batch before its records
CODEC_AT, CRC_AT, CHECKED = 22, 17, 21


def batch(first, n=3, codec=0, value=b"value %d", header=b"name"):
    """`n` records from offset `first` on."""
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, 0, 1 << 26)
    for i in range(n):
        text = value % (first + i) if b"%d" in value else value
        builder.append(i, 1000 + i, key=b"key", value=text, headers=[(header.decode(), b"x")] if i == 1 else [])
    return at(first, bytearray(builder.build()))


def at(first, raw):
    """The batch as the broker has it, after its bytes were changed."""
    struct.pack_into(">q", raw, 0, first)
    struct.pack_into(">I", raw, CRC_AT, calc_crc32c(bytes(raw[CHECKED:])))
    return bytes(raw)


def read(*batches, start=0):
    found = Contained(HERE, Fetched(b"".join(batches)), None, start, None, None, True, 0)
    return list(found), found.next_fetch_offset


def values(records):
    return [(r.offset, None if isinstance(r, Unreadable) else r.value) for r in records]


def whole(first, n=3):
    return [(first + i, b"value %d" % (first + i)) for i in range(n)]


@pytest.mark.parametrize("codec", [0, 1, 2, 3, 4])
def test_every_codec_of_kafka_is_read(codec):
    records, after = read(batch(0, codec=codec), batch(3))
    assert (values(records), after) == (whole(0) + whole(3), 6)


def test_header_name_that_is_not_text_costs_its_record_alone():
    bad = at(10, bytearray(batch(10, header=b"name").replace(b"name", b"n\xff\xfee")))
    records, after = read(batch(7), bad, batch(13), start=7)
    assert values(records) == [*whole(7), (10, b"value 10"), (11, None), (12, b"value 12"), *whole(13)]
    assert after == 16
    assert "UnicodeDecodeError" in records[4].error
    assert b"value 11" in records[4].raw
    assert (records[4].topic, records[4].partition, records[4].timestamp, records[4].headers) == ("t", 3, 1002, ())


@pytest.mark.parametrize("start", [10, 11, 12])
def test_it_is_the_same_from_wherever_the_batch_is_read(start):
    bad = at(10, bytearray(batch(10, header=b"name").replace(b"name", b"n\xff\xfee")))
    records, after = read(bad, batch(13), start=start)
    assert [r.offset for r in records] == list(range(start, 16))
    assert after == 16


def test_batch_that_cannot_be_unpacked_is_one_record_at_its_last_offset():
    bad = bytearray(batch(3, codec=1))
    bad[HEADER : HEADER + 4] = b"\0\0\0\0"
    for start in (0, 3, 4, 5):
        records, after = read(batch(0), at(3, bad), batch(6), start=start)
        assert values(records) == [(o, v) for o, v in [*whole(0), (5, None), *whole(6)] if o >= start]
        assert after == 9
    records, _ = read(at(3, bad), start=3)
    assert records[0].error.startswith("offsets 3 to 5: BadGzipFile")
    assert records[0].raw == at(3, bad)


def test_codec_that_nobody_knows():
    bad = bytearray(batch(3))
    bad[CODEC_AT] |= 7
    records, after = read(at(3, bad), batch(6), start=3)
    assert values(records) == [(5, None), *whole(6)]
    assert after == 9
    assert "UnsupportedCodecError" in records[0].error


@pytest.mark.parametrize("where", [0, 1, 2, 4, 5, 6, 12, 13, 14])  # 3: its offset, which is believed
@pytest.mark.parametrize("byte", [0x00, 0x01, 0x7E, 0x7F, 0x80, 0xFF])
def test_whatever_a_record_is_made_of_the_next_batch_comes(where, byte):
    bad = bytearray(batch(3))
    bad[HEADER + where] = byte
    records, after = read(at(3, bad), batch(6), start=3)
    assert values(records)[-3:] == whole(6)
    offsets = [r.offset for r in records]
    assert offsets == sorted(set(offsets))
    assert offsets[0] >= 3
    assert after == 9


def test_what_is_kept_of_a_large_one_is_bounded():
    bad = bytearray(batch(0, n=1, value=b"x" * (2 * RAW_MAX)))
    bad[CODEC_AT] |= 7
    records, _ = read(at(0, bad))
    assert len(records[0].raw) == RAW_MAX


def test_it_is_delivered_like_any_record():
    """Faust makes a message of the last record of each batch."""
    app = SimpleNamespace(consumer_generation_id=1)
    message = Consumer._to_message(SimpleNamespace(app=app), TP("t", 3), Unreadable("t", 3, 7, 5, "error", b"raw"))
    assert (message.offset, message.value, message.generation_id) == (7, None, 1)
    assert Batch(TP("t", 3), [Unreadable("t", 3, 7, 5, "error", b"raw")], 1).next_offset == 8


def test_damage_on_the_way_is_raised_so_that_it_is_fetched_again():
    damaged = bytearray(batch(0))
    damaged[-1] ^= 1
    with pytest.raises(CorruptRecordException):
        read(bytes(damaged))


def test_gzip_of_several_members_is_read():
    plain = bytes(batch(0)[HEADER:])
    raw = bytearray(batch(0)[:HEADER]) + gzip.compress(plain[:20]) + gzip.compress(plain[20:])
    raw[CODEC_AT] |= 1
    struct.pack_into(">i", raw, 8, len(raw) - 12)
    assert values(read(at(0, raw))[0]) == whole(0)


async def test_real_broker_unpacks_what_a_producer_compressed_and_holds_it_against_the_limit(installation):
    """39 KiB of gzip became a value of 40 MiB in the worker. The broker lets odd header names pass, so we contain them.

    12 MiB: above the largest limit, and not so much that the test broker's heap is full (which it answers with UnknownError).
    """
    await ensure(installation, [stages.SOURCE])
    name = installation.name(stages.SOURCE)
    for codec in ("gzip", "snappy", "lz4", "zstd"):
        async with AIOKafkaProducer(
            bootstrap_servers=installation.bootstrap, compression_type=codec, max_request_size=64 << 20
        ) as producer:
            await producer.send_and_wait(name, codec.encode() * 1000, partition=0)
            with pytest.raises(MessageSizeTooLargeError):
                await producer.send_and_wait(name, bytes(12 << 20), partition=0)
    async with AIOKafkaProducer(bootstrap_servers=installation.bootstrap) as producer:
        builder = producer.create_batch()
        builder.append(key=b"k", value=b"bad", timestamp=None, headers=[("name", b"x")])
        builder.append(key=b"k", value=b"good", timestamp=None)
        build = builder._build
        builder._build = lambda: at(0, bytearray(build().replace(b"name", b"n\xff\xfee")))
        await (await producer.send_batch(builder, name, partition=0))
    async with AIOKafkaConsumer(bootstrap_servers=installation.bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(name, 0)])
        found = [await consumer.getone() for _ in range(6)]
    assert [record.value for record in found[:4]] == [c * 1000 for c in (b"gzip", b"snappy", b"lz4", b"zstd")]
    assert isinstance(found[4], Unreadable)
    assert (found[4].offset, found[5].offset, found[5].value) == (4, 5, b"good")


@pytest.mark.parametrize("length", [1 << 20, 1 << 34, 1 << 46, (1 << 62) - 1])
def test_lengths_that_lead_out_of_memory_are_not_followed(length):
    """aiokafka's decoder in C reads there: the process ended with SIGSEGV, at every start again."""
    bad, size = bytearray(batch(3, value=b"x" * 60)), bytearray()
    encode_varint(length, size.append)
    wrong = b"\x01" + size  # no key, a value of so many bytes
    bad[HEADER + 5 : HEADER + 5 + len(wrong)] = wrong
    records, after = read(at(3, bad), batch(6), start=3)
    assert values(records)[-3:] == whole(6) and after == 9
    assert isinstance(records[0], Unreadable)
