"""The golden records in both framings: what other languages may check themselves against."""

import pytest

import avro
from avro import samples
from topics.codec import Codec

RECORDS = [(name, case) for name in avro.names() for case in samples.CASES]


class OneSchema:
    """A registry that knows one schema, under the id of the golden records."""

    def __init__(self, schema):
        self._schema = schema

    async def schema(self, id):
        return self._schema if id == samples.CONFLUENT_ID else None

    async def register(self, subject, schema):
        return samples.CONFLUENT_ID


@pytest.mark.parametrize(("name", "case"), RECORDS)
def test_single_object(name, case):
    codec, value, raw = Codec(name), samples.read(name, case), samples.encoded(name, case, "single")
    assert codec.decode(raw) == value
    assert codec.encode(value) == raw


@pytest.mark.parametrize(("name", "case"), RECORDS)
async def test_confluent(name, case):
    codec, value, raw = (
        Codec(name, OneSchema(avro.load(name))),
        samples.read(name, case),
        samples.encoded(name, case, "confluent"),
    )
    await codec.register("topic")
    assert codec.decode(raw) == value
    assert codec.encode(value) == raw


@pytest.mark.parametrize("name", avro.names())
def test_left_out_defaults_make_the_same_bytes(name):
    value = samples.read(name, "minimal")
    short = {field["name"]: value[field["name"]] for field in avro.load(name)["fields"] if "default" not in field}
    assert Codec(name).encode(short) == samples.encoded(name, "minimal", "single")


def test_golden_files_are_those_of_the_schemas(tmp_path, monkeypatch):
    committed = {path.name: path.read_bytes() for path in samples.GOLDEN.iterdir()}
    monkeypatch.setattr(samples, "GOLDEN", tmp_path / "golden")
    samples.write()
    fresh = {path.name: path.read_bytes() for path in samples.GOLDEN.iterdir()}
    assert fresh == committed, "a schema has changed: run `python -m avro.samples` and look at the difference"
