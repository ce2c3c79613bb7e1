import random

import pytest
from event_rows import NOON_MS, event, rows

from analytics.clickhouse import WarehouseError
from analytics.rows import MAX_TEXT
from analytics.sink import NotRecovered, PlaceTaken, Sink
from postroad.masking import Masking


class Flaky:
    """A warehouse whose inserts fail now and then: before anything is stored, or after all of it is."""

    def __init__(self, warehouse, chance, seed):
        self._warehouse, self._chance, self._random, self.failures = warehouse, chance, random.Random(seed), 0

    def __getattr__(self, name):
        return getattr(self._warehouse, name)

    def insert(self, table, columns, query_id=None):
        before, after = self._random.random() < self._chance / 2, self._random.random() < self._chance
        self.failures += before or after
        if before:
            raise WarehouseError("lost before")
        self._warehouse.insert(table, columns, query_id)
        if after:
            raise WarehouseError("lost after")


def count(warehouse):
    return warehouse.query("SELECT count(), uniqExact(k_partition, k_offset) FROM events").rows[0]


def test_every_row_is_stored_once_whatever_fails(warehouse):
    """Failures before and after the insert, stale commits, batches cut anew, three partitions."""
    topic = {partition: rows([event(f"m{partition}-{n}") for n in range(300)], partition) for partition in range(3)}
    chance = random.Random(7)
    flaky = Flaky(warehouse, 0.4, seed=11)
    committed = dict.fromkeys(topic, 0)
    position = dict(committed)
    sink, recovered = Sink(flaky, "g"), False
    while any(position[partition] < 300 for partition in topic):
        if not recovered:
            position = dict(committed)
            sink.recover(committed)
        batch = []
        for partition, records in topic.items():
            end = position[partition] + chance.randrange(40)
            batch += records[position[partition] : end]
            position[partition] = min(end, 300)
        try:
            assert sink.write(batch) == []
            recovered = chance.random() > 0.1  # now and then a new life
        except WarehouseError:
            recovered = False
            continue
        if chance.random() < 0.5:
            committed = dict(position)
        if not recovered:
            sink = Sink(flaky, "g")
    assert flaky.failures > 5
    assert count(warehouse) == (900, 900)


def test_a_batch_may_be_given_twice(warehouse):
    sink = Sink(warehouse, "g")
    sink.recover({0: 0})
    records = rows([event(f"m{n}") for n in range(10)])
    sink.write(records[:6])
    sink.write(records[3:] + records[:5] + records)
    assert count(warehouse) == (10, 10)


def test_write_after_an_error_needs_recover(warehouse):
    sink = Sink(Flaky(warehouse, 2, seed=1), "g")
    with pytest.raises(NotRecovered):
        sink.write(rows([event()]))
    sink.recover({0: 0})
    with pytest.raises(WarehouseError):
        sink.write(rows([event()]))
    with pytest.raises(NotRecovered):
        sink.write(rows([event()]))
    sink.recover({0: 0})
    with pytest.raises(NotRecovered, match=r"\[5\]"):
        sink.write(rows([event()], partition=5))


def test_recover_waits_for_inserts_of_its_group_before_it_looks(warehouse):
    """The insert of a dead client lands while `recover` waits, and is seen."""
    late = Sink(warehouse, "g")
    late.recover({0: 0})

    class Waiting(Flaky):
        def quiesce(self, prefix, timeout_s=60.0):
            assert prefix == "g:"
            late.write(rows([event("m0"), event("m1")]))

    sink = Sink(Waiting(warehouse, 0, seed=1), "g")
    sink.recover({0: 0})
    sink.write(rows([event("m0"), event("m1"), event("m2")]))
    assert count(warehouse) == (3, 3)


def test_nothing_is_written_for_nothing(warehouse):
    sink = Sink(warehouse, "g")
    sink.recover({})
    assert sink.write([]) == []


def test_a_topic_made_anew_is_noticed(warehouse):
    sink = Sink(warehouse, "g")
    sink.recover({0: 0})
    sink.write(rows([event("old-1"), event("old-2")]))
    again = Sink(warehouse, "g")
    again.recover({0: 0})
    with pytest.raises(PlaceTaken, match="made anew"):
        again.write(rows([event("new-1")]))


def test_a_row_keeps_every_field(warehouse):
    full = event(
        "m1", "deferred", after_ms=90_123, tenant="acme", submission_id="s-9", stream="broadcast", round=2, attempt=3,
        recipient="jürgen@münchen.example", recipient_domain="xn--mnchen-3ya.example", stage="classify", reason="greylisted",
        rule="4xx", detail="Zeile 1\nZeile 2", site="gmail", pool="p1", source="192.0.2.1", mx_host="mx.example",
        mx_address="2001:db8::1", reply_code=451, enhanced_code="4.7.1", reply="451 später", tls="TLSv1.3", duration_ms=812,
        possible_duplicate=True, size=5_000_000_000, due_at=NOON_MS + 600_000, tags=["a", "ü"], metadata={"order": "7", "x": ""},
    )  # fmt: skip
    sink = Sink(warehouse, "g", now=lambda: 1_800_000_000)
    sink.recover({4: 17})
    sink.write([(4, 17, full)])
    (row,) = warehouse.query(
        "SELECT *, latency_ms, toUnixTimestamp(ts) * 1000 + ts_ms AS at, toUnixTimestamp(ingested_at) AS now FROM events"
    ).dicts()
    same = ("tenant", "submission_id", "stream", "kind", "round", "attempt", "recipient", "recipient_domain", "stage", "reason", "rule",
            "detail", "site", "pool", "source", "mx_host", "mx_address", "reply_code", "enhanced_code", "reply", "tls", "duration_ms",
            "possible_duplicate", "size", "at")  # fmt: skip
    assert {key: row[key] for key in same} == {key: full[key] for key in same}
    assert (row["k_partition"], row["k_offset"], row["latency_ms"], row["now"]) == (4, 17, 90_123, 1_800_000_000)
    assert row["due_at"].timestamp() * 1000 == full["due_at"]
    assert (list(row["tags"]), list(row["metadata_keys"]), list(row["metadata_values"])) == (
        ["a", "ü"],
        ["order", "x"],
        ["7", ""],
    )


def test_defaults_may_be_left_out(warehouse):
    short = {
        key: value
        for key, value in event().items()
        if key in ("message_id", "tenant", "submission_id", "stream", "kind", "at", "accepted_at", "recipient", "stage")
    }
    sink = Sink(warehouse, "g")
    sink.recover({0: 0})
    assert sink.write([(0, 0, short), (0, 1, event("m2"))]) == []
    assert count(warehouse) == (2, 2)


def test_what_cannot_be_stored_is_handed_back_and_the_rest_is_stored(warehouse):
    bad = {
        "time before 1970": event(at=-1), "time after 2106": event(at=2**32 * 1000), "accepted before 1970": event(accepted_at=-5, at=5),
        "kind of the future": event(kind="teleported"), "stream of the future": event(stream="carrier pigeon"),
        "no id": event(""), "endless id": event("m" * 256), "no tenant": event(tenant=""), "surrogate": event(reply="\ud800"),
        "surrogate in tags": event(tags=["\udfff"]), "surrogate in metadata": event(metadata={"\ud800": ""}), "not a text": event(site=5),
        "not a number": event(size="big"), "no time": event(at=None), "field missing": {"message_id": "x"}, "no record": None, "due": event(due_at="soon"),
        "metadata": event(metadata=["x"]), "tags": event(tags=[1]), "no kind": event(kind=["accepted"]),
    }  # fmt: skip
    good = [event(f"m{n}") for n in range(50)]
    records = [(0, n * 2 + 1, each) for n, each in enumerate(bad.values())] + [
        (0, n * 2, each) for n, each in enumerate(good)
    ]
    sink = Sink(warehouse, "g")
    sink.recover({0: 0})
    rejected = sink.write(sorted(records, key=lambda record: record[1]))
    names = {offset: name for name, (_, offset, _) in zip(bad, records, strict=False)}
    assert {names[each.offset] for each in rejected} == set(bad)
    assert all(each.error for each in rejected)
    assert count(warehouse) == (50, 50)


def test_hostile_values_are_stored_as_they_are_or_clamped(warehouse):
    hostile = event(
        "m\0'\\", reply="a\0b'\\\n\t", detail="x" * 1_000_000, tags=["t" * 5000, "", "\0"], metadata={"k" * 5000: "v" * 5000}, reply_code=-7,
        attempt=10**9, size=2**80, duration_ms=-1, due_at=-1,
    )  # fmt: skip
    sink = Sink(warehouse, "g")
    sink.recover({0: 0})
    assert sink.write([(0, 0, hostile)]) == []
    (row,) = warehouse.query("SELECT * FROM events").dicts()
    assert (row["message_id"], row["reply"]) == ("m\0'\\", "a\0b'\\\n\t")
    assert (row["detail"], list(row["tags"])) == ("x" * MAX_TEXT, ["t" * MAX_TEXT, "", "\0"])
    assert (list(row["metadata_keys"]), list(row["metadata_values"])) == (["k" * MAX_TEXT], ["v" * MAX_TEXT])
    assert (row["reply_code"], row["attempt"], row["size"], row["duration_ms"]) == (0, 65535, 2**63 - 1, 0)
    again = Sink(warehouse, "g")
    again.recover({0: 0})
    assert again.write([(0, 0, hostile)]) == []
    assert count(warehouse) == (1, 1)


def test_events_of_very_many_days_fit_in_one_batch(warehouse):
    """A server refuses one insert into over 100 partitions."""
    sink = Sink(warehouse, "g")
    sink.recover({0: 0})
    assert sink.write(rows([event(f"m{n}", after_ms=n * 86_400_000) for n in range(230)])) == []
    assert count(warehouse) == (230, 230)


def test_what_is_about_no_message_is_stored_and_nothing_else_without_an_id(warehouse):
    sink = Sink(warehouse, "g")
    sink.recover({0: 0})
    noted = event("", "noted", tenant="", reason="report-forged", evidence="r1")
    rejected = sink.write(rows([event("m1"), noted, event(""), event("m2", tenant=""), event("m3")]))
    assert [row.offset for row in rejected] == [2, 3]
    assert count(warehouse) == (3, 3)
    assert warehouse.query("SELECT reason, evidence FROM events WHERE kind = 'noted'").rows == [("report-forged", "r1")]


@pytest.mark.parametrize("policy", ["hash", "none"])
def test_a_policy_keeps_addresses_out_of_every_table(warehouse, policy):
    sink = Sink(warehouse, "g", masking=Masking(policy, "0123456789abcdef"))
    sink.recover({0: 0})
    texts = {
        "reply": "550 <ann@example.org> unknown",
        "detail": "said to ann@example.org",
        "evidence": "ann@example.org",
    }
    sink.write(
        rows([event("m1", "bounced", attempt=1, **texts), event("m2"), event("m3", recipient="bob@example.org")])
    )
    sink.roll()
    for table in ("events", "messages", "hours"):
        assert "@" not in str(warehouse.query(f"SELECT * FROM {table}").rows)
    (people,) = warehouse.query("SELECT uniqExact(recipient) FROM events").rows
    assert people == ((2,) if policy == "hash" else (1,))
    assert warehouse.query("SELECT DISTINCT recipient_domain FROM events").rows == [("example.org",)]
