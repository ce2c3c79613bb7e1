"""That a recount finds every kind of wrong entry, and nothing in what a real road has left behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agents import classify, ingest, send, suppress
from agents.application import build
from analytics.clickhouse import WarehouseError, connect
from deploy.local.kafka import Kafka, free_port
from loadtest.chaos import recount as recounting
from loadtest.chaos.account import account
from loadtest.chaos.facts import Facts, Submitted
from loadtest.chaos.load import SETTINGS, Load
from loadtest.chaos.plan import plan
from loadtest.chaos.recount import changelog, lines, mark_lines, recount, recovered
from loadtest.demo.ledger import progress
from loadtest.mxfarm import Farm
from postroad import suppression
from postroad.intake import Use
from tables import dedupe, due, ended, seen
from tables.cancelled import CANCELLED
from tables.dedupe import DEDUPE
from tables.deliveries import DELIVERIES, Tried
from tables.due import BEGINNING, DUE, WAITING, Waiting
from tables.ended import ENDED
from tables.seen import SEEN
from tables.store import EPOCH, NO_EPOCH, mark_key
from tables.suppressions import SUPPRESSED
from tables.suppressions import key as listed_key
from tables.tenant_quota import TENANT_QUOTA
from topics import admin
from topics.effects import Window
from topics.installation import Installation
from topics.outputs import partition_for
from topics.state import Table, expiry_bucket
from topics.testing import ScriptedRecord

NOW = 1_800_000_000_000
HOUR = 3_600_000
DAY = 24 * HOUR
ID = "00clp7o1qs0123456789abcdg0"
PARTITIONS = 2
HOME = partition_for(ID.encode(), PARTITIONS)
ROOT = Path(__file__).parents[2]


def message(**fields: Any) -> Any:
    return {
        "message_id": ID, "tenant": "acme", "submission_id": "s1", "stream": "transactional", "accepted_at": NOW,
        "recipient": "r@there.test", "recipient_domain": "there.test", "sender": "a@acme.test", "return_path": f"b-{ID}@acme.test",
        "content": {"hash": "", "size": 10}, "expires_at": NOW + HOUR, "tags": [], "attempt": 0, "round": 0, "route": None,
        "cleared": True, **fields,
    }  # fmt: skip


def waits(reason: str = "retry", **fields: Any) -> Any:
    return {"message": message(**fields), "at": NOW, "due_at": NOW + 5000, "reason": reason, "return_to": "scored"}


def attempt(phase: str = "done", **fields: Any) -> Any:
    return {"message": message(**fields), "phase": phase}


def event(kind: str = "delivered", round: int = 0) -> Any:
    return {"message_id": ID, "kind": kind, "round": round, "at": NOW}


def decision(reason: str = "replaced") -> Any:
    return {
        "message_id": ID,
        "recipient": "r@there.test",
        "action": "cancel",
        "by": "ingest",
        "at": NOW,
        "reason": reason,
    }


def listing(evidence: str = "m1") -> Any:
    return {"recipient": "r@there.test", "tenant": "acme", "action": "add", "reason": "hard_bounce", "at": NOW,
            "evidence": evidence, "detail": "550", "expires_at": None}  # fmt: skip


def listed(evidence: str = "m1") -> Any:
    return suppression.apply(None, listing(evidence), suppression.Rules())


def entry(table: Table[Any], key: str | bytes, value: Any, until: int = NOW + 9 * DAY) -> tuple[bytes, bytes]:
    """As the store keeps it."""
    raw = table.encode(value)
    name = bytes((table.number,)) + (key.encode() if isinstance(key, str) else key)
    return name, expiry_bucket(until).to_bytes(4, "big") + raw if table.expires else raw


def store(*entries: tuple[bytes, bytes], partition: int = HOME) -> list[dict[bytes, bytes]]:
    parts: list[dict[bytes, bytes]] = [{} for _ in range(PARTITIONS)]
    parts[partition].update(entries)
    return parts


SUBMISSION = Submitted(0, 3, NOW, "acme", "s1", "once", [(ID, "r@there.test")])
WAITS = waits(round=1)


def full_facts() -> Facts:
    """One message that was let in, sent in round 0, deferred, is on lists, and waits for round 2."""
    facts = Facts(submitted=[SUBMISSION], tenants={"acme": {"tenant": "acme", "quota_per_day": 100}})
    facts.accepted(message())
    facts.cleared_one(message())
    facts.cleared_one(message(round=1))
    facts.attempt(attempt("rcpt", round=1))
    facts.back(message(round=1))
    facts.parked(WAITS)
    facts.came_to_schedule(WAITS)
    facts.entries.append(listing())
    facts.cancellations[ID] = decision()
    facts.decisions[ID] = decision()
    return facts


def full_stores() -> dict[str, Any]:
    """What the tables hold then. classify: an end of another message."""
    return {
        "ingest": store(
            entry(DEDUPE, dedupe.by_submission("acme", "s1"), {"submission_id": "s1", "messages": []}),
            entry(DEDUPE, dedupe.by_dedupe_id("acme", "once"), {"submission_id": "s1", "messages": [(ID, "r@there.test")]}),
            entry(TENANT_QUOTA, "acme", Use(0.0, NOW // DAY, 1)),
        ),
        "suppress": store(
            entry(SUPPRESSED, listed_key("acme", "r@there.test"), listed()),
            entry(SEEN, ID, 1),
            entry(CANCELLED, ID, "replaced"),
        ),
        "send": store(entry(DELIVERIES, ID, Tried(1, False))),
        "classify": store(),
        "schedule": store(
            entry(DUE, due.key(NOW + 5000, ID), full_message(WAITS)),
            entry(WAITING, ID, Waiting(1, NOW + 5000, True)),
            entry(BEGINNING, "", NOW + 5000),
            entry(CANCELLED, ID, "replaced"),
        ),
    }  # fmt: skip


def full_message(scheduled: Any) -> Any:
    return {**scheduled, "message": {**scheduled["message"], "top": b"", "content": {"hash": "", "size": 10}}}


def test_tables_that_are_right_make_no_difference() -> None:
    assert lines(full_facts(), full_stores(), NOW) == []


Change = Callable[[Facts, dict[str, Any]], object]
WRONG: dict[str, tuple[str, Change]] = {
    "a submission that is not remembered": (
        "dedupe 'acme\\x00s\\x00s1': not there", lambda f, s: s["ingest"][HOME].pop(entry(DEDUPE, "acme\0s\0s1", {})[0])),
    "a submission that nobody let in": ("dedupe 'acme\\x00d\\x00once': has", lambda f, s: f.admitted.clear()),
    "a dedupe id of an older submission": (
        "dedupe 'acme\\x00d\\x00once': has", lambda f, s: f.submitted.append(SUBMISSION._replace(offset=4, submission_id="s2"))),
    "a quota that is off by one": (
        "tenant_quota 'acme': has 2 messages",
        lambda f, s: s["ingest"][HOME].update([entry(TENANT_QUOTA, "acme", Use(0.0, NOW // DAY, 2))])),
    "an entry of the list that is gone": (
        "suppressed 'acme\\x00r@there.test': not there", lambda f, s: s["suppress"][HOME].pop(entry(SUPPRESSED, "acme\0r@there.test", {})[0])),
    "a list with other evidence": ("suppressed 'acme\\x00r@there.test': has", lambda f, s: f.entries.append(listing("m2"))),
    "an address that was removed": (
        "suppressed 'acme\\x00r@there.test': has", lambda f, s: f.entries.append({**listing(), "action": "remove"})),
    "a removal that is not remembered": (
        "not_in_force 'acme\\x00r@there.test': not there", lambda f, s: f.entries.append({**listing(), "action": "remove"})),
    "a round too low": (f"seen {ID!r}: has 0", lambda f, s: s["suppress"][HOME].update([entry(SEEN, ID, 0)])),
    "an end that suppress never found": (
        f"seen {ID!r}: has {seen.ENDED}", lambda f, s: s["suppress"][HOME].update([entry(SEEN, ID, seen.ENDED)])),
    "a message in two partitions": (
        f"seen {ID!r}: is in partitions", lambda f, s: s["suppress"][1 - HOME].update([entry(SEEN, ID, 1)])),
    "a cancellation that is not there": (
        f"cancelled of suppress {ID!r}: not there", lambda f, s: s["suppress"][HOME].pop(entry(CANCELLED, ID, "")[0])),
    "a cancellation that nobody ordered": (f"cancelled of schedule {ID!r}: has", lambda f, s: f.decisions.clear()),
    "a try that is not kept": (f"deliveries {ID!r}: not there", lambda f, s: s["send"][HOME].clear()),
    "a delivery that never was": (
        f"deliveries {ID!r}: has", lambda f, s: s["send"][HOME].update([entry(DELIVERIES, ID, Tried(1, True))])),
    "a try of a round that never was": (
        f"deliveries {ID!r}: has", lambda f, s: s["send"][HOME].update([entry(DELIVERIES, ID, Tried(2, False))])),
    "a try that the topics do not have": (f"deliveries {ID!r}: has", lambda f, s: f.tries.clear()),
    "an end that is not kept": (f"ended {ID!r}: not there", lambda f, s: f.ended_one(event())),
    "an end without an event": (
        f"ended {ID!r}: has", lambda f, s: s["classify"][HOME].update([entry(ENDED, ID, ended.kept("delivered", message()))])),
    "a due entry without waiting": (
        f"due {ID!r}: waits in partition", lambda f, s: s["schedule"][HOME].pop(entry(WAITING, ID, Waiting(1, 0))[0])),
    "a waiting entry without due": (
        f"waiting {ID!r}: Waiting", lambda f, s: s["schedule"][HOME].pop(entry(DUE, due.key(NOW + 5000, ID), full_message(WAITS))[0])),
    "a due entry of another round": (
        f"due {ID!r}: round 1", lambda f, s: s["schedule"][HOME].update([entry(WAITING, ID, Waiting(0, NOW + 5000, True))])),
    "a due entry before the beginning": (
        f"due {ID!r}: waits until", lambda f, s: s["schedule"][HOME].update([entry(BEGINNING, "", NOW + 5001)])),
    "a message that waits nowhere": (f"waiting {ID!r}: not there", lambda f, s: s["schedule"][HOME].clear()),
    "a message that nobody scheduled": (f"waiting {ID!r}: has", lambda f, s: f.scheduled.clear()),
    "an entry in a partition that no record of it comes to": (
        "schedule b'", lambda f, s: s.update(schedule=s["schedule"][::-1])),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_entry_is_found(what: str) -> None:
    facts, stores = full_facts(), full_stores()
    says, change = WRONG[what]
    change(facts, stores)
    assert any(line.startswith(says) for line in lines(facts, stores, NOW)), lines(facts, stores, NOW)


# -- what is no difference ---------------------------------------------------------------------------------------------


def test_of_work_that_was_done_again_the_table_has_one_outcome() -> None:
    facts, stores = full_facts(), full_stores()
    facts.attempt(attempt("done", round=1))  # the first time the MX took it, and nothing was kept
    facts.ending({"message": message(round=1), "stage": "suppress", "reason": "expired", "kind": "expired"})  # type: ignore[arg-type,typeddict-item]
    assert lines(facts, stores, NOW) == []
    stores["send"][HOME].update([entry(DELIVERIES, ID, Tried(1, True))])
    stores["suppress"][HOME].update([entry(SEEN, ID, seen.ENDED)])
    assert lines(facts, stores, NOW) == []


def test_entries_whose_time_is_over_may_be_there_or_gone() -> None:
    facts, stores = full_facts(), full_stores()
    facts.submitted.clear()
    del stores["schedule"], stores["ingest"]
    facts.entries.clear()
    stores["suppress"][HOME].pop(entry(SUPPRESSED, "acme\0r@there.test", {})[0])
    later = NOW + 10 * DAY
    assert lines(facts, stores, later) == []  # all of it is over
    stores["suppress"], stores["send"] = store(), store()
    assert lines(facts, stores, later) == []
    assert lines(facts, stores, NOW) != []


def test_a_message_that_was_released_or_has_ended_need_not_wait() -> None:
    for end in ("released", "ended", "over"):
        facts, stores = full_facts(), full_stores()
        stores["schedule"] = store(entry(CANCELLED, ID, "replaced"))
        if end == "released":
            facts.back(message(round=2))
        elif end == "over":
            facts.ending({"message": message(round=1), "stage": "schedule", "reason": "expired"})  # type: ignore[typeddict-item]
        else:
            facts.ended_one(event("delivered", 1))
            stores["classify"] = store(entry(ENDED, ID, ended.kept("delivered", message(round=1))))
        assert lines(facts, stores, NOW) == [], end


def test_what_an_operator_ended_is_no_work_of_the_stage_that_it_names() -> None:
    facts = Facts()
    for stage in ("suppress", "send", "schedule"):
        facts.ending({"message": message(), "stage": stage, "reason": "dead-letter"})  # type: ignore[typeddict-item]
    assert (facts.stopped, facts.tries, facts.over) == ({}, {}, set())


# -- changelogs and progress -------------------------------------------------------------------------------------------


def record(key: bytes, value: bytes | None, epoch: int, offset: int = 0) -> ScriptedRecord:
    return ScriptedRecord("log", 0, offset, NOW, key, value, (("e", epoch.to_bytes(4, "big")),))


def test_what_a_zombie_wrote_is_not_in_the_store() -> None:
    part = recovered(
        [record(b"\1a", b"1", 1), record(b"\1b", b"1", 2), record(b"\1a", b"2", 1), record(b"\1b", None, 2)]
    )
    assert {key: value for key, value in part.items() if key != EPOCH} == {b"\1a": b"1"}
    assert part[EPOCH] > NO_EPOCH


def test_records_that_a_stage_has_not_finished_are_found() -> None:
    done = {mark_key(0): (4).to_bytes(8, "big", signed=True)}
    assert list(mark_lines("classify", [[5, 0]], False, [done, {}])) == []
    assert list(mark_lines("classify", [[6, 1]], False, [done, {}])) == [
        "classify: source 0, partition 0 is finished up to 5 and ends at 6",
        "classify: source 0, partition 1 is finished up to 0 and ends at 1",
    ]


def test_progress_of_an_effect_stage_counts_what_is_finished_above_its_low() -> None:
    window = Window(recounting.TP("t", 0), 3, 0, None)
    for offset in (3, 4, 6):
        window.begin(offset)
        window.finish(offset)
    part = {mark_key(0): window.pack()}
    assert list(mark_lines("send", [[5]], True, [part])) == []
    assert len(list(mark_lines("send", [[7]], True, [part]))) == 1


@pytest.mark.parametrize("stage", [ingest.stage, suppress.stage, send.stage, classify.stage])
def test_changelogs_have_the_names_that_the_store_gives_them(stage: Any, tmp_path: Path) -> None:
    installation = Installation("127.0.0.1:9", prefix="p-", data_dir=tmp_path)
    store = build(stage, installation).runner.store
    assert store is not None and store.topic == changelog(installation, stage.name)


# -- a real road -------------------------------------------------------------------------------------------------------
SEED, MESSAGES = 133, 150  # has no kind that takes longer than some seconds


def test_a_real_road_has_nothing_to_find(kafka: Kafka, tmp_path: Path) -> None:
    """Producer, all stages in one worker, farm: the four counts agree and every table is what the topics say. Then one byte of
    a RocksDB is changed."""
    kinds = {planned.kind for planned in plan(MESSAGES, SEED)}
    assert len(kinds) >= 12 and not kinds & {"send-at", "dedupe-replace", "nothing-listens", "mailbox-busy"}
    installation = Installation(kafka.bootstrap, prefix="recount-", data_dir=tmp_path / "data", session_s=6.0)
    asyncio.run(admin.ensure(installation))
    clickhouse = f"127.0.0.1:{free_port()}"
    with Farm.start(tmp_path / "farm") as farm:
        load = Load(installation, tmp_path, farm, MESSAGES, SEED)
        load.prepare()
        worker = start(installation, farm, clickhouse, tmp_path)
        warehouse = connect(f"http://{clickhouse}")

        def drained() -> bool:
            load.look()
            try:
                return load.done and progress(warehouse) == (MESSAGES, MESSAGES)
            except WarehouseError:  # the sink is just starting
                return False

        try:
            load.start(0)
            deadline = time.monotonic() + 90
            while not drained():
                if worker.poll() is not None:  # the broker of a busy machine was away for long: as a supervisor does
                    worker = start(installation, farm, clickhouse, tmp_path)
                assert time.monotonic() < deadline, (tmp_path / "worker.log").read_text()[-3000:]
                time.sleep(0.2)
            found = account(load, warehouse)
        finally:
            load.stop()
            worker.send_signal(signal.SIGTERM)
            worker.wait(40)
    assert (found.lost, found.two_ends, found.unflagged, found.differences) == ([], [], [], [])
    assert (
        found.counts["acknowledged"]
        == found.counts["ended in Kafka"]
        == found.counts["ended in ClickHouse"]
        == MESSAGES
    )
    assert asyncio.run(recount(installation, [installation.data_dir])) == []

    damage(installation.data_dir / "classify" / "v1" / "tables")
    said = asyncio.run(recount(installation, [installation.data_dir]))
    assert len(said) == 1 and said[0].startswith("classify[")
    shutil.rmtree(installation.data_dir)


def start(installation: Installation, farm: Farm, clickhouse: str, folder: Path) -> subprocess.Popen[bytes]:
    settings: dict[str, str] = {
        "KAFKA": installation.bootstrap, "TOPIC_PREFIX": installation.prefix, "KAFKA_SESSION_TIMEOUT_S": "6",
        "DATA_DIR": str(installation.data_dir), "CLICKHOUSE_HTTP": clickhouse, "DNS_SERVERS": farm.dns,
        "SMTP_PORT": str(farm.smtp_port), "EHLO": "mail.chaos.test", "SMTP_TIMEOUT_SCALE": str(SETTINGS["smtp_timeout_scale"]),
        "RETRY_DELAYS_S": "1", "GREYLIST_S": "2.2",
    }  # fmt: skip
    environment = {**os.environ, **{f"POSTROAD_{name}": value for name, value in settings.items()}}
    with (folder / "worker.log").open("ab") as log:
        command = [sys.executable, "-m", "postroad", "worker", "all"]
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)


def damage(tables: Path) -> None:
    """One entry of a RocksDB gets another value."""
    for path in sorted(tables.glob("state-*.db")):
        rocks = recounting.rocksdict.Rdict(str(path), options=recounting.rocksdict.Options(raw_mode=True))
        key = next((key for key in rocks.keys() if key[0] == ENDED.number), None)  # noqa: SIM118  # no dictionary
        if key is not None:
            rocks[key] = b"damage"
        rocks.close()
        if key is not None:
            return
    raise AssertionError("no end was kept")
