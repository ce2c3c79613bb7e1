"""What a region that takes over believes of the copies, what it puts back, and what it misses."""

from types import SimpleNamespace
from typing import Any

import pytest

from postroad.commands.takeover import Known, Seat, lacking, rank, unbelieved
from postroad.ids import message_id
from postroad.ledger import Life
from tables.audited import AUDITED, Audited
from tables.dedupe import DEDUPE
from tables.deliveries import DELIVERIES
from tables.due import DUE, WAITING, Waiting, key
from tables.seen import SEEN
from tables.store import MARK, mark_key
from topics.catalogue import (
    ACCEPTED,
    ATTEMPTS,
    ENDINGS,
    ORIGIN,
    OUTBOUND,
    SCHEDULED,
    SCORED,
    SUBMISSIONS,
    Origin,
    origin,
)

AT = 1_700_000_000_000


def message(round: int = 0, attempt: int = 0) -> dict[str, Any]:
    return {"message_id": "m", "round": round, "attempt": attempt}


def submitted(offset: int, *recipients: str, id: str = "s1") -> tuple[Any, Any, Any]:
    record = SimpleNamespace(topic="mail.submissions", partition=2, offset=offset, timestamp=AT, key=b"acme")
    return (
        SUBMISSIONS,
        record,
        {"tenant": "acme", "submission_id": id, "recipients": [{"address": r} for r in recipients]},
    )


def id_of(offset: int, recipient: str, id: str = "s1") -> str:
    return message_id(AT, "acme", id, f"2:{offset}", recipient)


def known(**who: str) -> Known:
    return Known(who={id: ("acme", "s1", recipient) for id, recipient in who.items()})


def test_the_furthest_record_of_a_message():
    inside = {topic: {"message": message()} for topic in (SCHEDULED, ATTEMPTS, ENDINGS)}
    road = [rank(ACCEPTED, message()), rank(SCORED, message()), rank(OUTBOUND, message()), rank(SCHEDULED, inside[SCHEDULED]),
            rank(ATTEMPTS, inside[ATTEMPTS]), rank(SCHEDULED, {"message": message(0, 1)}), rank(SCORED, message(1, 1)),
            rank(ENDINGS, inside[ENDINGS])]  # fmt: skip
    assert road == sorted(road) and len(set(road)) == len(road)


def test_what_waits_for_its_time_stays_unless_a_record_is_further():
    found = Known(waits={"m": (1, 1, 5)}, seats={"m": Seat((1, 1, 5), SCHEDULED, 0, 3)})
    assert found.stays("m") and not found.on_the_way
    found.seats["m"] = Seat((2, 1, 2), SCORED, 0, 4)
    assert not found.stays("m") and set(found.on_the_way) == {"m"}
    found.ended.add("m")
    assert not found.on_the_way


def test_what_was_accepted_and_has_no_record_comes_again():
    found = known(a="a@x.test", b="b@x.test", c="c@x.test")
    found.told |= {"a", "b", "c"}
    found.ended.add("b")
    found.seats["c"] = Seat((0, 0, 0), ACCEPTED, 0, 1)
    assert found.forget() == {"a"}
    assert set(found.who) == found.told == {"b", "c"}


def test_recipients_without_a_message_are_missing_and_no_others():
    one = submitted(7, "a@x.test", "b@x.test")
    found = known(**{id_of(7, "a@x.test"): "a@x.test"})
    (missing,), whole = lacking(found, [one])
    assert [each["address"] for each in missing.submission["recipients"]] == ["b@x.test"]
    assert missing.ids == [id_of(7, "b@x.test")] and missing.key == b"acme" and not whole
    found.who[missing.ids[0]] = "acme", "s1", "b@x.test"
    assert lacking(found, [one]) == ([], {("acme", "s1")})


def test_where_offsets_are_others_than_in_the_lost_region_the_recipient_counts():
    found = known(**{id_of(1007, "a@x.test"): "a@x.test"})
    assert lacking(found, [submitted(7, "a@x.test")]) == ([], {("acme", "s1")})


def test_a_repeat_is_missing_by_itself_and_its_first_is_whole():
    found = known(**{id_of(7, "a@x.test"): "a@x.test"})
    missing, whole = lacking(found, [submitted(7, "a@x.test"), submitted(9, "a@x.test")])
    assert [one.ids for one in missing] == [[id_of(9, "a@x.test")]]
    assert whole == {("acme", "s1")}, "so ingest still knows it, and says that the second is a repeat"


@pytest.mark.parametrize(("stage", "table", "value"), [("suppress", SEEN, 1), ("send", DELIVERIES, (0, True))])
def test_gates_are_believed_where_the_end_is_told(stage, table, value):
    prefix = bytes((table.number,))
    state = {
        prefix + b"ended": b"\0\0\0\1" + table.encode(value),
        prefix + b"open": b"",
        mark_key(0): b"",
        b"\x1fother": b"",
    }
    assert unbelieved(stage, state, Known(ended={"ended"}), set()) == {prefix + b"open": None, mark_key(0): None}


def test_marks_are_offsets_of_the_lost_region():
    wrong = unbelieved("route", {mark_key(0): b"", mark_key(3): b"", b"\1x": b""}, Known(), set())
    assert wrong == {MARK + b"\0": None, MARK + b"\3": None}


def test_schedule_keeps_what_waits_alone():
    found = Known(waits={"later": (0, 0, 5)})
    due = {bytes((DUE.number,)) + key(AT, id): b"" for id in ("later", "now", "gone")}
    waiting = {
        bytes((WAITING.number,)) + id.encode(): WAITING.encode(Waiting(0, AT)) for id in ("later", "now", "gone")
    }
    wrong = unbelieved("schedule", due | waiting, found, set())
    assert len(wrong) == 4 and not any(key.endswith(b"later") for key in wrong)


def test_audit_forgets_an_end_that_nobody_here_tells_of():
    def entry(id: str) -> tuple[bytes, bytes]:
        life = Life(AT, AT, told=True, state="delivered", ends=(("delivered", 0, 0),))
        return bytes((AUDITED.number,)) + id.encode(), b"\0\0\0\1" + AUDITED.encode(Audited(life))

    state = dict([entry("told"), entry("untold")])
    wrong = unbelieved("audit", state, Known(ended={"told"}), set())
    ((key, value),) = wrong.items()
    assert key.endswith(b"untold") and value is not None
    assert value[:4] == b"\0\0\0\1" and AUDITED.decode(value[4:]).life == Life(AT, AT, told=True, state="delivered")


def test_a_submission_that_is_not_whole_is_not_known():
    def entry(id: str) -> tuple[bytes, bytes]:
        value = DEDUPE.encode({"submission_id": id, "messages": []})
        return bytes((DEDUPE.number,)) + f"acme\0s\0{id}".encode(), b"\0\0\0\1" + value

    state = dict([entry("whole"), entry("torn")])
    assert unbelieved("ingest", state, Known(), {("acme", "whole")}) == {entry("torn")[0]: None}


def test_the_first_place_of_a_submission():
    assert origin([("x", b"y")], "0:1", AT) == Origin("0:1", AT)
    assert origin([(ORIGIN, b"1700 b2:7 again")], "0:1", AT) == Origin("b2:7", 1700, again=True)
    for nonsense in (b"nonsense", b"x 0:1 again", b"1700 0:1 else"):
        with pytest.raises(ValueError, match=r"literal|unpack|neither"):
            origin([(ORIGIN, nonsense)], "0:1", AT)
