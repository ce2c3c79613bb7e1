"""The schemas themselves: documented, typed, compatible with everything released."""

import ast
from io import BytesIO

import pytest
from fastavro import parse_schema, schemaless_writer

import avro
from avro import compatibility, generate, release, samples
from topics.codec import Codec
from topics.schemas import single_object_header


def records(schema):
    """Every record and enum in a schema."""
    if isinstance(schema, list):
        for branch in schema:
            yield from records(branch)
    elif isinstance(schema, dict):
        if "name" in schema and "type" in schema and schema["type"] in ("record", "enum"):
            yield schema
        for key in ("fields", "items", "values", "type"):
            yield from records(schema.get(key))


@pytest.mark.parametrize("name", avro.names())
def test_every_type_and_field_has_a_doc(name):
    for record in records(avro.load(name)):
        assert record.get("doc"), record["name"]
        for field in record.get("fields", ()):
            assert field.get("doc"), f"{record['name']}.{field['name']}"


@pytest.mark.parametrize("name", avro.names())
def test_times_have_their_logical_type(name):
    for record in records(avro.load(name)):
        for field in record.get("fields", ()):
            if field["name"] == "at" or field["name"].endswith("_at"):
                assert "timestamp-millis" in str(field["type"]), f"{record['name']}.{field['name']}"


def test_a_type_that_several_schemas_have_is_the_same_in_all():
    seen = {}
    for name in avro.names():
        for record in records(avro.load(name)):
            bare = {key: value for key, value in record.items() if key != "namespace"}
            assert seen.setdefault(record["name"], bare) == bare, f"{record['name']} in {name}"


def test_records_py_is_generated_from_the_schemas():
    committed = (avro.FOLDER / "records.py").read_text(encoding="utf-8")
    assert ast.dump(ast.parse(committed)) == ast.dump(ast.parse(generate.source())), "run `python -m avro.generate`"


@pytest.mark.parametrize("name", avro.names())
def test_backward_transitive(name):
    assert compatibility.breaks_with_released(name) == []


@pytest.mark.parametrize("name", avro.names())
def test_workers_of_the_release_before_can_read_ours(name):
    assert compatibility.breaks_the_release_before(name) == []


def test_everything_is_released():
    assert release.changed() == [], "run `python -m avro.release`"


@pytest.mark.parametrize("name", avro.names())
def test_records_of_released_versions_decode(name):
    for old in avro.released(name):
        for case in samples.CASES:
            value, raw = samples.sample(old, case), BytesIO()
            raw.write(single_object_header(old))
            schemaless_writer(raw, parse_schema(old), value)
            decoded = Codec(name).decode(raw.getvalue())
            assert decoded.keys() == {field["name"] for field in avro.load(name)["fields"]}
            assert Codec(name).decode(Codec(name).encode(decoded)) == decoded
