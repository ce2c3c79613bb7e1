"""postroad dead-letters on a real broker, as an operator types it, with letters that mean harm."""

import asyncio
import json
import os
import time

import pytest
from typer.testing import CliRunner

from postroad import cli, settings
from postroad.commands.printing import cut, dump, safe, time_of
from topics.admin import ensure
from topics.catalogue import DEAD_LETTERS, ENDINGS, EVENTS, SCORED, SUBMISSIONS, Topic
from topics.client import Client
from topics.codec import Codec

runner = CliRunner()
EVIL = "\x1b[31m\x1b]0;owned\x07\r\n\x9b2J\u202egpj.exe [bold]:bomb:\x7f\0"
ID = "00clp7o1qs0123456789abcdg0"
MESSAGE = {
    "message_id": ID, "tenant": "acme", "submission_id": "s1", "stream": "transactional", "accepted_at": 1, "recipient": "r@a.test",
    "sender": "a@acme.test", "return_path": "x", "content": {"hash": "", "size": 3, "inline": b"x" * 5000}, "expires_at": 1,
    "tags": [EVIL],
}  # fmt: skip
VALUE = Codec("Message").encode(MESSAGE)
NOW = time.time_ns() // 1_000_000


class Desk:
    """The command line of one installation, and what its topics hold."""

    def __init__(self, installation):
        self.installation = installation

    def __call__(self, *arguments, status=0, answer=""):
        done = runner.invoke(cli.app, ["dead-letters", *arguments], input=answer)
        assert done.exit_code == status, (done.output, done.exception)
        text = f"{done.output}{done.exception or ''}"
        assert all(c.isprintable() or c == "\n" for c in text), "nothing that a terminal obeys"
        return text

    def put(self, topic=SCORED, value=VALUE, **fields):
        """A letter; returns its id."""
        letter = {
            "stage": "suppress", "topic": self.installation.name(topic), "partition": 1, "offset": 0, "timestamp": 1_700_000_000_000,
            "key": b"k", "value": value, "headers": [], "error": "ValueError", "text": "what was wrong", "at": NOW, **fields,
        }  # fmt: skip
        output = DEAD_LETTERS.send(letter)
        self.run(lambda client: client.send(output))
        return output.key.decode()

    def run(self, work):
        async def connected():
            async with Client(self.installation) as client:
                return await work(client)

        return asyncio.run(connected())

    def values(self, topic):
        async def read(client):
            return [value async for _, value in client.read(topic, broken=lambda record, error: None)]

        return self.run(read)


@pytest.fixture
def desk(installation, monkeypatch):
    for name in [name for name in os.environ if name.startswith("POSTROAD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("POSTROAD_KAFKA", installation.bootstrap)
    monkeypatch.setenv("POSTROAD_TOPIC_PREFIX", installation.prefix)
    monkeypatch.setenv("POSTROAD_PARTITIONS", str(installation.partitions))
    settings.load.cache_clear()
    asyncio.run(ensure(installation))
    yield Desk(installation)
    settings.load.cache_clear()


def test_listed_and_chosen(desk):
    assert desk("list").split() == ["id", "at", "stage", "topic", "error", "text", "size", "state", "times"]
    first = desk.put(offset=1, at=1_700_000_000_000)
    evil = desk.put(offset=2, stage=EVIL, error=EVIL, text=EVIL, at=-(1 << 62))
    other = desk.put(EVENTS, b"junk", stage="events_sink", error="DecodeError", at=1_900_000_000_000)
    assert "\\u001b[31m" in desk("list") and evil in desk("list")
    found = [json.loads(line) for line in desk("list", "--json").splitlines()]
    assert [one["id"] for one in found] == [first, evil, other]
    assert found[0] == {
        "id": first, "at": "2023-11-14 22:13:20", "stage": "suppress", "topic": desk.installation.name(SCORED), "error": "ValueError",
        "text": "what was wrong", "size": len(VALUE), "state": "open", "times": 1,
    }  # fmt: skip
    for options in (("--stage", "events_sink"), ("--error", "DecodeError"), ("--topic", "mail.events"),
                    ("--topic", desk.installation.name(EVENTS)), ("--since", "2030-03-17"), ("--since", "2030-03-17T17:46:40Z")):  # fmt: skip
        assert [json.loads(line)["id"] for line in desk("list", "--json", *options).splitlines()] == [other], options
    assert other not in desk("list", "--until", "2030-03-17")
    assert "'soon' is not a time" in desk("list", "--since", "soon", status=1)


def test_shown_without_power_over_the_terminal(desk):
    headers = [{"name": EVIL, "value": EVIL.encode()}, {"name": "large", "value": b"\xff" * 9000}]
    shown = desk("show", desk.put(offset=1, key=EVIL.encode(), text=EVIL, headers=headers))
    record = json.loads(shown[shown.index("\n{") :])
    assert record["tags"] == [EVIL]
    assert record["content"]["inline"] == "x" * 200 + "... (5,000 bytes)"
    assert "(9,000 bytes)" in shown
    shown = desk("show", desk.put(offset=2, value=b"\xc3\x01\x1b[2J" + bytes(2000)))
    assert (
        "does not decode" in shown
        and "000000  c3 01 1b 5b 32 4a" in shown
        and "...[2J" in shown
        and "2,006 bytes" in shown
    )
    assert "it has no value" in desk("show", desk.put(offset=3, value=None))
    source = f"{desk.installation.name(SUBMISSIONS)}[0]@4#1"
    assert "an output of that record" in desk("show", desk.put(offset=-1, source=source))
    assert "has no topic" in desk("show", desk.put(Topic("x", "Message", str)))
    assert "no dead letter 'nothing'" in desk("show", "nothing", status=1)


def test_replayed_by_id_and_by_filter(desk):
    first, second = desk.put(offset=1), desk.put(offset=2, error="KeyError")
    tombstone = desk.put(offset=3, value=None)
    assert "nothing was done" in desk("replay", first, "unknown", status=1)
    for wrong in ((), (first, "--all"), (first, "--stage", "suppress")):
        assert "--all with or without filters" in desk("replay", *wrong, status=1)
    assert "Aborted" in desk("replay", "--all", answer="n\n", status=1)
    assert desk.values(SCORED) == []
    assert f"{first}: put back at {desk.installation.name(SCORED)}[1]@0" in desk(
        "replay", first, "--why", "mended", "--by", "ann"
    )
    again = desk("replay", first, status=1)
    assert "was replayed at" in again and "by ann" in again
    asked = desk("replay", "--all", answer="y\n", status=1)  # the tombstone cannot go back
    assert "Replay 2 dead letters?" in asked and f"{tombstone}: not replayed" in asked and "1 of 2" in asked
    assert "replayed: 0" in desk("replay", "--all", "--error", "KeyError", "--yes")
    assert [value["message_id"] for value in desk.values(SCORED)] == [ID, ID]
    rows = {row["id"]: row for row in map(json.loads, desk("list", "--all", "--json").splitlines())}
    assert [rows[id]["state"] for id in (first, second, tombstone)] == ["replayed", "replayed", "open"]
    assert (rows[first]["by"], rows[first]["why"]) == ("ann", "mended")


def test_discarded_with_who_and_why(desk):
    named, garbage = desk.put(offset=1), desk.put(offset=2, value=b"garbage")
    assert "--why is empty" in desk("discard", named, "--why", " ", status=1)
    assert "Missing option" in desk("discard", named, status=2)
    assert desk.values(ENDINGS) == []
    told = desk("discard", named, garbage, "--why", EVIL, "--by", "ann")
    assert f"{named}: discarded; message {ID} to r@a.test ends as dropped" in told
    assert f"{garbage}: discarded; no end: the record names no message" in told
    (end,) = desk.values(ENDINGS)
    assert (end["kind"], end["reason"], end["rule"], end["detail"]) == ("dropped", "dead-letter", "ann", EVIL)
    assert end["message"]["content"]["inline"] is None
    assert "was discarded at" in desk("replay", named, status=1)
    assert "was discarded at" in desk("discard", named, "--why", "again", status=1)
    assert len(desk.values(ENDINGS)) == 1

    accepted = Codec("Event").encode({
        "event_id": "1", "message_id": ID, "tenant": "acme", "submission_id": "s", "stream": "transactional", "kind": "accepted",
        "at": 1, "accepted_at": 1, "recipient": "r@a.test", "stage": "ingest"})  # fmt: skip
    needed, forged = desk.put(EVENTS, accepted, offset=1), desk.put(offset=9)
    refused = desk("discard", needed, "--why", "x", status=1)
    assert "the ledger has a hole" in refused and "1 of 1" in refused
    assert needed in desk("list")
    assert "nothing ends, as was asked" in desk("discard", needed, forged, "--why", "forged", "--no-end")
    assert len(desk.values(ENDINGS)) == 1 and "suppress" not in desk("list")


def test_older_than_ends_are_remembered(desk):
    """Its message may have had its end since, and classify would write a second one."""
    names = dict(zip(("young", "replayed", "discarded", "garbage", "copy"), range(5), strict=True))
    week = 7 * 86_400_000
    ids = {
        name: desk.put(offset=n, at=NOW - week - 60_000)
        for name, n in names.items()
        if name not in ("young", "garbage")
    }
    ids["young"] = desk.put(offset=0, at=NOW - week + 43_200_000)
    ids["garbage"] = desk.put(offset=3, value=b"garbage", at=NOW - week - 60_000)
    for arguments in (("replay", ids["replayed"]), ("discard", ids["discarded"], "--why", "x")):
        refused = desk(*arguments, status=1)
        assert "older than 7 days" in refused and "postroad timeline" in refused and "--old-too" in refused
    assert desk.values(SCORED) == [] == desk.values(ENDINGS)
    assert "nothing ends, as was asked" in desk("discard", ids["copy"], "--why", "x", "--no-end")
    assert "no end" in desk("discard", ids["garbage"], "--why", "x")
    assert desk.values(ENDINGS) == []
    desk("replay", ids["replayed"], "--old-too")
    desk("discard", ids["discarded"], "--why", "x", "--old-too")
    desk("discard", ids["young"], "--why", "x")
    assert (len(desk.values(SCORED)), len(desk.values(ENDINGS))) == (1, 2)


def test_printing():
    assert safe("Grüße, 株式 [x]") == "Grüße, 株式 [x]"
    assert safe("a\ud800\u2028\x7f\t") == "a\\ud800\\u2028\\u007f\\t"
    assert cut({"a": [1] * 30, "b": None}) == {"a": [*[1] * 20, "... (30 items)"], "b": None}
    assert len(cut({str(n): n for n in range(100)})) == 61
    assert cut("x" * 201).endswith("... (201 characters)")
    assert dump(b"") == [] and dump(b"A\n") == ["000000  41 0a" + " " * 42 + "  A."]
    assert time_of(0) == "1970-01-01 00:00:00" and time_of(1 << 62).endswith(" ms")
