"""Dead letters as an operator finds them on a real broker: folded by id, chosen, put back byte for byte, noted."""

import asyncio
from dataclasses import replace

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from topics import letters
from topics.admin import ensure
from topics.catalogue import CLEARED, DEAD_LETTERS, EVENTS, SCORED, TENANTS
from topics.client import Client
from topics.installation import Installation
from topics.letters import Chosen, LetterError

HERE = Installation("nowhere:1", prefix="p-", partitions=4)


def letter(topic="p-mail.scored", offset=7, partition=3, **fields):
    return {
        "stage": "suppress", "topic": topic, "partition": partition, "offset": offset, "timestamp": 1000, "key": b"k",
        "value": b"v", "headers": [], "error": "DecodeError", "text": "Message: is empty", "at": 2000, "source": "",
        "resolution": None, **fields,
    }  # fmt: skip


def resolution(action="replayed", **fields):
    return {"action": action, "by": "op", "why": "", "at": 1, "place": "", **fields}


@pytest.fixture
async def client(installation):
    await ensure(installation, [DEAD_LETTERS, SCORED, CLEARED, EVENTS])
    async with Client(installation) as client:
        yield client


async def put(client, **fields):
    """A letter of a record of mail.scored; returns its id."""
    output = DEAD_LETTERS.send(letter(**{"topic": client.installation.name(SCORED), **fields}))
    await client.send(output)
    return output.key.decode()


async def raw(client, topic):
    """(partition, key, value, headers) of everything in a topic, undecoded."""
    found = []
    async for record, _ in client.read(topic, broken=lambda record, _: found.append(record)):
        found.append(record)
    return [(r.partition, r.key, r.value, list(r.headers)) for r in found]


async def replay(client, id, **fields):
    async for found, one in letters.whole(client, [id]):
        return await letters.replay(client, found, one, "op", "mended", 5)


async def test_folded_by_id_whatever_else_lies_in_the_topic(client, installation):
    once = await put(client, offset=1, value=b"x" * 100_000)
    await client.send_raw(DEAD_LETTERS, b"junk", b"\x00\x01 no record of ours")
    await client.send_raw(DEAD_LETTERS, b"tombstone", None)
    twice = await put(client, offset=2, stage="events_sink", text="first")
    assert await put(client, offset=2, stage="audit", text="second") == twice
    orphaned = letter(offset=99, resolution=resolution())  # its letter is older than the topic keeps
    await client.send(DEAD_LETTERS.send(orphaned))
    failed_again = await put(client, offset=3, headers=[
        {"name": "postroad-replays", "value": b"1"}, {"name": "postroad-replays", "value": b"2"}])  # fmt: skip
    liar = await put(client, offset=4, headers=[{"name": "postroad-replays", "value": b"9" * 5000}])
    await client.send(DEAD_LETTERS.send(letter(installation.name(SCORED), 1, resolution=resolution("discarded"))))
    assert await put(client, offset=1) == once  # its stage was done again: dealt with all the same
    found, strange = await letters.read(client)
    assert list(found) == [once, twice, failed_again, liar]
    assert strange == 2
    assert [one.times for one in found.values()] == [1, 1, 3, 1]
    assert found[twice].stages == ("events_sink", "audit")
    assert found[twice].letter["text"] == "second"
    assert [one.state for one in found.values()] == ["discarded", "open", "open", "open"]
    assert all(one.letter["value"] is None for one in found.values())


async def test_a_resolution_is_for_the_letters_before_it(client, installation):
    """Two stages read one topic; the second one comes to the record when the first one's letter was dealt with."""
    resolved = DEAD_LETTERS.send(
        letter(installation.name(SCORED), 1, stage="audit", resolution=resolution("discarded"))
    )
    id = await put(client, offset=1, stage="audit", text="audit's")
    await client.send(resolved)
    await put(client, offset=1, stage="audit", text="again")
    assert (await letters.read(client))[0][id].state == "discarded"
    await put(client, offset=1, stage="classify", text="classify's")
    await put(client, offset=1, stage="audit", text="again")
    found = (await letters.read(client))[0][id]
    assert (found.state, found.stages, found.letter["text"]) == ("open", ("classify",), "classify's")
    await client.send(resolved)  # by whichever letter it was dealt with: those before it are
    await put(client, offset=1, stage="classify")
    await put(client, offset=1, stage="audit")
    assert (await letters.read(client))[0][id].state == "discarded"


def test_what_is_chosen():
    one = letters.Letter("id", letter(at=50), ("suppress", "audit"), 1, 1)
    assert Chosen().takes(one)
    assert Chosen("audit", "DecodeError", "p-mail.scored", 50, 51).takes(one)
    for other in (
        {"stage": "sup"},
        {"error": "Decode"},
        {"topic": "mail.scored"},
        {"since": 51},
        {"until": 50},
        {"state": "replayed"},
    ):
        assert not Chosen(**other).takes(one)
    done = replace(one, resolution=resolution())
    assert not Chosen().takes(done)
    assert Chosen(state="").takes(done) and Chosen(state="replayed").takes(done)


async def test_replay_is_the_same_record_in_the_same_partition_with_its_history(client):
    value, own = (
        bytes(range(256)) * 1200,
        [{"name": "trace", "value": b"\x00\xff"}, {"name": "postroad-performed", "value": b"1"}],
    )
    id = await put(client, partition=5, key=b"another partition's", value=value, headers=own)
    place = await replay(client, id)
    ((partition, key, stored, headers),) = await raw(client, SCORED)
    assert (partition, key, stored) == (5, b"another partition's", value)
    kept = [("trace", b"\x00\xff"), ("postroad-performed", b"1")]
    assert headers == [
        *kept,
        ("postroad-dead-letter", id.encode()),
        ("postroad-error", b"DecodeError"),
        ("postroad-replays", b"1"),
    ]
    found, _ = await letters.read(client)
    name = client.installation.name(SCORED)
    assert found[id].resolution == resolution(why="mended", at=5, place=f"{name}[5]@{place.offset}")

    # it fails again: a letter of its own, that tells of both
    again = await put(client, partition=5, offset=place.offset + 100, error="ValueError", key=None,
                      headers=[{"name": name, "value": value} for name, value in headers])  # fmt: skip
    await replay(client, again)
    _, (_, key, _, headers) = await raw(client, SCORED)
    assert key is None
    assert [value for name, value in headers if name == "postroad-dead-letter"] == [id.encode(), again.encode()]
    assert [value for name, value in headers if name == "postroad-error"] == [b"DecodeError", b"ValueError"]
    assert [value for name, value in headers if name == "postroad-replays"] == [b"2"]


async def test_refused_output_goes_where_it_was_to_go(client):
    topic = client.installation.name(CLEARED)
    source = f"{client.installation.name(SCORED)}[1]@9#mail.cleared[2]:00c0ffee00c0ffee"
    id = await put(
        client, topic=topic, partition=2, offset=-1, source=source, error="MessageSizeTooLargeError", text="too large"
    )
    assert id == source
    await replay(client, id)
    assert [(partition, value) for partition, _, value, _ in await raw(client, CLEARED)] == [(2, b"v")]
    assert await raw(client, SCORED) == []


async def test_dies_between_the_record_and_its_note(client, monkeypatch):
    id = await put(client)

    async def dies(*arguments):
        raise ConnectionError("gone")

    with monkeypatch.context() as patched:
        patched.setattr(letters, "note", dies)
        with pytest.raises(ConnectionError):
            await replay(client, id)
    assert (await letters.read(client))[0][id].state == "open"
    await replay(client, id)
    assert [value for _, _, value, _ in await raw(client, SCORED)] == [b"v", b"v"]
    assert (await letters.read(client))[0][id].state == "replayed"


async def test_topic_that_still_refuses_it_is_told_and_the_next_one_goes(client):
    topic = ConfigResource(
        ConfigResourceType.TOPIC, client.installation.name(SCORED), configs={"max.message.bytes": "5000"}
    )
    admin = AIOKafkaAdminClient(bootstrap_servers=client.installation.bootstrap)
    await admin.start()
    await admin.alter_configs([topic])
    while not any(entry[:2] == ("max.message.bytes", "5000") for answer in await admin.describe_configs([topic])
                  for resource in answer.resources for entry in resource[4]):  # fmt: skip
        await asyncio.sleep(0.05)  # the broker hears of it from its controller
    await admin.close()
    large, small = await put(client, offset=1, value=b"x" * 6000), await put(client, offset=2)
    with pytest.raises(LetterError, match=r"mail.scored refuses the record.*max\.message\.bytes"):
        await replay(client, large)
    await replay(client, small)
    found, _ = await letters.read(client)
    assert (found[large].state, found[small].state) == ("open", "replayed")
    assert [value for _, _, value, _ in await raw(client, SCORED)] == [b"v"]


CUT = "cut from 1 bytes of key, 9000000 of value, 0 headers: Message: is empty"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"topic": "p-mail.nothing"}, "no topic 'p-mail.nothing'"),
        ({"topic": "q-mail.scored"}, "another prefix than 'p-'.*POSTROAD_TOPIC_PREFIX"),
        ({"topic": "\x1b[2J"}, r"no topic '\\x1b\[2J'"),
        ({"value": None}, "no value"),
        ({"text": CUT}, r"whole record is at p-mail.scored\[3\]@7 .*7 days"),
        ({"error": "Unreadable", "text": "offsets 3 to 5: BadGzipFile"}, "piece of a Kafka batch"),
        ({"topic": "p-control.tenants", "partition": 0}, "takes no replays"),
        ({"topic": "p-mail.dead-letters", "partition": 0}, "takes no replays"),
        ({"partition": 4}, "no partition 4"),
        ({"partition": -1}, "no partition -1"),
    ],
)
def test_what_cannot_be_put_back(fields, said):
    with pytest.raises(LetterError, match=said):
        letters.replayable(HERE, letter(**fields))


def test_error_that_quotes_a_cut_one_is_none():
    assert letters.replayable(HERE, letter(text="cut from 1 bytes of key, 1 of value, 0 headers: forged")) is SCORED
    assert letters.replayable(HERE, letter(text="cut from ")) is SCORED
    assert TENANTS.compacted  # the reason for the refusal above
