"""Whole batches of bytes against the reader of single records: the same block to the byte, or the row is left to that one."""

import random
from itertools import islice

import pytest
from event_rows import NOON_MS, event

from analytics import columnar, messages, native
from analytics.rows import MAX_TEXT, columns_of, sift
from analytics.sink import Sink
from loadtest.analytics.flow import lives
from postroad.masking import PLAIN, Masking
from topics.codec import Codec, DecodeError

CODEC = Codec("Event")
READER = columnar.Reader()
FULL = event(
    "m1", "deferred", 1234, tags=["a", "", "ü" * 100], metadata={"k": "v", "ключ": "x" * 300}, phases={"rcpt": 3, "data": 70_000},
    due_at=NOON_MS, reply="4.7.0 " + "y" * 1500, possible_duplicate=True, size=2**40, attempt=7, duration_ms=-5, round=70_000,
)  # fmt: skip
ORDINARY = [event(), FULL, event("m2", due_at=0, evidence="€" * 42), *islice(lives(1, NOON_MS), 500)]
ODD = [
    event(kind="noted", message_id="", tenant=""), event(tenant="t" * 256), event(at=-1), event(accepted_at=2**33 * 1000),
    event(reply="z" * (MAX_TEXT + 1)), event(tags=["t"] * 1001), event(size=2**62),
]  # fmt: skip


def body(value):
    return CODEC.body(CODEC.encode(value))


def same(columns, records, masking=PLAIN):
    """Whether these columns are what the reader of single records makes."""
    wanted = columns_of([(0, n, each) for n, each in enumerate(records)], 0, masking)
    kinds = {name: kind_of(name, values) for name, values in wanted.items()}
    mine = {name: wanted[name] for name in columns}
    return set(wanted) - set(columns) == {"k_partition", "k_offset", "ingested_at"} and (
        native.block(columns, kinds) == native.block(mine, kinds)
    )


def kind_of(name, values):
    if name in ("stream", "kind"):
        numbered = ", ".join(f"'{symbol}' = {number}" for number, symbol in enumerate(READER._symbols[name], 1))
        return f"Enum8({numbered})"
    if isinstance(values[0], list):
        return "Array(UInt32)" if name == "phase_ms" else "Array(String)"
    return "String" if isinstance(values[0], str) else "UInt64"


def decoded(bodies):
    return [CODEC.of_body(each) for each in bodies]


def test_ordinary_records_give_the_same_block():
    bodies = [body(each) for each in ORDINARY]
    columns, rows = READER.read(bodies)
    assert rows.tolist() == list(range(len(bodies))) and same(columns, decoded(bodies))
    for masking in (Masking("hash", "s"), Masking("none")):
        assert same(READER.read(bodies, masking)[0], decoded(bodies), masking)


def test_odd_records_are_left_and_the_others_read():
    bodies = [body(each) for pair in zip(ODD, ORDINARY, strict=False) for each in pair]
    columns, rows = READER.read(bodies)
    assert rows.tolist() == list(range(1, len(bodies), 2)) and same(columns, decoded(bodies[1::2]))
    assert READER.read([body(each) for each in ODD])[1].size == 0


@pytest.mark.parametrize("seed", range(4))
def test_bytes_that_are_damaged_are_left_or_read_alike(seed):
    """Cut, lengthened, with bits turned: what is taken is what the reader of single records takes, in the same way."""
    dice = random.Random(seed)
    bodies = []
    for each in dice.choices(ORDINARY, k=600):
        raw = bytearray(body(each))
        for _ in range(dice.randrange(3)):
            raw[dice.randrange(len(raw))] ^= 1 << dice.randrange(8)
        raw = raw[: dice.randrange(len(raw))] if dice.random() < 0.1 else raw
        bodies.append(bytes(raw) + dice.randbytes(2 if dice.random() < 0.1 else 0))
    columns, rows = READER.read(bodies)
    assert 0 < len(rows) < len(bodies)
    taken = decoded([bodies[row] for row in rows.tolist()])  # no DecodeError
    assert sift([(0, n, each) for n, each in enumerate(taken)])[1] == []
    assert same(columns, taken)


@pytest.mark.parametrize(
    "raw", [b"", b"\xff" * 400, b"\x80" * 30, b"\x01", bytes(36), b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"]
)
def test_nonsense_is_left(raw):
    whole = body(event())
    columns, rows = READER.read([raw, whole, raw])
    assert rows.tolist() == [1] and same(columns, [event()])


def test_messages_from_arrays_are_those_from_lists():
    bodies = [body(each) for each in ORDINARY]
    columns, _ = READER.read(bodies)
    lists = columns_of([(0, n, each) for n, each in enumerate(decoded(bodies))], 0)
    ours, theirs = messages.columns_of(columns), messages.columns_of(lists)
    assert ours["version"].tolist() == theirs["version"].tolist() and ours["ended"].tolist() == theirs["ended"].tolist()
    assert [each.decode() for each in ours["message_id"].each()] == theirs["message_id"]


def test_the_sink_stores_bytes_like_events_once(warehouse):
    records = [*ORDINARY, *ODD, event("complaint", "complained", evidence="r1")]
    packed = [(0, n, body(each)) for n, each in enumerate(records)]
    packed.insert(3, (0, 1000, b"\xff"))
    sink = Sink(warehouse, "g")
    sink.recover({0: 0})
    assert 1000 in {each.offset for each in sink.write(packed[:400])}
    first = warehouse.query("SELECT count() FROM events").rows
    sink.recover({0: 0})
    refused = {each.offset for each in sink.write(packed)}
    good, bad = sift([(0, n, each) for n, each in enumerate(decoded([body(each) for each in records]))])
    assert refused == {1000, *(each.offset for each in bad)} and first == [(399,)]
    found = warehouse.query(
        "SELECT k_offset, message_id, toString(kind), tags, phase_ms, size FROM events ORDER BY k_offset"
    ).rows
    wanted = columns_of(good, 0)
    assert [tuple(row) for row in found] == list(
        zip(*(wanted[n] for n in ("k_offset", "message_id", "kind", "tags", "phase_ms", "size")), strict=True)
    )
    assert warehouse.query("SELECT uniqExact(message_id) FROM messages").rows == [
        (len({e["message_id"] for *_, e in good} - {"", "complaint"}),)
    ]
    came_back = {e["message_id"] for *_, e in good if e["kind"] == "complained"}
    assert {row[0] for row in warehouse.query("SELECT message_id FROM feedback").rows} == came_back


def test_decode_error_is_what_a_broken_body_raises():
    with pytest.raises(DecodeError):
        CODEC.of_body(b"\xff")
    assert CODEC.body(b"other") is None and CODEC.body(None) is None
