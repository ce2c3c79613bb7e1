"""Every stage and every topic that it reads, against hostile records: a dead letter or an end, and the next good one passes.

The records go through the real runners on a real RocksDB; the broker, DNS, MX hosts and ClickHouse are scripted.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections import defaultdict
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from builders import HOUR_MS, NOW, RAW, attempt, content, decision, message, routed, scheduled, submission
from faust.types import TP

import avro
from agents import events_sink, worker
from agents.application import build
from avro import samples
from postroad import events, ids
from postroad.checks import check_content
from postroad.returnpath import named
from postroad.settings import Settings
from topics.catalogue import DEAD_LETTERS, ENDINGS, EVENTS, REPORTS, SCORED
from topics.codec import Codec, DecodeError
from topics.consumer import Batch
from topics.effects import EffectRunner
from topics.installation import Installation
from topics.outputs import Outputs
from topics.pure import StageRunner
from topics.stage import Unstorable
from topics.unreadable import Unreadable

STAGES = [import_module(f"agents.{name}").stage for name in worker.STAGES]
READS = [(stage, topic) for stage in STAGES for topic in stage.reads]
LETTERS, CODECS = Codec("DeadLetter"), {topic: Codec(topic.schema) for _, topic in READS}
SPEAK = {"ingest", "validate", "score", "route", "send", "classify"}  # a good record of theirs has outputs at once
_numbers = itertools.count(1)


# -- records ---------------------------------------------------------------------------------------------------------


def good(topic: Any, **fields: Any) -> Any:
    """A record with something in every field that matters, of a message of its own."""
    number = next(_numbers)
    id = ids.message_id(NOW, "acme", f"s{number}", "0:0", "r@there.test")
    given: dict[str, Any] = {
        "message_id": id,
        "tags": ["t"],
        "metadata": {"a": "b"},
        "top": b"",
        "round": 0,
        "attempt": 0,
    }
    match topic.schema:
        case "Submission":
            made = submission(
                submission_id=f"s{number}", headers=[{"name": "X-A", "value": "b"}], reply_to=[{"address": "a@acme.test"}],
                attachments=[{"filename": "a.pdf", "content_type": "application/pdf", "content": b"%PDF", "content_id": "c"}],
                recipients=[{"address": "r@there.test", "name": "R", "variables": {"a": "b"}}], html="<p>{{a}}</p>",
                tags=["t"], metadata={"a": "b"}, send_at=NOW, expires_at=NOW + HOUR_MS, dedupe_id=f"d{number}", egress_pool="default",
            )  # fmt: skip
        case "Message":
            made = routed(**given)
        case "Attempt":
            made = attempt(451, "Greylisted, come back", "4.7.1", "rcpt", message=routed(**given))
        case "Report":
            made = {"report_id": f"r{number}", "received_at": NOW, "mail_from": "", "rcpt_to": Settings().return_paths().sign(id, "acme.test"),
                    "content": content(b"Content-Type: message/delivery-status\n\nFinal-Recipient: rfc822; r@there.test\n"
                                       b"Action: failed\nStatus: 5.1.1\n")}  # fmt: skip
        case "Scheduled":
            made = scheduled(NOW + HOUR_MS, **given)
        case "Decision":
            made = decision("cancel", message_id=id)
        case "Ending":
            made = events.ending(message(**given), "dropped", NOW, "suppress", "suppressed")
        case "Event":
            made = events.event(routed(**given), "accepted", NOW, "ingest")
        case "Reputation":
            made = {"subject": f"tenant:t{number}", "partition": 0, "at": NOW, "buckets": [
                {"at": NOW - NOW % HOUR_MS, "hours": 1, "sent": 200, "delivered": 150, "deferred": 1, "hard": 50, "soft": 0, "complained": 0}]}  # fmt: skip
        case "Suppression":
            made = {"recipient": f"r{number}@there.test", "tenant": "", "reason": "manual", "at": NOW, "evidence": "e"}
        case "Notification":
            made = {
                "notification_id": f"evt_{number}",
                "webhook_id": "wh_1",
                "tenant": "acme",
                "type": "message.bounced",
                "at": NOW,
            }
        case "Reschedule":
            made = {"message_id": id, "tenant": "acme", "send_at": NOW + HOUR_MS, "by": "key k1", "at": NOW}
        case other:
            raise AssertionError(f"no good record of {other}: add one, so that its stage is tried")
    return {**made, **fields}


def undecodable(topic: Any) -> dict[str, bytes | None]:
    """Bytes that are no record of the topic."""
    whole = {"kind": "delivered"} if topic is EVENTS else {}  # of other kinds notify reads no more than the head
    raw = CODECS[topic].encode(good(topic, **whole))
    other = "Tenant" if topic.schema != "Tenant" else "Event"
    return {
        "no value": None,
        "empty": b"",
        "text": b'{"tenant": "acme"}',
        "nul bytes": bytes(1000),
        "cut in its header": raw[:7],
        "cut at its end": raw[:-1],
        "cut in the middle": raw[: len(raw) // 2],
        "more behind it": raw + b"\0",
        "wrong fingerprint": b"\xc3\x01" + b"\x11" * 8 + raw[10:],
        "registry's id without a registry": b"\0\0\0\0\x07" + raw[10:],
        "record of another topic": Codec(other).encode(samples.sample(avro.load(other), "full")),
        "endless text": raw[:10] + b"\xfe" * 9 + b"\x01",
        "text that is no UTF-8": raw[:10] + b"\x08\xff\xfe\xfd\xfc" + raw[10:],
        "8 MiB of it": b"\xff" * (8 << 20),
        "millions of items": raw[:10] + bytes(300 << 10),
    }


HUGE = "x" * 600_000
TEXTS = (
    "",
    "\0",
    "a\r\nBcc: x@evil.test",
    "\u202egpj.exe",
    "../../etc/passwd",
    "é" * 3000,
    HUGE,
    "{{a}}" * 2000,
    "sha256:" + "0" * 64,
)
NUMBERS = (-1, 0, -(1 << 31), (1 << 31) - 1, -(1 << 63), (1 << 63) - 1)
DEEP = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(3000))
BYTES = (
    b"", b"\0" * 100, b"\xff\xfe" * 50_000, DEEP, b"From: a@acme.test\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
    b"Content-Type: text/html\r\n\r\n&#" + b"9" * 5_000, b'Content-Disposition: attachment; filename="' + b"a" * 100_000 + b'.zip"\r\n\r\nPK',
    b"Content-Type: text/plain; charset=-punycode\r\n\r\n" + b"a-" + b"zzzz9" * 20_000, b"\r" * 1000,
    b"Content-Type: message/delivery-status\r\n\r\n" + b"Final-Recipient: \xff\r\n\r\n" * 5_000,
)  # fmt: skip


def variants(value: Any) -> Any:
    """Hostile values in place of one."""
    match value:
        case bool():
            return (not value,)
        case int():
            return NUMBERS
        case float():
            return (float("nan"), float("inf"), -1e300)
        case str():
            return TEXTS
        case bytes():
            return BYTES
        case list():
            return ([], value * 1100)
        case dict() if all(isinstance(item, str) for item in value.values()):
            return ({}, {f"k{n}": "v" for n in range(300)}, {HUGE: "x"})
    return ()


def bent(value: Any, path: tuple[Any, ...] = ()) -> Any:
    """(path, copy of `value` with something hostile there) for every place in it."""
    for other in variants(value):
        yield path, other
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            for where, inner in bent(item, (*path, key)):
                made = copy.copy(value)
                made[key] = inner
                yield where, made


def hostile_values(topic: Any) -> Any:
    """(path, raw) of records of the topic's schema with hostile contents; bodies have the hash that they say."""
    whole = CODECS[topic].decode(CODECS[topic].encode(good(topic)))
    raws = (
        (("raw",), {**whole, "raw": raw, "text": None, "html": None, "subject": ""}) for raw in BYTES if "raw" in whole
    )
    for path, value in itertools.chain(bent(whole), raws):
        if not isinstance(value, dict):
            continue
        holder = value.get("message", value)
        if path[-1:] == ("inline",) and "inline" in (body := holder["content"]):
            holder = {**holder, "content": content(body["inline"])}
            value = {**value, "message": holder} if "message" in value else holder
        try:
            yield path, CODECS[topic].encode(value)
        except Exception:  # it is no record of the schema: nobody could send it
            continue


# -- a stage on the bench --------------------------------------------------------------------------------------------


class Consumer:
    """A partition that stays ours."""

    def __init__(self) -> None:
        self.finished = 0

    def is_current(self, work: Any) -> bool:
        return True

    owns = is_current

    def holds_lease(self) -> bool:
        return True

    async def begin_effects(self, work: Any) -> bool:
        return True

    may_finish = until_current = begin_effects

    def is_oldest(self, batch: Any) -> bool:
        return True

    def finish(self, batch: Any) -> None:
        self.finished += 1

    def is_half_full(self, tp: Any) -> bool:
        return False

    def sought(self) -> set[Any]:
        return set()

    def committed(self, tps: Any) -> dict[Any, int]:
        return {}

    def nothing(self, *args: Any) -> None:
        pass

    abandon = hold = release = advance = nothing


class Kept(Outputs):
    """Outputs into a log in memory."""

    logs: dict[tuple[str, int], list[Any]]

    async def send(self, topic: str, partition: int, items: list[Any]) -> int:
        log = self.logs[topic, partition]
        log.extend(items)
        return len(log) - len(items)


class Bench:
    """One stage as a worker runs it."""

    def __init__(self, stage: Any, folder: Any, services: Any) -> None:
        installation = Installation("127.0.0.1:1", partitions=1, data_dir=folder)
        self.app = build(stage, installation, services, clock=lambda: NOW)
        self.runner, self.stage, self.offsets = self.app.runner, stage, defaultdict[str, int](int)
        self.runner.__dict__["consumer"] = Consumer()
        self.logs: dict[tuple[str, int], list[Any]] = defaultdict(list)
        wiring = self.runner.wiring
        for codec in wiring.codecs.values():
            codec._look = self._nothing_published

        def outputs() -> Kept:
            made = Kept(SimpleNamespace(max_batch_size=1 << 20), wiring.partitions, wiring.max_bytes)
            made.logs = self.logs
            return made

        self.runner.outputs = outputs
        self.app.add_future = asyncio.ensure_future

    async def _nothing_published(self) -> None:
        """In place of a look into control.schemas."""

    def record(self, topic: Any, raw: bytes | None, **fields: Any) -> Any:
        offset = self.offsets[topic.name]
        self.offsets[topic.name] += 1
        given = {"topic": topic.name, "partition": 0, "offset": offset, "timestamp": NOW, "key": b"acme", "value": raw,
                 "headers": ()}  # fmt: skip
        return SimpleNamespace(**{**given, **fields})

    async def run(self, *records: Any) -> None:
        """One batch. Raises what would end the worker; TimeoutError for a batch that is held."""
        batch = Batch(TP(records[0].topic, 0), list(records), 1)
        async with asyncio.timeout(10):
            if isinstance(self.runner, StageRunner):
                assert await self.runner._run(batch)
            elif isinstance(self.runner, EffectRunner):
                self.runner._accept(batch)
                while (
                    self.runner._windows[batch.tp].order or not self.runner._windows[batch.tp].low >= batch.next_offset
                ):
                    await self.runner._cycle()
                    await asyncio.sleep(0)
            else:
                await self.runner._flush([batch])

    @property
    def dead(self) -> list[Any]:
        return [LETTERS.decode(item[1]) for item in self.logs[DEAD_LETTERS.name, 0]]

    @property
    def written(self) -> int:
        """Outputs that are no dead letters."""
        names = [topic.name for topic in self.stage.writes if topic is not DEAD_LETTERS]
        return sum(len(log) for (name, _), log in self.logs.items() if name in names)

    async def passes(self, topic: Any, what: str) -> None:
        """A good record goes its way."""
        if topic is REPORTS:
            value = good(REPORTS)
            ended = events.ending(message(message_id=named(value["rcpt_to"])), "dropped", NOW, "x", "x")
            await self.run(self.record(ENDINGS, CODECS[ENDINGS].encode(ended)))
        else:
            value = good(topic)
        dead, written = len(self.dead), self.written
        await self.run(self.record(topic, CODECS[topic].encode(value), key=topic.key(value).encode()))
        assert [(d["error"], d["text"]) for d in self.dead[dead:]] == [], what
        silent = self.stage.name not in SPEAK and topic is not SCORED
        assert silent or self.written > written, f"after {what} a good record of {topic.name} has no outcome"


def unread(rows):
    """What a sink cannot read of rows that come as bytes."""
    found = []
    for partition, offset, value in rows:
        try:
            if isinstance(value, bytes):
                CODECS[EVENTS].of_body(value)
        except DecodeError as error:
            found.append(Unstorable(partition, offset, str(error)))
    return found


@pytest.fixture
def bench(request, tmp_path, services, monkeypatch):
    monkeypatch.setattr("postroad.departure.PATIENCE_MS", 0)  # no real waiting
    sink = SimpleNamespace(recover=lambda committed: None, write=unread)
    monkeypatch.setattr(events_sink, "_sink", lambda services: sink)
    services.messages_at_once = lambda key: 100
    services.settings = services.settings.model_copy(update={"clickhouse": "clickhouse://there", "clickhouse_http": ""})
    services.installation = Installation("127.0.0.1:1")
    return Bench(request.param, tmp_path, services)


pairs = pytest.mark.parametrize(
    ("bench", "topic"), READS, indirect=["bench"], ids=[f"{stage.name}-{topic.name}" for stage, topic in READS]
)


@pairs
async def test_bytes_that_are_no_record_are_dead_letters_as_they_were(bench, topic):
    await bench.passes(topic, "nothing")
    for what, raw in undecodable(topic).items():
        before = len(bench.dead)
        await bench.run(
            bench.record(topic, raw), bench.record(topic, raw, key=None, headers=(("h", None), ("é", b"\xff")))
        )
        letters = bench.dead[before:]
        assert [(letter["error"], letter["stage"]) for letter in letters] == [("DecodeError", bench.stage.name)] * 2, (
            what
        )
        assert all(letter["value"] == raw and letter["text"] for letter in letters), what
    lost = Unreadable(topic.name, 0, bench.offsets[topic.name], -1, "BadGzipFile: no gzip", b"as it was")
    bench.offsets[topic.name] += 1
    await bench.run(lost)
    assert (bench.dead[-1]["value"], bench.dead[-1]["timestamp"]) == (b"as it was", -1)
    await bench.passes(topic, "bytes that are no record")


@pairs
async def test_odd_keys_times_and_headers_stop_nothing(bench, topic):
    for fields in (
        {"key": None}, {"key": b""}, {"key": b"\xff\xfe"}, {"key": b"k" * 500_000}, {"timestamp": -1}, {"timestamp": 0},
        {"timestamp": (1 << 63) - 1}, {"headers": tuple((f"h{n}", b"x" * 100) for n in range(2000))},
        {"headers": (("postroad-performed", b"\xff"), ("", b""))},
    ):  # fmt: skip
        await bench.run(bench.record(topic, CODECS[topic].encode(good(topic)), **fields))
        await bench.passes(topic, str(fields)[:80])


@pairs
async def test_hostile_contents_of_valid_records_have_an_end_or_a_dead_letter(bench, topic):
    """Every field of the schema in turn; one batch for all that is put in its place."""
    for path, found in itertools.groupby(hostile_values(topic), key=lambda pair: pair[0]):
        records = [bench.record(topic, raw) for _, raw in found]
        before = len(bench.dead)
        await bench.run(*records)
        for letter in bench.dead[before:]:
            assert letter["text"], f"{path}: {letter['error']} says nothing"
    await bench.passes(topic, "all of them")


async def test_the_good_records_are_good():
    """What the matrix bends is whole: each has every field of its schema that is no plain default."""
    for topic in {topic for _, topic in READS}:
        assert CODECS[topic].decode(CODECS[topic].encode(good(topic)))
    assert check_content(RAW) is None
