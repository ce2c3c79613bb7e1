"""Events carry what the message knows, and only where it is wanted."""

import typing
from typing import Any

import pytest

from avro.records import Event, EventKind, Message
from postroad.events import ENDS, TEXT_MAX, Fields, event, noted
from postroad.ledger import step_of

MESSAGE: Message = {
    "message_id": "m1",
    "tenant": "shop",
    "submission_id": "s1",
    "stream": "transactional",
    "accepted_at": 1_000,
    "recipient": "a@b.example",
    "recipient_domain": "b.example",
    "sender": "shop@shop.example",
    "return_path": "b-m1@bounce.shop.example",
    "top": b"To: a@b.example\r\n",
    "content": {"hash": "h", "size": 100, "inline": b"x", "blob": None},
    "tags": ["welcome"],
    "metadata": {"order": "7"},
    "expires_at": 9_000,
    "attempt": 1,
    "round": 2,
}


def test_an_event_says_whose_it_is() -> None:
    made = event(MESSAGE, "validated", 1_500, "validate")
    assert made["event_id"] == "m1:validated:2:1"
    assert (made["tenant"], made["submission_id"], made["stream"]) == ("shop", "s1", "transactional")
    assert (made["recipient"], made["recipient_domain"]) == ("a@b.example", "b.example")
    assert (made["at"], made["accepted_at"], made["stage"]) == (1_500, 1_000, "validate")
    assert (made["round"], made["attempt"], made["size"], made["tags"]) == (2, 1, 117, ["welcome"])
    assert "site" not in made


def test_metadata_comes_at_the_start_and_at_the_end() -> None:
    carrying = {kind for kind in typing.get_args(EventKind) if "metadata" in event(MESSAGE, kind, 0, "x")}
    assert carrying == ENDS | {"accepted"}
    assert frozenset({"delivered", "bounced", "dropped", "rejected", "expired", "cancelled"}) == ENDS


def test_the_route_is_filled_in() -> None:
    routed = MESSAGE | {"route": {"site": "big", "shard": 3, "hosts": ["mx"], "pool": "main", "source": "ip1"}}
    made = event(typing.cast(Message, routed), "routed", 0, "route")
    assert (made["site"], made["pool"], made["source"]) == ("big", "main", "ip1")


def test_given_fields_win_and_long_texts_are_cut() -> None:
    made = event(MESSAGE, "deferred", 0, "classify", attempt=2, reason="greylisted", detail="d" * 999, reply="é" * 999)
    assert made["event_id"] == "m1:deferred:2:2"
    assert (made["attempt"], made["reason"]) == (2, "greylisted")
    assert (made["detail"], made["reply"]) == ("d" * TEXT_MAX, "é" * TEXT_MAX)


def test_a_message_with_nothing_but_what_it_must_have() -> None:
    bare = {key: MESSAGE[key] for key in Message.__required_keys__}  # type: ignore[literal-required]
    made = event(typing.cast(Message, bare), "accepted", 0, "ingest")
    assert (made["round"], made["attempt"], made["tags"], made["metadata"]) == (0, 0, [], {})


@pytest.mark.parametrize("field", sorted(Fields.__annotations__))
def test_what_a_stage_may_add_is_a_field_of_the_schema(field: str) -> None:
    assert field in Event.__annotations__


def test_the_message_is_not_changed() -> None:
    before = dict(MESSAGE)
    event(MESSAGE, "delivered", 0, "classify", reply="ok")
    assert before == MESSAGE


def test_feedback_is_named_by_its_evidence():
    first, other = (event(MESSAGE, "late_bounce", 1, "classify", evidence=name) for name in ("r1", "r2"))
    assert first["event_id"] != other["event_id"] and first["evidence"] == "r1"
    assert (
        event(MESSAGE, "delivered", 1, "classify", evidence="r1")["event_id"]
        == event(MESSAGE, "delivered", 1, "classify")["event_id"]
    )


def test_noted_is_about_no_message_and_no_step():
    made = noted("", 5, "classify", "x", "r@there.test", reason="report-forged", detail="d" * 900)
    assert (made["kind"], made["message_id"], made["tenant"], made["recipient_domain"], len(made["detail"])) == (
        "noted", "", "", "there.test", 500)  # fmt: skip
    full: Any = {"round": 0, "attempt": 0, "due_at": None, **made}
    assert step_of(full) is None
    assert all(step_of({**full, "kind": kind}) is None for kind in ("reported", "complained", "late_bounce"))
