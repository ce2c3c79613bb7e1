"""The demo's own logic: what it plans, and that its account finds every kind of fault. No broker, no processes."""

from __future__ import annotations

import asyncio
import email.policy
import io
import json
import tomllib
from collections import Counter
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import pytest

from loadtest.bench_capacity import Sample, measured
from loadtest.demo import plan as plans
from loadtest.demo import tenants
from loadtest.demo.checks import Account, Acknowledged, Expected, account, expected, percentile
from loadtest.demo.ledger import Life, gather
from loadtest.demo.load import SETTINGS, SHAPING
from loadtest.demo.producer import produce
from loadtest.demo.road import RoadError, _toml, fresh
from loadtest.mxfarm import DkimResult, Receipt
from postroad.ids import message_id
from postroad.settings import CONFIG, read
from postroad.shaping.policy import parse
from postroad.tenants import load_tenants
from topics.catalogue import SUBMISSIONS
from topics.client import Client, Place
from topics.codec import Codec, DecodeError
from topics.installation import Installation

ID = message_id(1_800_000_000_000, "t", "s", "0:1", "a@accept.test")
OTHER = message_id(1_800_000_000_000, "t", "s", "0:2", "b@accept.test")
VALID = [DkimResult("d", s, a, True, "") for s, a in (("r1", "rsa-sha256"), ("e1", "ed25519-sha256"))]
DELIVERED = "delivered/delivered"


def receipt(id: str = ID, *, answered: bool = True, recipient: str = "a@accept.test") -> Receipt:
    return Receipt(recipient, "accept", f"b-{id}@x.example", 0, "", "", 0, 0, answered, False, "", "")


def found(
    wanted: dict[str, frozenset[str]], lives: dict[str, Life], mails: list[tuple[Receipt, list[DkimResult]]]
) -> Account:
    return account({id: Expected("plain", "a@accept.test", ends, False) for id, ends in wanted.items()}, lives, mails)


def one(life: Life, *mails: Receipt, signatures: list[DkimResult] = VALID) -> Account:
    return found({ID: plans.DELIVERED}, {ID: life}, [(mail, signatures) for mail in mails])


# -- plan --------------------------------------------------------------------------------------------------------------


def test_the_plan_is_2000_records_and_the_same_for_a_seed() -> None:
    plan = plans.make(1)
    assert len(plan) == 2000
    assert plan == plans.make(1)
    assert plan != plans.make(2)


def test_the_plan_has_every_kind_and_tenant() -> None:
    plan = plans.make()
    assert {planned.kind for planned in plan} == {kind for kind, _, _ in plans.KINDS}
    used = {planned.submission["tenant"] for planned in plan if planned.submission}
    assert used == {tenants.BOOKS, tenants.WORKS, tenants.LETTER, "nobody"}


def test_repeats_come_later_than_what_they_repeat_and_never_in_one_bundle() -> None:
    first: dict[str, int] = {}
    pairs = 0
    for place, planned in enumerate(plans.make()):
        if planned.kind in ("same submission twice", "dedupe_id, reject", "dedupe_id, replace") and planned.submission:
            id = planned.submission.get("dedupe_id") or planned.submission["submission_id"]
            if id in first:
                pairs += 1
                assert place - first[id] > 50
                assert planned.ends["*"] == (plans.DELIVERED if "replace" in planned.kind else {"rejected/duplicate"})
            else:
                first[id] = place
    assert pairs == len(first) == 65


def test_undecodable_records_do_not_decode() -> None:
    codec = Codec("Submission")
    raws = [planned.raw for planned in plans.make() if planned.submission is None]
    assert raws
    for raw in raws:
        with pytest.raises(DecodeError):
            codec.decode(raw)


def test_every_decodable_record_can_be_written_and_fits_its_topic() -> None:
    codec = Codec("Submission")
    for planned in plans.make():
        if planned.submission is not None and not planned.by_reference:
            assert len(codec.encode(planned.submission)) < SUBMISSIONS.max_bytes


def test_mails_are_whole_messages_of_the_tenant() -> None:
    mails = sorted((Path(plans.__file__).parent / "mails").glob("*.eml"))
    assert len(mails) >= 5
    for mail in mails:
        message = BytesParser(policy=email.policy.default).parsebytes(mail.read_bytes())
        assert message["From"].addresses[0].addr_spec == tenants.SENDER[tenants.BOOKS], mail
        assert not [defect for part in message.walk() for defect in part.defects], mail


# -- what must exist ---------------------------------------------------------------------------------------------------


def test_expected_messages_follow_from_what_kafka_answered() -> None:
    plan = plans.make()
    index = next(i for i, planned in enumerate(plan) if planned.kind == "variables")
    dead = next(i for i, planned in enumerate(plan) if planned.kind == "no recipient")
    answers = [Acknowledged(index=i, partition=2, offset=7 + i, timestamp=1_800_000_000_000) for i in (index, dead)]
    wanted = expected(plan, answers)
    assert len(wanted) == 5
    assert Counter(next(iter(one.ends)) for one in wanted.values()) == {"delivered": 4, "rejected/missing-variable": 1}
    submission = plan[index].submission
    assert submission is not None
    address = submission["recipients"][0]["address"]
    assert (
        wanted[
            message_id(1_800_000_000_000, tenants.BOOKS, submission["submission_id"], f"2:{7 + index}", address)
        ].recipient
        == address
    )


# -- the account -------------------------------------------------------------------------------------------------------


def test_all_is_well() -> None:
    result = one(Life(True, [DELIVERED]), receipt())
    assert (result.lost, result.duplicates, result.in_flight, result.differs) == ([], 0, [], [])
    assert result.ends == {"delivered": 1}


def test_a_message_without_an_event_is_lost() -> None:
    result = found({ID: plans.DELIVERED}, {}, [])
    assert result.lost == [ID]
    assert "without an event `accepted`" in result.differs[0]


def test_a_message_without_an_end_is_in_flight_and_lost() -> None:
    result = one(Life(True))
    assert result.in_flight == result.lost == [ID]


@pytest.mark.parametrize("mails", [[], [receipt(answered=False)]])
def test_delivered_but_not_at_the_farm_is_lost(mails: list[Receipt]) -> None:
    assert one(Life(True, [DELIVERED]), *mails).lost == [ID]


def test_a_message_accepted_that_nobody_planned_must_end_too() -> None:
    result = found({}, {ID: Life(True)}, [])
    assert result.lost == [ID]
    assert "nobody sent" in result.differs[0]


@pytest.mark.parametrize(("flagged", "duplicates"), [(False, 1), (True, 0)])
def test_a_second_mail_counts_unless_an_event_admits_it(flagged: bool, duplicates: int) -> None:
    result = one(Life(True, [DELIVERED], flagged), receipt(), receipt())
    assert result.second == [ID]
    assert result.duplicates == duplicates


def test_two_ends_are_a_duplicate() -> None:
    assert one(Life(True, [DELIVERED, "expired/expired"]), receipt()).duplicates == 1


def test_another_end_than_planned_is_told_with_its_kind() -> None:
    result = found({ID: frozenset({"dropped/suppressed"})}, {ID: Life(True, [DELIVERED])}, [(receipt(), VALID)])
    assert not result.lost
    assert result.differs == [f"plain: planned dropped/suppressed, ended as {DELIVERED}: 1 ({ID} to a@accept.test)"]


def test_a_kind_alone_takes_any_reason() -> None:
    assert not found({ID: frozenset({"expired"})}, {ID: Life(True, ["expired/network"])}, []).differs


def test_mail_that_nobody_knows_and_mail_that_was_not_delivered_are_told() -> None:
    result = found(
        {OTHER: frozenset({"expired"})},
        {OTHER: Life(True, ["expired/network"])},
        [(receipt(), VALID), (receipt(OTHER), VALID)],
    )
    assert len(result.differs) == 2
    assert ID in result.differs[0]
    assert OTHER in result.differs[1]


@pytest.mark.parametrize(
    "signatures",
    [[], VALID[:1], [VALID[0], DkimResult("d", "e1", "ed25519-sha256", False, "body hash mismatch")]],
)  # fmt: skip
def test_a_mail_without_two_valid_signatures_is_told(signatures: list[DkimResult]) -> None:
    assert "DKIM" in one(Life(True, [DELIVERED]), receipt(), signatures=signatures).differs[0]


def test_lives_from_rows_of_the_ledger() -> None:
    rows: list[tuple[Any, ...]] = [
        (ID, "accepted", "", 0, "", 0), (ID, "deferred", "network", 1, "accept.test", 900),
        (ID, "delivered", "delivered", 0, "accept.test", 1234), (OTHER, "rejected", "null-mx", 0, "", 5),
    ]  # fmt: skip
    lives = gather(rows)
    assert lives[ID] == Life(True, [DELIVERED], True, "accept.test", 1234)
    assert lives[OTHER] == Life(False, ["rejected/null-mx"])
    assert lives[OTHER].end == "rejected"
    assert "never accepted" in " ".join(found({}, lives, [(receipt(), VALID)]).differs)


def test_percentile() -> None:
    assert percentile([], 0.5) == 0
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile(range(100), 0.99) == 99


# -- around it ---------------------------------------------------------------------------------------------------------


def test_settings_of_the_demo_are_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "postroad.toml"
    config.write_text("".join(f"{name} = {_toml(value)}\n" for name, value in SETTINGS.items()), "utf-8")
    assert tomllib.loads(config.read_text("utf-8")) == SETTINGS
    monkeypatch.setenv(CONFIG, str(config))
    read()
    assert parse(SHAPING, "shaping.toml").limits("limited.test").connections == 2


def test_tenants_are_what_the_command_takes_and_their_keys_are_in_the_zone(tmp_path: Path) -> None:
    loaded = load_tenants(tenants.write(tmp_path, tmp_path))
    assert [tenant["tenant"] for tenant in loaded] == [tenants.BOOKS, tenants.WORKS, tenants.LETTER]
    records = json.loads((tmp_path / "txt.json").read_text())
    assert len(records) == 2 * len(loaded)
    assert all((tmp_path / key).stat().st_mode & 0o077 == 0 for key in tmp_path.glob("*.pem"))


def test_a_folder_is_one_runs_alone_and_empty(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "left").touch()
    with fresh(folder):
        assert not list(folder.iterdir())
        with pytest.raises(RoadError, match="another run"), fresh(folder):
            pass


async def test_the_producer_notes_what_kafka_answered_and_turns_seconds_into_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Any] = []

    async def send_raw(self: Client, topic: Any, key: bytes, value: bytes | None, headers: Any = ()) -> Place:
        written.append((key, Codec("Submission").decode(value or b"") if value and value[:2] == b"\xc3\x01" else value))
        await asyncio.sleep(0)
        return Place(1, len(written), 1_800_000_000_000)

    monkeypatch.setattr(Client, "send_raw", send_raw)
    maker = plans._Maker(1)
    later = maker.planned("x", maker.to("x", "a@accept.test"), send_in_s=10, expires_in_s=20)
    foreign = plans.Planned("x", b"other key", maker.to("x", "a@accept.test"))
    raw = plans.Planned("x", b"k", raw=b"{}")
    notes = io.StringIO()
    await produce([later, foreign, raw], Installation("nowhere:1", data_dir=tmp_path), notes, 0.0)
    assert sorted(json.loads(line)["index"] for line in notes.getvalue().splitlines()) == [0, 1, 2]
    by_key = dict(written)
    sent = by_key[tenants.BOOKS.encode()]
    assert sent["expires_at"] - sent["send_at"] == 10_000
    assert by_key[b"other key"]["tenant"] == tenants.BOOKS
    assert by_key[b"k"] == b"{}"


def test_capacity_is_the_rate_between_the_tenths_and_the_cpu_until_all_rests() -> None:
    # 100 mails: 10 at once, then one every 10 ms, the last 10 after a long pause that must not count in the rate
    times = [0] * 10 + [10 * n for n in range(1, 81)] + [60_000] * 10
    samples = [
        Sample(0.0, 0, 1.0, 1.0),
        Sample(0.1, 10, 1.5, 1.1),
        Sample(0.9, 90, 1.9, 1.2),
        Sample(60.0, 100, 9.0, 9.0),
    ]
    found = measured(samples, [*reversed(times)])
    assert found["cpu_ms_per_message"] == pytest.approx(80.0)
    assert found["broker_cpu_ms_per_message"] == pytest.approx(80.0)
