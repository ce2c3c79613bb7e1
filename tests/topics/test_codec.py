"""The codec: framings, versions, and what it makes of bytes that nobody should have sent."""

import json
import tracemalloc
from io import BytesIO

import pytest
from fastavro import parse_schema, schemaless_writer
from hypothesis import example, given
from hypothesis import strategies as st

import avro
from avro import samples
from topics.codec import (
    LARGE,
    Codec,
    CodecError,
    DecodeError,
    EncodeError,
    RegistryUnavailable,
    UnknownSchema,
)
from topics.schemas import single_object_header

SUBMISSION = samples.sample(avro.load("Submission"), "full")
SHORT = {
    "tenant": "t",
    "submission_id": "1",
    "sender": {"address": "a@t.example"},
    "recipients": [{"address": "b@c.example"}],
}


class Scripted:
    """A registry in memory; `away` makes it fail."""

    def __init__(self, schemas=None):
        self.schemas, self.away, self.subjects = dict(schemas or {}), False, []

    async def schema(self, id):
        if self.away:
            raise RegistryUnavailable("away")
        return self.schemas.get(id)

    async def register(self, subject, schema):
        self.subjects.append(subject)
        self.schemas[7] = schema
        return 7


def written(schema, value, header=None):
    """A record of another writer."""
    stream = BytesIO()
    schemaless_writer(stream, parse_schema(schema), value)
    return (single_object_header(schema) if header is None else header) + stream.getvalue()


def changed(name, change):
    """A copy of today's schema after `change(fields by name)`."""
    schema = avro.load(name)
    fields = {field["name"]: field for field in schema["fields"]}
    change(fields)
    return {**schema, "fields": list(fields.values())}


def zigzag(number):
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number & ~0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


# framing


def test_the_fingerprint_is_that_of_the_specification():
    # CRC-64-AVRO of "null" is 0x63dd24e7cc258f8a (the specification's own tests), stored little-endian
    assert single_object_header("null") == b"\xc3\x01" + (0x63DD24E7CC258F8A).to_bytes(8, "little")


def test_times_are_integers():
    decoded = Codec("Submission").decode(Codec("Submission").encode({**SHORT, "send_at": 1_700_000_000_123}))
    assert decoded["send_at"] == 1_700_000_000_123


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "is empty"),
        (b"{", "begins with 0x7b"),
        (b'{"tenant": "t"}', "neither Confluent"),
        (b"\xc3\x02" + bytes(20), "neither Confluent"),
        (b"\x00\x00\x00", "within its header"),
        (b"\xc3\x01\x00", "within its header"),
        (b"\xc3\x01" + bytes(8), "fingerprint 0000000000000000 is of no released version of Submission"),
        (b"\x00\x00\x00\x00\x09", "schema id 9 of a registry, but no registry is configured"),
    ],
)
def test_wrong_framing_says_what_is_wrong(raw, says):
    with pytest.raises(DecodeError, match="Submission: .*" + says):
        Codec("Submission").decode(raw)


def test_bytes_after_the_record_are_refused():
    with pytest.raises(DecodeError, match="2 bytes follow"):
        Codec("Submission").decode(Codec("Submission").encode(SHORT) + b"\0\0")


async def test_confluent_framing_with_a_registry_and_both_on_input():
    registry = Scripted()
    codec = Codec("Submission", registry)
    with pytest.raises(EncodeError, match="register"):
        codec.encode(SHORT)
    assert await codec.register("mail.submissions") == 7
    assert registry.subjects == ["mail.submissions-value"]
    raw = codec.encode(SHORT)
    assert raw[:5] == b"\x00\x00\x00\x00\x07"
    assert codec.decode(raw) == codec.decode(Codec("Submission").encode(SHORT))


# reserved symbols


def test_a_reserved_symbol_is_read_and_not_written():
    colours = {"type": "enum", "name": "Colour", "symbols": ["red", "blue"]}
    schema = {"type": "record", "name": "R", "fields": [{"name": "c", "type": {**colours, "reserved": ["blue"]}}]}
    later = {"type": "record", "name": "R", "fields": [{"name": "c", "type": colours}]}
    assert Codec(schema).decode(Codec(schema).encode({"c": "red"})) == {"c": "red"}
    assert Codec(schema).decode(Codec(later).encode({"c": "blue"})) == {"c": "blue"}
    with pytest.raises(EncodeError, match=r"c is 'blue', not Colour"):
        Codec(schema).encode({"c": "blue"})


# the registry's schemas


async def test_an_unknown_id_is_learnt_once():
    registry = Scripted({300: changed("Submission", lambda fields: fields.pop("tags"))})
    codec = Codec("Submission", registry)
    raw = written(registry.schemas[300], SHORT, b"\x00" + (300).to_bytes(4, "big"))
    with pytest.raises(UnknownSchema) as found:
        codec.decode(raw)
    assert found.value.id == 300
    registry.away = True
    with pytest.raises(RegistryUnavailable):
        await codec.learn(300)
    registry.away = False
    await codec.learn(300)
    registry.away = True
    assert codec.decode(raw)["tags"] == []


async def test_an_id_that_the_registry_has_not_is_a_decode_error():
    with pytest.raises(DecodeError, match="no schema with id 5"):
        await Codec("Submission", Scripted()).learn(5)


async def test_our_own_schema_under_another_id():
    codec = Codec("Submission", Scripted({4: avro.load("Submission")}))
    await codec.learn(4)
    assert codec.decode(b"\0\0\0\0\x04" + Codec("Submission").encode(SHORT)[10:])["tenant"] == "t"


async def test_a_record_of_another_type_is_a_decode_error():
    codec = Codec("Submission", Scripted({4: avro.load("Suppression")}))
    await codec.learn(4)
    raw = written(avro.load("Suppression"), samples.sample(avro.load("Suppression"), "full"), b"\0\0\0\0\x04")
    with pytest.raises(DecodeError):
        codec.decode(raw)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "record", "name": "Submission", "fields": [{"name": "next", "type": ["null", "Submission"]}]},
        {"type": "record", "name": "Submission", "fields": [{"name": "x", "type": {"type": "array", "items": "null"}}]},
        {
            "type": "record",
            "name": "Submission",
            "namespace": "postroad",
            "fields": [
                {"name": "e", "type": {"type": "record", "name": "Empty", "fields": []}},
                {"name": "x", "type": {"type": "array", "items": "postroad.Empty"}},
            ],
        },
        {"type": "record", "name": "Submission", "fields": [{"name": "x"}]},
        {"type": "record", "name": "Submission", "fields": [{"name": "x", "type": "Nowhere"}]},
        {"type": "nonsense"},
        {},
    ],
)
async def test_a_writers_schema_that_is_endless_or_broken_is_refused(schema):
    with pytest.raises(DecodeError):
        await Codec("Submission", Scripted({4: schema})).learn(4)


# versions


async def evolved(name, change, value):
    """A codec, and `value` as somebody wrote it with another version of the schema."""
    schema = changed(name, change)
    codec = Codec(name, Scripted({4: schema}))
    await codec.learn(4)
    return codec, written(schema, value, b"\0\0\0\0\x04")


async def test_a_field_of_the_future_is_passed_over():
    def add(fields):
        fields["later"] = {"name": "later", "type": {"type": "map", "values": "bytes"}, "default": {}}

    codec, raw = await evolved("Submission", add, {**SHORT, "later": {"a": b"b"}})
    assert codec.decode(raw) == Codec("Submission").decode(Codec("Submission").encode(SHORT))


async def test_defaults_of_missing_fields_are_of_their_type_and_nobody_elses():
    def remove(fields):
        for name in ("top", "tags", "metadata", "score"):
            del fields[name]

    value = samples.sample(avro.load("Message"), "minimal")
    codec, raw = await evolved("Message", remove, {key: value[key] for key in value if key not in ("top", "tags")})
    first = codec.decode(raw)
    assert (first["top"], first["tags"], first["metadata"], first["score"]) == (b"", [], {}, None)
    first["tags"].append("mine")
    assert codec.decode(raw)["tags"] == []
    assert Codec("Message").decode(Codec("Message").encode(first)) == first


async def test_truncated_and_trailing_bytes_of_another_version():
    codec, raw = await evolved("Submission", lambda fields: fields.pop("egress_pool"), SHORT)
    for wrong in (raw[:-1], raw + b"\0"):
        with pytest.raises(DecodeError):
            codec.decode(wrong)


# values that do not fit


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tenant": None}, "tenant"),
        ({"tenant": 5}, "tenant"),
        ({"stream": "spam"}, "stream"),
        ({"send_at": "tomorrow"}, "send_at"),
        ({"send_at": 1 << 70}, "send_at"),
        ({"recipients": [{"address": 3}]}, "address"),
        ({"recipients": [{}]}, "address"),
        ({"recipients": 5}, "recipients"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"tenant": "\ud800"}, "surrogates"),
        ({"subjekt": "x"}, "subjekt"),
    ],
)
def test_encode_errors_name_the_field(change, says):
    with pytest.raises(EncodeError, match=rf"Submission: .*{says}"):
        Codec("Submission").encode({**SHORT, **change})


@pytest.mark.parametrize("value", [None, [], 5, "text", {}, {"tenant": "t"}])
def test_values_that_are_no_record(value):
    with pytest.raises(EncodeError):
        Codec("Submission").encode(value)


def test_an_error_does_not_carry_the_attachment():
    with pytest.raises(EncodeError) as found:
        Codec("Submission").encode({**SHORT, "raw": "x" * 1_000_000})
    assert len(str(found.value)) < 1000


# hostile bytes

CODECS = {name: Codec(name) for name in avro.names()}
GOLDEN = {name: CODECS[name].encode(samples.sample(avro.load(name), "full")) for name in CODECS}


SHORT_UP_TO_REPLY_TO = b"\x02t\x021\x00\x06a@b\x00"  # tenant, submission id, stream, sender: an array comes next


def decodes_or_refuses(name, raw):
    """Whatever comes out is a record of the schema, and nothing but CodecErrors is raised."""
    try:
        value = CODECS[name].decode(raw)
    except CodecError:
        return
    assert value.keys() == {field["name"] for field in avro.load(name)["fields"]}


@given(name=st.sampled_from(sorted(CODECS)), raw=st.binary(max_size=300))
@example(name="Submission", raw=b"\xff" * 30)
@example(name="Submission", raw=b"\xff" * 9 + b"\x01")
def test_random_bytes(name, raw):
    decodes_or_refuses(name, raw)
    decodes_or_refuses(name, GOLDEN[name][:10] + raw)


@pytest.mark.parametrize("name", sorted(CODECS))
def test_every_truncation_is_refused(name):
    for length in range(len(GOLDEN[name])):
        with pytest.raises(DecodeError):
            CODECS[name].decode(GOLDEN[name][:length])


@given(name=st.sampled_from(sorted(CODECS)), data=st.data())
def test_flipped_bits(name, data):
    raw = bytearray(GOLDEN[name])
    for place in data.draw(st.lists(st.integers(0, len(raw) * 8 - 1), min_size=1, max_size=4)):
        raw[place // 8] ^= 1 << place % 8
    decodes_or_refuses(name, bytes(raw))


@given(name=st.sampled_from(sorted(CODECS)), data=st.data())
def test_pieces_put_elsewhere(name, data):
    raw = GOLDEN[name]
    start, end, place = (data.draw(st.integers(10, len(raw))) for _ in range(3))
    decodes_or_refuses(name, raw[:place] + raw[start:end] + raw[place:])


@pytest.mark.parametrize("length", [1 << 31, 1 << 40, (1 << 63) - 1, -1, -5, -(1 << 63)])
def test_declared_lengths_take_no_memory(length):
    prefix = CODECS["Submission"].encode(SHORT)[:10]
    tracemalloc.start()
    try:
        for hostile in (
            prefix + zigzag(length),  # the tenant
            prefix + zigzag(length) + b"abc",
            prefix + SHORT_UP_TO_REPLY_TO + zigzag(length),  # reply_to, an array
            prefix + SHORT_UP_TO_REPLY_TO + zigzag(length) + zigzag(length),  # a block with its size
            prefix + SHORT_UP_TO_REPLY_TO + b"\x00\x02\x06x@y\x00\x00" + zigzag(length),  # variables, a map
        ):
            with pytest.raises(DecodeError):
                CODECS["Submission"].decode(hostile)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_millions_of_empty_records_are_refused_before_they_fill_memory():
    headers = 4 << 20  # of two bytes each: 8 MiB, a gigabyte of dictionaries
    before = CODECS["Submission"].encode(SHORT)[:10] + SHORT_UP_TO_REPLY_TO
    raw = before + zigzag(headers) + bytes(2 * headers)
    with pytest.raises(DecodeError, match="more than 2,000,000 values"):
        CODECS["Submission"].decode(raw)


def test_a_large_record_is_read_and_checked_as_any_other():
    raw = CODECS["Submission"].encode({**SHORT, "raw": b"x" * LARGE})
    assert CODECS["Submission"].decode(raw)["raw"] == b"x" * LARGE
    for wrong in (raw[:-1], raw + b"\0"):
        with pytest.raises(DecodeError):
            CODECS["Submission"].decode(wrong)


def test_the_largest_submission_decodes():
    variables = {f"variable{number}": "x" for number in range(100)}
    recipients = [{"address": f"r{number}@c.example", "variables": variables} for number in range(1000)]
    decoded = CODECS["Submission"].decode(CODECS["Submission"].encode({**SHORT, "recipients": recipients}))
    assert len(decoded["recipients"]) == 1000


# any value there and back


@given(
    st.fixed_dictionaries(
        {
            "tenant": st.text(),
            "submission_id": st.text(),
            "sender": st.fixed_dictionaries({"address": st.text()}),
            "recipients": st.lists(
                st.fixed_dictionaries({"address": st.text(), "kind": st.sampled_from(["to", "cc"])})
            ),
        },
        optional={
            "raw": st.none() | st.binary(),
            "send_at": st.none() | st.integers(-(1 << 63), (1 << 63) - 1),
            "metadata": st.dictionaries(st.text(), st.text()),
            "attachments": st.lists(
                st.fixed_dictionaries({"filename": st.text(), "content": st.binary() | st.text()}), max_size=3
            ),
        },
    )
)
def test_there_and_back(value):
    codec = CODECS["Submission"]
    raw = codec.encode(value)
    decoded = codec.decode(raw)
    assert {key: decoded[key] for key in ("tenant", "submission_id")} == {
        key: value[key] for key in ("tenant", "submission_id")
    }
    assert [one["content"] for one in decoded["attachments"]] == [
        one["content"] for one in value.get("attachments", [])
    ]
    assert codec.encode(decoded) == raw


def test_schemas_stay_json():
    json.dumps(avro.load("Message"))  # what is registered is the file, not what the codec made of it


def test_the_head_of_a_record_is_its_first_fields():
    codec, full = Codec("Attempt"), samples.sample(avro.load("Attempt"), "full")
    raw = codec.encode(full)
    whole = codec.decode(raw)
    assert codec.head("at")(raw) == {"message": whole["message"], "at": whole["at"]}
    assert codec.head("message.tenant")(raw) == {"message": {n: whole["message"][n] for n in ("message_id", "tenant")}}
    assert codec.head("message.tenant")(raw[: len(raw) // 2]), "what lies behind it is not looked at"


def test_no_head_of_another_version_nor_of_a_large_record_nor_up_to_a_field_that_is_not_there():
    head, raw = Codec("Event").head("kind"), Codec("Submission").encode(SUBMISSION)
    assert head(raw) is None
    assert Codec("Submission").head("tenant")(raw.ljust(LARGE + 1, b"\0")) is None
    with pytest.raises(ValueError, match="Event has no field 'colour'"):
        Codec("Event").head("colour")
