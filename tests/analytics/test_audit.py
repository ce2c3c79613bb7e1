"""The ledger from ClickHouse and from the topics: a removed end, a doubled end and an attempt without a message are each found."""

from dataclasses import replace

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from event_rows import NOON_MS, event, rows

from analytics.audit import from_clickhouse, from_topics
from analytics.sink import Sink
from postroad import intake
from postroad.ledger import Allowed, Count, differences
from topics import admin
from topics.catalogue import ATTEMPTS, BROADCASTS, DEAD_LETTERS, EVENTS, SCHEMAS, SCORED, SUBMISSIONS
from topics.client import Client

MINUTE, HOUR = 60_000, 3_600_000
ALLOWED = Allowed()
SHOP = ("shop", "transactional")


def ids(found):
    return [(one.id, one.state) for one in found]


# -- ClickHouse ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def fill(warehouse):
    def fill(*events):
        sink = Sink(warehouse, "g")
        sink.recover({0: 0})
        sink.write(rows(events))
        return warehouse

    return fill


def whole(id, **fields):
    """A message from its first event to its end."""
    return [
        event(id, **fields),
        event(id, "validated", 5, **fields),
        event(id, "routed", 9, **fields),
        event(id, "delivered", 50, attempt=1, **fields),
    ]


def test_what_is_in_order(fill):
    warehouse = fill(
        *whole("m1"), *whole("m1"), *whole("m2", tenant="other", stream="broadcast"),
        event("w1"), event("w1", "deferred", 5, attempt=1, due_at=NOON_MS + 5 * HOUR),
        event("w2"), event("w2", "held", 5),
        event("w3"), event("w3", "held", 5, due_at=NOON_MS + 9 * HOUR),
        event("w4"), event("w4", "scheduled", 5, due_at=NOON_MS + 9 * HOUR), event("w4", "scored", 9, round=1),
        event("young", accepted_at=NOON_MS + HOUR),
        event("m1", "reported", 9 * HOUR, reason="dsn"), event("unknown", "reported", 5, stage="audit", reason="orphan"),
    )  # fmt: skip
    report = from_clickhouse(warehouse, 0, "", NOON_MS + HOUR)
    assert report.ok and report.explained == []
    assert report.counts == {SHOP: Count(6, 1, 5), ("other", "broadcast"): Count(1, 1, 0)}
    assert report.settled == {SHOP: (5, 1), ("other", "broadcast"): (1, 1)}
    assert from_clickhouse(warehouse, 0, "other", NOON_MS + HOUR).counts == {("other", "broadcast"): Count(1, 1, 0)}
    assert from_clickhouse(warehouse, NOON_MS + 1, "", NOON_MS + HOUR).counts == {SHOP: Count(1, 0, 1)}


def test_clickhouse_finds_a_removed_end_a_doubled_end_and_an_attempt_without_a_message(fill):
    warehouse = fill(
        *whole("good"), *whole("removed")[:-1],
        *whole("doubled"), event("doubled", "bounced", 70, attempt=2, round=1),
        *whole("unknown")[2:],
        event("released"), event("released", "held", 5), event("released", "released", 9),
        event("overdue"), event("overdue", "deferred", 5, attempt=1, due_at=NOON_MS + HOUR),
    )  # fmt: skip
    report = from_clickhouse(warehouse, 0, "", NOON_MS + HOUR + 10 * MINUTE + 10, Allowed(sending_ms=HOUR))
    assert sorted(ids(report.orphans)) == [("overdue", "deferred"), ("released", "released"), ("removed", "routed")]
    assert ids(report.two_ends) == [("doubled", "delivered (0:1) and bounced (1:2)")]
    assert ids(report.strays) == [("unknown", "delivered")]
    assert report.orphans[0].since_ms in (NOON_MS + 5, NOON_MS + 9) and report.orphans[0].tenant == "shop"
    assert report.counts == {SHOP: Count(5, 2, 3)}
    assert from_clickhouse(warehouse, 0, "' OR 1 = 1 --", NOON_MS + HOUR).counts == {}
    early = from_clickhouse(warehouse, 0, "", NOON_MS + 9 * MINUTE)
    assert early.orphans == early.strays == [] and len(early.two_ends) == 1


def test_only_suspects_are_read(fill, monkeypatch):
    warehouse = fill(*[one for n in range(50) for one in whole(f"m{n}")], event("lost"))
    read = []
    query = warehouse.query
    monkeypatch.setattr(warehouse, "query", lambda *given: read.append(query(*given)) or read[-1])
    assert ids(from_clickhouse(warehouse, 0, "", NOON_MS + HOUR).orphans) == [("lost", "accepted")]
    assert [len(answer.rows) for answer in read] == [1, 1]


# -- topics --------------------------------------------------------------------------------------------------------------
def submission(id, *recipients, **fields):
    return {
        "tenant": "shop", "submission_id": id, "stream": "transactional", "sender": {"address": "a@shop.test"}, "text": "x",
        "recipients": [{"address": address} for address in recipients or ("ann@there.test",)], **fields,
    }  # fmt: skip


@pytest.fixture
async def road(installation):
    installation = replace(installation, partitions=2)
    await admin.ensure(installation, [SUBMISSIONS, BROADCASTS, EVENTS, ATTEMPTS, DEAD_LETTERS, SCHEMAS])
    async with Client(installation) as client:
        yield Road(client)


class Road:
    """Writes what the stages would."""

    def __init__(self, client):
        self.client, self.now = client, 0

    async def submit(self, id, *recipients, **fields):
        """Ids of the messages, as ingest gives them; and the place."""
        value = submission(id, *recipients, **fields)
        place = await self.client.send(SUBMISSIONS.send(value))
        self.now = place.timestamp
        decoded = (await self.client.codec(SUBMISSIONS)).encode(value)
        value = (await self.client.codec(SUBMISSIONS)).decode(decoded)
        made = intake.messages(value, None, place.timestamp, f"{place.partition}:{place.offset}", HOUR)
        return made, place

    async def tell(self, message, *kinds):
        for kind, *more in kinds:
            fields = dict(more[0]) if more else {}
            at = self.now + fields.pop("after", 0)
            told = event(
                message["message_id"], kind, accepted_at=message["accepted_at"], tenant=message["tenant"], **fields
            )
            await self.client.send(EVENTS.send({**told, "at": at}))

    async def attempt(self, message):
        await self.client.send(ATTEMPTS.send({"message": message, "at": self.now, "duration_ms": 1, "phase": "done"}))

    async def audit(self, after, since=0, tenant=""):
        return await from_topics(self.client.installation, since, tenant, self.now + after)


END = ("delivered", {"attempt": 1, "after": 50})


async def test_topics_in_order(road):
    (one, two), _ = await road.submit("s1", "ann@there.test", "Ben@there.test", "ANN@there.test")
    for message in (one, two):
        await road.tell(message, ("accepted",), ("routed",), END, END)
        await road.attempt(message)
    await road.submit("unread", stream="broadcast")
    report = await road.audit(MINUTE)
    assert report.ok and report.unreadable == 0
    assert report.counts == {SHOP: Count(2, 2, 0), ("shop", "broadcast"): Count(1, 0, 1)}, (
        "accepted, and nobody has read it yet"
    )
    assert (await road.audit(MINUTE, tenant="else")).counts == {}
    later = await road.audit(11 * MINUTE)
    assert [one.state for one in later.orphans] == ["submitted"]
    assert (await road.audit(MINUTE, since=road.now + 2 * HOUR)).counts == {}


async def test_topics_show_a_removed_end_a_doubled_end_and_an_attempt_without_a_message(road):
    (removed, doubled, good), _ = await road.submit("s1", "r@x.test", "d@x.test", "g@x.test")
    for message in (removed, doubled, good):
        await road.tell(message, ("accepted",), ("routed",))
        await road.attempt(message)
    for message in (doubled, good):
        await road.tell(message, END)
    await road.tell(doubled, ("expired", {"round": 2}))
    stray = {**good, "message_id": "nobody"}
    await road.attempt(stray)
    invented = {**good, "message_id": "invented"}
    await road.tell(invented, ("accepted",), END)
    report = await road.audit(3 * HOUR)
    assert ids(report.orphans) == [(removed["message_id"], "routed")]
    assert ids(report.two_ends) == [(doubled["message_id"], "delivered (0:1) and expired (2:0)")]
    assert sorted(ids(report.strays)) == [("invented", "delivered"), ("nobody", "attempted")]
    assert report.counts == {SHOP: Count(3, 2, 1)}
    assert (await road.audit(MINUTE)).strays == [], "the events may be on their way"


def letter(installation, topic, place, value, **fields):
    return {
        "stage": "ingest", "topic": installation.name(topic), "partition": place[0], "offset": place[1], "timestamp": 1,
        "key": b"k", "value": value, "error": "ValueError", "text": "no", "at": 1, **fields,
    }  # fmt: skip


async def test_an_open_dead_letter_explains_and_one_that_was_replayed_does_for_a_while(road):
    client, installation = road.client, road.client.installation
    (stuck,), _ = await road.submit("s1")
    await road.tell(stuck, ("accepted",))
    message = (await client.codec(SCORED)).encode(stuck)
    first = letter(installation, SCORED, (1, 7), message, stage="suppress")
    await client.send(DEAD_LETTERS.send(first))
    _, place = await road.submit("s2", "a@x.test", "b@x.test")
    second = letter(installation, SUBMISSIONS, place, b"raw")
    await client.send(DEAD_LETTERS.send(second))
    report = await road.audit(HOUR)
    assert report.ok and report.counts == {SHOP: Count(3, 0, 3)}
    assert report.settled == {SHOP: (1, 0)}, "of the two that ingest failed at ClickHouse knows nothing"
    assert [one.letter.partition("-")[2] for one in report.explained] == [
        "mail.scored[1]@7",
        *2 * [f"mail.submissions[{place.partition}]@{place.offset}"],
    ]
    done = {"action": "replayed", "by": "op", "why": "mended", "at": road.now + HOUR, "place": ""}
    for one in (first, second):
        await client.send(DEAD_LETTERS.send({**one, "value": None, "key": None, "resolution": done}))
    await client.send(DEAD_LETTERS.send(first))  # a stage that was done again
    report = await road.audit(HOUR + 5 * MINUTE)
    assert report.ok and report.counts == {SHOP: Count(1, 0, 1)}, "the second is accepted anew, at its new place"
    assert len(report.explained) == 1
    report = await road.audit(HOUR + 11 * MINUTE)
    assert ids(report.orphans) == [(stuck["message_id"], "accepted")] and report.explained == []


async def test_a_discarded_submission_counts_by_its_ends(road):
    made, place = await road.submit("s2", "a@x.test", "b@x.test")
    one = letter(road.client.installation, SUBMISSIONS, place, b"raw")
    done = {"action": "discarded", "by": "op", "why": "spam", "at": road.now, "place": ""}
    await road.client.send(DEAD_LETTERS.send(one))
    await road.client.send(DEAD_LETTERS.send({**one, "value": None, "key": None, "resolution": done}))
    for message in made:
        await road.tell(message, ("accepted",), ("dropped", {"reason": "dead-letter"}))
    report = await road.audit(HOUR)
    assert report.ok and report.counts == {SHOP: Count(2, 2, 0)}


async def test_what_does_not_decode_is_counted_and_stops_nothing(road):
    client = road.client
    for topic in (SUBMISSIONS, BROADCASTS, EVENTS, ATTEMPTS, DEAD_LETTERS):
        for raw in (b"", b"\xc3\x01short", b"\x00\x00\x00\x00\x07abc", b"\xc3\x01" + b"\xff" * 2000):
            await client.send_raw(topic, b"k", raw)
    await client.send_raw(EVENTS, b"k", None)
    (message,), _ = await road.submit("s1")
    await road.submit("s2", "x" * 5000 + "@x.test", text="\0", tags=["t"] * 50)
    await road.submit("s3", *[f"r{n}@x.test" for n in range(1500)])  # ingest makes one message of it, to reject
    await road.tell(message, ("accepted",), END)
    report = await road.audit(MINUTE)
    assert report.ok and report.unreadable == 21
    assert report.counts == {SHOP: Count(3, 1, 2)}


async def test_both_sources_agree_and_what_is_young_is_lag(road, fill):
    made, _ = await road.submit("s1", "a@x.test", "b@x.test")
    for message in made:
        await road.tell(message, ("accepted",), END)
    kept = []
    for message in made:
        kept += [
            event(
                message["message_id"],
                kind,
                at - message["accepted_at"],
                accepted_at=message["accepted_at"],
                attempt=attempt,
            )
            for kind, at, attempt in (("accepted", road.now, 0), ("delivered", road.now + 50, 1))
        ]
    warehouse = fill(*kept[:-1])  # events_sink has not stored the last
    for after, differ in ((MINUTE, 0), (11 * MINUTE, 1)):
        topics, clickhouse = await road.audit(after), from_clickhouse(warehouse, 0, "", road.now + after)
        assert len(differences(topics, clickhouse)) == differ
    assert (
        "topics has 2 accepted and 2 ended, clickhouse has 2 accepted and 1 ended" in differences(topics, clickhouse)[0]
    )


async def test_a_submission_that_retention_took_is_not_missed(road):
    (old,), place = await road.submit("s1")
    await road.tell(old, ("accepted",), END)
    assert (await road.audit(HOUR)).counts == {SHOP: Count(1, 1, 0)}
    kafka = AIOKafkaAdminClient(bootstrap_servers=road.client.installation.bootstrap)
    await kafka.start()
    name = road.client.installation.name(SUBMISSIONS)
    await kafka.delete_records({TopicPartition(name, place.partition): RecordsToDelete(before_offset=place.offset + 1)})
    await kafka.close()
    report = await road.audit(HOUR)
    assert report.ok and report.counts == {SHOP: Count(1, 1, 0)}
