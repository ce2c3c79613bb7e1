"""The chaos plan, and that the account of a run finds every kind of error. No broker, no processes."""

from __future__ import annotations

import io
import json
from collections import Counter
from itertools import islice
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError, ProducerClosed

from loadtest.chaos import producer, reading
from loadtest.chaos.account import Account, Sent, accepted, compare, put_aside, reports
from loadtest.chaos.load import SETTINGS, SHAPING, SHARDS, configured, suppressed
from loadtest.chaos.plan import DOMAINS, KINDS, NEVER, OTHERS, STRANGER, TENANTS, plan, sender
from loadtest.chaos.reading import Letters
from loadtest.demo.ledger import Life
from loadtest.mxfarm import Receipt
from postroad.ids import message_id
from postroad.intake import distinct, refusal
from postroad.ledger import Count, Finding, Report
from postroad.settings import Settings
from postroad.shaping.policy import parse
from topics.catalogue import SUBMISSIONS, Topic
from topics.client import Place
from topics.installation import Installation
from topics.outputs import partition_for
from topics.testing import ScriptedRecord

AT = 1_800_000_000_000
ID = message_id(AT, "t", "s", "0:1", "a@shop.test")
SENT = Sent(acknowledged={ID: "plain"})
DELIVERED = Life(accepted=True, ends=["delivered/delivered"])
FLAGGED = Life(accepted=True, ends=["delivered/delivered"], flagged=True)
NO_LETTERS = Letters(set(), {}, set(), set(), set())


def receipt(id: str = ID, *, answered: bool = True, time: int = AT) -> Receipt:
    return Receipt("a@shop.test", "accept", f"b-{id}@x.example", time, "", "", 0, 0, answered, False, "", "")


def counted(kafka: Life | None, *receipts: Receipt, clickhouse: Life | None = None, early_ms: int = 0) -> Account:
    """The account of one acknowledged message; ClickHouse says what Kafka says unless it is given."""
    stored = clickhouse or kafka
    return compare(SENT, {ID: kafka} if kafka else {}, {ID: stored} if stored else {}, receipts, early_ms=early_ms)


def errors(found: Account) -> tuple[int, int, int, int]:
    return len(found.lost), len(found.two_ends), len(found.duplicates), len(found.unflagged)


# -- plan --------------------------------------------------------------------------------------------------------------


def test_a_seed_makes_the_same_plan_with_exactly_as_many_messages() -> None:
    one = list(plan(3000, 1))
    assert one == list(plan(3000, 1))
    assert one != list(plan(3000, 2))
    assert sum(planned.messages for planned in one) == 3000
    assert [planned.place for planned in one] == list(range(len(one)))


def test_the_plan_is_made_as_it_is_read() -> None:
    assert len(list(islice(plan(10**12, 1), 5))) == 5


def test_the_plan_has_every_kind_both_streams_and_all_tenants_and_most_go_to_willing_sites() -> None:
    kinds, streams, tenants, domains = Counter[str](), Counter[str](), set(), Counter[str]()
    for planned in plan(8000, 3):
        one = planned.submission
        kinds[planned.kind] += 1
        streams[one.get("stream", "transactional")] += planned.messages
        tenants.add(one["tenant"])
        domains.update(recipient["address"].rpartition("@")[2] for recipient in one["recipients"])
        assert planned.messages <= 50
        assert len(distinct(one["recipients"])) == planned.messages
    assert kinds.keys() == {kind for kind, _, _ in KINDS}
    assert min(streams.values()) > 2000
    assert tenants == {*TENANTS, STRANGER}
    willing = sum(domains[domain] for domain in (*DOMAINS, *OTHERS))
    assert 0.85 < willing / 8000 < 0.95
    assert all(domains[domain] > 100 for domain in DOMAINS)


def test_repeats_come_behind_what_they_repeat() -> None:
    first: dict[str, int] = {}
    pairs = 0
    for planned in plan(8000, 3):
        if planned.kind in ("same-id", "dedupe-reject", "dedupe-replace"):
            id = planned.submission.get("dedupe_id") or planned.submission["submission_id"]
            if id in first:
                pairs += 1
                assert planned.place - first[id] >= 50
                assert ("replace" in planned.kind) == (planned.submission.get("dedupe_policy") == "replace")
            first.setdefault(id, planned.place)
    assert pairs > 20


def test_submissions_are_refused_only_where_they_are_meant_to_be() -> None:
    tenants = {tenant["tenant"]: tenant for tenant in configured()[0]}
    for planned in plan(1500, 4):
        one = planned.submission
        problem = refusal(one, tenants.get(one["tenant"]), SUBMISSIONS.key(one).encode(), AT)
        assert (problem is not None) == (one["tenant"] == STRANGER), problem


def test_every_partition_has_work() -> None:
    for partitions in (4, 8):
        for keys in (TENANTS, DOMAINS, [f"accept.test#{n}" for n in range(SHARDS)]):
            used = {partition_for(key.encode(), partitions) for key in keys}
            assert len(used) >= partitions - 1
    assert len({partition_for(f"accept.test#{n}".encode(), 4) for n in range(SHARDS)}) == 4


def test_the_settings_are_settings() -> None:
    Settings(**SETTINGS)
    assert parse(SHAPING, "shaping.toml", Settings(**SETTINGS).limits()).limits("accept.test").shards == SHARDS


def test_tenants_share_two_keys_and_each_list_is_of_one_tenant_or_of_all() -> None:
    tenants, records = configured()
    assert len(tenants) == 20 and len(records) == 40
    assert all(sender(tenant["tenant"]).endswith("@" + tenant["domains"][0]["domain"]) for tenant in tenants)
    assert Counter(entry["tenant"] == "" for entry in suppressed()) == {True: len(NEVER), False: len(TENANTS)}


def test_a_torn_note_is_taken_out(tmp_path: Any) -> None:
    notes = tmp_path / "acknowledged.jsonl"
    assert producer.noted(notes) == set()
    notes.write_text('{"index": 1}\n{"index": 2}\n{"ind')
    assert producer.noted(notes) == {1, 2}
    assert notes.read_text() == '{"index": 1}\n{"index": 2}\n'


class Flaky:
    """A client whose first write of each submission has an unknown outcome; the next one does not work at all."""

    made: list[Flaky] = []
    written: list[Any] = []

    def __init__(self, installation: Installation):
        self.made.append(self)
        self.number, self.closed = len(self.made), False

    async def send(self, output: Any) -> Place:
        if self.closed:
            raise ProducerClosed
        self.written.append(output)
        if self.number < 3:
            raise [KafkaTimeoutError, OSError][self.number - 1]
        return Place(0, len(self.written), AT)

    async def __aexit__(self, *exc: object) -> None:
        self.closed = True


async def test_a_write_without_an_answer_is_made_again_by_another_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producer, "Client", Flaky)
    monkeypatch.setattr(producer, "RETRY_S", 0.0)
    notes = io.StringIO()
    writer = producer.Producer(Installation("127.0.0.1:9"), notes)
    await writer.run(iter(plan(20, 1)), 0)
    lines = [json.loads(line) for line in notes.getvalue().splitlines()]
    assert sorted(line["index"] for line in lines) == list(range(len(lines)))
    assert sum(line["messages"] for line in lines) == 20
    assert writer.again == len(Flaky.written) - len(lines) > 0
    by_id: dict[str, list[Any]] = {}
    for output in Flaky.written:
        by_id.setdefault(output.value["submission_id"], []).append(output)
    assert all(output == tries[0] for tries in by_id.values() for output in tries)
    assert len(Flaky.made) == 3 and all(client.closed for client in Flaky.made)


# -- what was accepted -------------------------------------------------------------------------------------------------


class Log:
    """mail.submissions, scripted."""

    installation = Installation("127.0.0.1:9")

    def __init__(self, *records: tuple[int, int, Any]):
        self.records = records

    async def read(self, topic: Topic[Any]) -> Any:
        for partition, offset, submission in self.records:
            yield ScriptedRecord(topic.name, partition, offset, AT, b"", b""), submission


async def sent_of(log: Log, places: dict[int, tuple[int, int]], letters: Letters = NO_LETTERS, seed: int = 5) -> Sent:
    answers: Any = {i: {"index": i, "partition": p, "offset": o, "timestamp": AT} for i, (p, o) in places.items()}
    return await accepted(log, answers, plan(6, seed), letters)  # type: ignore[arg-type]


def submission(index: int, seed: int = 5) -> Any:
    return next(planned.submission for planned in plan(6, seed) if planned.place == index)


async def test_acknowledged_messages_come_from_answers_and_others_from_the_log() -> None:
    one = submission(0)
    sent = await sent_of(Log((0, 7, one), (0, 8, one)), {0: (0, 7)})
    ids = {
        place: message_id(AT, one["tenant"], one["submission_id"], place, one["recipients"][0]["address"])
        for place in ("0:7", "0:8")
    }
    assert ids["0:7"] in sent.acknowledged and ids["0:8"] not in sent.acknowledged
    assert ids["0:8"] in sent.unacknowledged
    assert sent.missing == []


async def test_what_is_acknowledged_and_not_in_the_log_is_missing() -> None:
    sent = await sent_of(Log(), {0: (0, 7), 1: (0, -1)})
    assert len(sent.missing) == 2


async def test_an_answer_without_a_place_is_found_in_the_log() -> None:
    sent = await sent_of(Log((0, 7, submission(0))), {0: (0, -1)})
    assert sent.missing == [] and sent.unacknowledged == {}
    assert len(sent.acknowledged) == len(submission(0)["recipients"])


async def test_a_submission_that_was_put_back_counts_at_its_new_place() -> None:
    letters = NO_LETTERS._replace(replayed={"mail.submissions[0]@7"})
    sent = await sent_of(Log((0, 7, submission(0)), (0, 9, submission(0))), {0: (0, 7)}, letters)
    assert sent.acknowledged == {} and sent.missing == []
    assert len(sent.unacknowledged) == len(submission(0)["recipients"])


# -- comparison --------------------------------------------------------------------------------------------------------


def test_a_delivery_that_is_there_once_is_no_error() -> None:
    found = counted(DELIVERED, receipt())
    assert errors(found) == (0, 0, 0, 0) and found.differences == []
    assert found.counts["ended in Kafka"] == found.counts["receipts"] == 1


@pytest.mark.parametrize(
    ("kafka", "clickhouse", "receipts"),
    [
        (None, None, []),  # nothing was ever heard of it
        (Life(accepted=True), None, []),  # no end
        (DELIVERED, None, []),  # called delivered, and not there
        (DELIVERED, None, [receipt(answered=False)]),  # called delivered, and the site never said so
        (DELIVERED, Life(accepted=True), [receipt()]),  # the end is not in ClickHouse
        (Life(accepted=True), DELIVERED, [receipt()]),  # nor in Kafka
    ],
)
def test_a_lost_message_is_found(kafka: Life | None, clickhouse: Life | None, receipts: list[Receipt]) -> None:
    found = counted(kafka, *receipts, clickhouse=clickhouse)
    assert found.lost == [ID]
    assert any(line.startswith("lost") for line in found.differences)


def test_an_unacknowledged_record_in_the_log_must_end_too() -> None:
    assert compare(Sent(unacknowledged={ID: "s at 0:1"}), {}, {}, []).lost == [ID]


def test_two_ends_are_found_in_either_ledger() -> None:
    both = Life(accepted=True, ends=["delivered/delivered", "expired/expired"])
    assert counted(both, receipt(), clickhouse=DELIVERED).two_ends == [ID]
    assert counted(DELIVERED, receipt(), clickhouse=both).two_ends == [ID]


def test_a_second_receipt_is_a_duplicate_and_an_event_must_admit_it() -> None:
    assert errors(counted(FLAGGED, receipt(), receipt(), receipt())) == (0, 0, 2, 0)
    assert errors(counted(DELIVERED, receipt(), receipt())) == (0, 0, 1, 1)


def test_a_receipt_without_an_answer_counts_as_received() -> None:
    found = counted(FLAGGED, receipt(answered=False), receipt())
    assert errors(found) == (0, 0, 1, 0) and found.unanswered == 1
    assert errors(counted(DELIVERED, receipt(answered=False), receipt())) == (0, 0, 1, 1)


def test_duplicates_are_told_apart_by_time() -> None:
    found = counted(FLAGGED, receipt(time=AT), receipt(time=AT + 10), receipt(time=AT + 20), early_ms=AT + 15)
    assert len(found.duplicates) == 2 and len(found.early) == 1


def test_a_mail_that_was_taken_and_ended_otherwise_must_be_told_of() -> None:
    silent = Life(accepted=True, ends=["expired/expired"])
    assert any("taken by a site" in line for line in counted(silent, receipt()).differences)
    assert counted(Life(accepted=True, ends=["expired/expired"], flagged=True), receipt()).differences == []
    assert counted(silent, receipt(answered=False)).differences == []  # nobody said so


def test_what_nobody_sent_is_found() -> None:
    other = message_id(AT, "t", "s", "0:2", "a@shop.test")
    found = compare(SENT, {ID: DELIVERED, other: DELIVERED}, {ID: DELIVERED}, [receipt(), receipt("")])
    said = "\n".join(found.differences)
    assert "mails at the farm that nobody sent" in said
    assert "in the ledger from Kafka, and nobody sent it" in said
    assert "the two ledgers have other ends" in said


def test_an_end_without_acceptance_is_found() -> None:
    found = counted(Life(ends=["delivered/delivered"]), receipt())
    assert any("never accepted in the ledger from Kafka" in line for line in found.differences)


def test_reports_of_the_audit_must_be_clean_and_agree() -> None:
    clean = {("t", "broadcast"): Count(2, 2, 0)}
    assert reports(Report("topics", 0, clean), Report("clickhouse", 0, dict(clean))) == []
    orphan = Finding(ID, "t", "broadcast", "routed", 0)
    found = reports(
        Report("topics", 0, clean, orphans=[orphan]), Report("clickhouse", 0, {("t", "broadcast"): Count(2, 1, 1)})
    )
    assert len(found) == 2 and "orphans" in found[0] and "t/broadcast" in found[1]


# -- dead letters ------------------------------------------------------------------------------------------------------


def letter(offset: int, **fields: Any) -> Any:
    return {
        "stage": "ingest", "topic": "mail.submissions", "partition": 0, "offset": offset, "timestamp": AT, "key": b"",
        "value": b"bytes", "headers": [], "error": "E", "text": "", "at": AT, "source": "", "resolution": None, **fields,
    }  # fmt: skip


def resolution(action: str) -> Any:
    return {"action": action, "by": "op", "why": "", "at": AT, "place": ""}


def test_dead_letters_are_sorted_by_what_they_say() -> None:
    found = reading.sort(
        [
            letter(1),
            letter(2), letter(2, value=None, resolution=resolution("replayed")), letter(2),
            letter(3), letter(3, value=None, resolution=resolution("discarded")),
            letter(0, stage="send", topic="mail.attempts", source="mail.outbound[0]@4#1"),
        ]
    )  # fmt: skip
    refused = "mail.outbound[0]@4#1"
    assert found.open == {"mail.submissions[0]@1", refused}
    assert found.replayed == {"mail.submissions[0]@2"}
    assert found.inputs == {("ingest", f"mail.submissions[0]@{n}") for n in (1, 2, 3)}
    assert found.outputs == {"mail.attempts": [b"bytes"]}


def test_only_poison_may_be_left_among_the_dead_letters() -> None:
    letters = NO_LETTERS._replace(open={"t[0]@1", "t[0]@2"}, ids={"t[0]@1", "t[0]@2"})
    assert put_aside(letters, {"t[0]@1", "t[0]@2"}) == []
    assert [line.partition(":")[0] for line in put_aside(letters, {"t[0]@1", "t[0]@3"})] == [
        "dead letters that nobody has resolved", "poison that is not in the dead letters",
    ]  # fmt: skip
