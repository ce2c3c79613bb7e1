"""Each kind of change, told apart: what breaks a reader and what does not."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

import avro
from avro import release
from avro.compatibility import breaks, breaks_the_release_before, written

INNER = {"type": "record", "name": "Inner", "fields": [{"name": "n", "type": "int"}]}
COLOURS = {"type": "enum", "name": "Colour", "symbols": ["red", "green"]}


def record(*fields, **more):
    return {"type": "record", "name": "R", "namespace": "t", "fields": list(fields), **more}


def field(type, name="f", **more):
    return {"name": name, "type": type, **more}


def inner(*fields, **more):
    return {"type": "record", "name": "Inner", "fields": list(fields), **more}


TREE = record(field(["null", "R"], "next"), field("int", "n"))

COMPATIBLE = {
    "the same": (record(field("int")), record(field("int"))),
    "added with default": (record(field("int"), field("int", "g", default=0)), record(field("int"))),
    "removed": (record(), record(field("int"))),
    "moved": (record(field("int"), field("string", "g")), record(field("string", "g"), field("int"))),
    "renamed with alias": (record(field("int", "new", aliases=["f"])), record(field("int"))),
    "record renamed with alias": (record(name="S", aliases=["R"]), record()),
    "int to long": (record(field("long")), record(field("int"))),
    "int to double": (record(field("double")), record(field("int"))),
    "long to float": (record(field("float")), record(field("long"))),
    "string to bytes": (record(field("bytes")), record(field("string"))),
    "doc and logical type": (
        record(field({"type": "long", "logicalType": "timestamp-millis"}, doc="x")),
        record(field("long")),
    ),
    "made optional": (record(field(["null", "string"])), record(field("string"))),
    "branch added": (record(field(["null", "string", "bytes"])), record(field(["null", "string"]))),
    "branch promoted": (record(field(["null", "long"])), record(field(["null", "int"]))),
    "symbol added": (record(field({**COLOURS, "symbols": ["red", "green", "blue"]})), record(field(COLOURS))),
    "symbol removed with default": (
        record(field({**COLOURS, "symbols": ["red"], "default": "red"})),
        record(field(COLOURS)),
    ),
    "items promoted": (
        record(field({"type": "array", "items": "long"})),
        record(field({"type": "array", "items": "int"})),
    ),
    "a type by its name": (
        record(field(INNER), field("Inner", "g")),
        record(field(INNER), field({"type": "t.Inner"}, "g")),
    ),
    "a type inside itself": (TREE, TREE),
}

BREAKING = {
    "added without default": ((record(field("int"), field("int", "g")), record(field("int"))), "g: added without"),
    "renamed": ((record(field("int", "new")), record(field("int"))), "new: added without"),
    "record renamed": ((record(name="S"), record()), "record R became S"),
    "long to int": ((record(field("int")), record(field("long"))), "f: long became int"),
    "double to long": ((record(field("long")), record(field("double"))), "f: double became long"),
    "string to int": ((record(field("int")), record(field("string"))), "f: string became int"),
    "scalar to array": (
        (record(field({"type": "array", "items": "int"})), record(field("int"))),
        "f: int became array",
    ),
    "symbol removed": ((record(field({**COLOURS, "symbols": ["red"]})), record(field(COLOURS))), "Colour lost green"),
    "made required": ((record(field("string")), record(field(["null", "string"]))), "f: null became string"),
    "branch removed": (
        (record(field(["null", "string"])), record(field(["null", "string", "bytes", "int"]))),
        "f: no branch takes int",
    ),
    "in an array": (
        (record(field({"type": "array", "items": "int"})), record(field({"type": "array", "items": "long"}))),
        "f[]: long became int",
    ),
    "in a map": (
        (record(field({"type": "map", "values": "int"})), record(field({"type": "map", "values": "string"}))),
        "f{}: string became int",
    ),
    "in a record": (
        (record(field(inner(field("int", "n"), field("int", "m")))), record(field(INNER))),
        "f.m: added without",
    ),
    "in a record of a union": (
        (record(field(["null", inner(field("string", "n"))])), record(field(["null", INNER]))),
        "f.n: int became string",
    ),
    "in an array of optional records": (
        (
            record(field({"type": "array", "items": ["null", inner(field("int", "m"))]})),
            record(field({"type": "array", "items": ["null", INNER]})),
        ),
        "f[].m: added without",
    ),
    "by name": (
        (
            record(field(inner(field("string", "n"))), field("Inner", "g")),
            record(field(INNER), field("t.Inner", "g")),
        ),
        "g.n: int became string",
    ),
    "fixed of another size": (
        (
            record(field({"type": "fixed", "name": "F", "size": 4})),
            record(field({"type": "fixed", "name": "F", "size": 8})),
        ),
        "fixed of 8 bytes became 4",
    ),
    "in a type inside itself": (
        (record(field(["null", "R"], "next"), field("string", "n")), TREE),
        "n: int became string",
    ),
}


@pytest.mark.parametrize("kind", COMPATIBLE)
def test_compatible(kind):
    assert breaks(*COMPATIBLE[kind]) == []


@pytest.mark.parametrize("kind", BREAKING)
def test_breaking(kind):
    (reader, writer), reason = BREAKING[kind]
    assert any(reason in found for found in breaks(reader, writer)), breaks(reader, writer)


@given(st.data())
def test_a_required_field_is_missed_wherever_it_is_added(data):
    schema = avro.load(data.draw(st.sampled_from(avro.names())))
    reader = copy.deepcopy(schema)
    places = []

    def walk(node):
        if isinstance(node, list):
            for item in node:
                walk(item)
        elif isinstance(node, dict):
            if node.get("type") == "record":
                places.append(node)
            for key in ("fields", "items", "values", "type"):
                walk(node.get(key))

    walk(reader)
    data.draw(st.sampled_from(places))["fields"].append({"name": "brand_new", "type": "int"})
    assert any("brand_new: added without a default" in found for found in breaks(reader, schema))
    assert breaks(schema, reader) == []


def test_release_writes_what_changed_and_refuses_what_breaks(tmp_path, monkeypatch):
    monkeypatch.setattr(avro, "FOLDER", tmp_path)
    monkeypatch.setattr(release, "RELEASED", tmp_path / "released")
    (tmp_path / "released").mkdir()

    def save(schema):
        (tmp_path / "R.avsc").write_text(avro.json.dumps(schema), encoding="utf-8")

    save(record(field("int")))
    assert release.release() == tmp_path / "released" / "1"
    assert release.release() is None
    save(record(field("int", doc="Only words.")))
    assert release.release() is None
    save(record(field("int"), field("long", "g", default=0)))
    assert release.release() == tmp_path / "released" / "2"
    save(record(field("int"), field("int", "g", default=0)))
    with pytest.raises(ValueError, match="R: g: long became int"):
        release.release()
    save(record(field("long"), field("long", "g", default=0)))  # we could read what was written; they could not
    with pytest.raises(ValueError, match="R: workers that run now: f: long became int"):
        release.release()
    assert not (tmp_path / "released" / "3").exists()


def test_a_symbol_is_read_for_one_release_before_it_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(avro, "FOLDER", tmp_path)
    monkeypatch.setattr(release, "RELEASED", tmp_path / "released")
    (tmp_path / "released").mkdir()
    blue = {**COLOURS, "symbols": ["red", "green", "blue"]}

    def save(colours):
        (tmp_path / "R.avsc").write_text(avro.json.dumps(record(field(colours))), encoding="utf-8")
        return release.release()

    assert save(COLOURS).name == "1"
    with pytest.raises(ValueError, match="workers that run now: f: enum Colour lost blue and has no default"):
        save(blue)
    reserved = {**blue, "reserved": ["blue"]}
    assert save(reserved).name == "2"
    assert breaks_the_release_before("R") == []
    assert save(blue).name == "3"  # release 2 reads it


def test_what_is_written_is_without_the_reserved_symbols():
    inner = {"type": "enum", "name": "E", "symbols": ["a", "b", "c"], "reserved": ["c"]}
    schema = record(field({"type": "array", "items": ["null", inner]}, default=[]))
    (only,) = written(schema)["fields"]
    assert only["type"]["items"][1]["symbols"] == ["a", "b"] and only["default"] == []
    assert inner["symbols"] == ["a", "b", "c"]  # ours stays
    with pytest.raises(ValueError, match="reserved must be the last symbols"):
        written({**inner, "reserved": ["b"]})
