"""control.schemas: what a release publishes others read, on a real broker; what others put there does no harm."""

import json

import pytest

import avro
from topics import codec
from topics.admin import ensure
from topics.catalogue import SCHEMAS, SUPPRESSIONS
from topics.client import Client
from topics.codec import Codec, DecodeError, RegistryUnavailable, UnknownSchema
from topics.schemas import single_object_header
from topics.writers import Writers

ENTRY = {"recipient": "a@b.test", "reason": "manual", "at": 1, "evidence": "me"}


@pytest.fixture(autouse=True)
def published(monkeypatch):
    """A process that has asked nobody yet."""
    monkeypatch.setattr(codec, "published", fresh := {})
    monkeypatch.setattr("topics.writers.published", fresh)
    return fresh


@pytest.fixture
async def client(installation):
    await ensure(installation, [SCHEMAS, SUPPRESSIONS])
    async with Client(installation) as client:
        yield client


def newer(name="Suppression", **field):
    schema = avro.load(name)
    schema["fields"].append({"name": "newer", "type": "string", "default": "", **field})
    return schema


def entry(schema):
    fingerprint = single_object_header(schema)[2:].hex()
    return {"fingerprint": fingerprint, "name": schema["name"], "schema": json.dumps(schema)}


def writers(installation):
    return Writers(installation.bootstrap, installation.name(SCHEMAS))


async def test_a_record_of_a_newer_release_is_read_once_its_schema_is_there(client, installation):
    ours = installation.codecs((SUPPRESSIONS,))[SUPPRESSIONS]
    raw = Codec(newer()).encode({**ENTRY, "newer": "x"})
    with pytest.raises(UnknownSchema) as unknown:
        ours.decode(raw)
    with pytest.raises(DecodeError, match="is of no version that was released or published"):
        await ours.learn(unknown.value.id)
    await client.send(SCHEMAS.send(entry(newer())))
    await ours.learn(unknown.value.id)
    assert ours.decode(raw) == Codec("Suppression").decode(Codec("Suppression").encode(ENTRY))


async def test_each_release_publishes_its_schemas_once(client, installation, published):
    await writers(installation).publish()
    await writers(installation).publish()
    published.clear()
    await writers(installation).publish()
    records = [(record.key, value) async for record, value in client.read(SCHEMAS)]
    assert sorted(value["name"] for _, value in records) == avro.names()
    assert all(key.decode() == value["fingerprint"] for key, value in records)
    assert set(published) == {single_object_header(avro.load(name)) for name in avro.names()}


async def test_what_is_no_schema_is_passed_over(client, installation, published):
    endless = {"type": "record", "name": "Suppression", "fields": [{"name": "f", "type": "Suppression"}]}
    await client.send_raw(SCHEMAS, b"x", b"\xc3\x01 no record of ours")
    await client.send_raw(SCHEMAS, b"x", None)
    for text in ("{", "[]", "7", '{"type": "record"}', "[" * 100_000, '{"type": "nothing"}'):
        await client.send(SCHEMAS.send({"fingerprint": "0" * 16, "name": "Suppression", "schema": text}))
    await client.send(SCHEMAS.send(entry(endless)))
    await client.send(SCHEMAS.send({**entry(newer()), "fingerprint": "0" * 16}))  # counts under its own
    ours = installation.codecs((SUPPRESSIONS,))[SUPPRESSIONS]
    with pytest.raises(UnknownSchema) as unknown:
        ours.decode(single_object_header(endless) + b"\0")
    await ours.learn(unknown.value.id)
    with pytest.raises(DecodeError, match="is not valid"):
        ours.decode(single_object_header(endless) + b"\0")
    assert ours.decode(Codec(newer()).encode(ENTRY))["recipient"] == "a@b.test"
    assert b"\xc3\x01" + bytes(8) not in published


async def test_a_schema_of_something_else_is_not_ours(client, installation):
    await client.send(SCHEMAS.send(entry(newer("Tenant"))))
    ours = installation.codecs((SUPPRESSIONS,))[SUPPRESSIONS]
    raw = Codec(newer("Tenant")).encode({"tenant": "t"})
    with pytest.raises(UnknownSchema) as unknown:
        ours.decode(raw)
    await ours.learn(unknown.value.id)
    with pytest.raises(DecodeError, match="not a record of its schema"):
        ours.decode(raw)


async def test_a_broker_that_is_away_is_temporary():
    with pytest.raises(RegistryUnavailable, match="cannot be read"):
        await Writers("127.0.0.1:1", "control.schemas").look()
