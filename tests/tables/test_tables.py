"""Logical tables: numbers for life, keys that cannot be mistaken, values that come back as they were."""

import importlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

import avro
from agents.worker import STAGES
from postroad.dns import MxAnswer
from postroad.intake import Use
from postroad.shaping.automatic import NEUTRAL, Count, Standing
from tables import dedupe, due, ended, suppressions
from tables.cancelled import CANCELLED
from tables.content_scores import CONTENT_SCORES
from tables.dedupe import DEDUPE, Known
from tables.deliveries import DELIVERIES, Tried
from tables.due import BEGINNING, DUE, NEVER, WAITING, Waiting
from tables.ended import ENDED
from tables.mx_cache import MX_CACHE
from tables.rate_limits import RATE_LIMITS
from tables.seen import SEEN
from tables.shaping import SHAPING, source_key, tenant_key
from tables.suppressions import SUPPRESSED
from tables.tenant_quota import TENANT_QUOTA
from tables.values import shape
from topics.codec import Codec, UnknownSchema, published

# Where a stage keeps what: a number that changes makes the state of every installation unreadable.
PLACES = {
    "ingest": {1: "dedupe", 2: "tenant_quota"},
    "validate": {1: "mx_cache"},
    "score": {1: "content_scores"},
    "suppress": {1: "suppressed", 2: "seen", 3: "cancelled", 4: "not_in_force"},
    "route": {1: "mx_cache"},
    "send": {1: "rate_limits", 2: "deliveries", 3: "shaping", 4: "warmup", 5: "windows"},
    "classify": {1: "ended", 2: "last_replies", 3: "tallies", 4: "histories", 5: "reported", 6: "early"},
    "schedule": {
        1: "due",
        2: "waiting",
        3: "cancelled",
        4: "beginning",
        5: "sites",
        6: "applied",
        7: "flushed",
        8: "rescheduled",
        9: "traced",
    },
    "events_sink": {},
    "audit": {1: "audited", 2: "deadlines", 3: "beginning"},
    "reputation": {1: "parts", 2: "pending", 3: "steps"},
    "notify": {1: "notices", 2: "endpoints"},
}

text = st.text(max_size=30)
MESSAGE = {
    "message_id": "m1", "tenant": "t", "submission_id": "s", "stream": "broadcast", "accepted_at": 1, "recipient": "ü@there.test",
    "sender": "a@acme.test", "return_path": "b-m1@acme.test", "content": {"hash": "h", "size": 3, "inline": b"\xff\0x"},
    "expires_at": 2, "top": b"To: x\r\n",
    "route": {"site": "there.test", "shard": 0, "hosts": ["mx"], "pool": "default", "source": "default"},
}  # fmt: skip
LISTED = {
    "reason": "manual", "evidence": ["ü"], "active": True, "at": 1, "expires_at": None, "detail": "", "stopped_by": "ü",
    "claims": [], "removed_at": -1,
}  # fmt: skip


def decoded_message():
    codec = Codec("Message")
    return codec.decode(codec.encode(MESSAGE))


@pytest.mark.parametrize("stage", STAGES)
def test_numbers_are_for_life(stage):
    tables = importlib.import_module(f"agents.{stage}").stage.tables
    assert {table.number: table.name for table in tables} == PLACES[stage]


@pytest.mark.parametrize(
    ("table", "value"),
    [
        (CANCELLED, "replaced by submission ü"),
        (CONTENT_SCORES, {"value": 1.5, "rules": ["gtube"], "model": ""}),
        (DELIVERIES, Tried(0, True)),
        (DELIVERIES, Tried(40_000, False)),
        (MX_CACHE, MxAnswer("hosts", ((10, "mx.there.test"),), 1)),
        (RATE_LIMITS, 1_700_000_000_000.25),
        (SHAPING, NEUTRAL),
        (SHAPING, Standing(0.25, 1_700_000_000_000, 0.5, 5, 7, ((b"8 bytes.", Count(3, (1, 1_700_000_000_000))),))),
        (SEEN, 0),
        (SEEN, 70_000),
        (
            SUPPRESSED,
            LISTED,
        ),
        (TENANT_QUOTA, Use(1_700_000_000_000.5, 19_675, 10**12)),
        (TENANT_QUOTA, Use()),
        (BEGINNING, 1_700_000_000_000),
        (WAITING, Waiting(3, NEVER)),
        (WAITING, Waiting(3, 5, True)),
    ],
)
def test_values_come_back(table, value):
    found = table.decode(table.encode(value))
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("table", "value"), [(DELIVERIES, Tried(3, True)), (WAITING, Waiting(3, 5, True)), (TENANT_QUOTA, Use(1.5, 2, 3))]
)
def test_packed_values_of_other_releases(table, value):
    raw = table.encode(value)
    assert table.decode(raw + b"\x07more") == value  # a newer one has added fields
    assert table.decode(raw[:-1]) == (*value[:-1], 0)  # an older one ends before the last


def test_a_standing_of_a_newer_release_comes_back():
    standing = Standing(0.25, 1, 0.5, 5, 7, ((b"8 bytes.", Count(3, (1, 2))),))
    assert SHAPING.decode(SHAPING.encode(standing) + b"\x07more") == standing


def test_keys_of_sources_and_tenants_cannot_be_mistaken():
    assert len({source_key(b"a#0", "b"), tenant_key(b"a#0", "b"), source_key(b"a#0", ""), tenant_key(b"a#0", "")}) == 4


@pytest.mark.parametrize(
    ("table", "value"),
    [
        (CONTENT_SCORES, {"value": 1.5, "rules": ["gtube"], "model": ""}),
        (DEDUPE, {"submission_id": "s", "messages": [["m1", "r@there.test"]]}),
        (SUPPRESSED, LISTED),
    ],
)
def test_json_values_of_a_newer_release_lose_what_only_it_knows(table, value):
    assert table.decode(table.encode({**value, "newer": {"x": 1}})) == value


def test_a_score_that_a_newer_release_kept_can_be_passed_on():
    """What a table holds goes into a record: a field too many would be an EncodeError."""
    score = CONTENT_SCORES.decode(CONTENT_SCORES.encode({"value": 1.5, "rules": [], "model": "", "newer": 1}))
    codec = Codec("Message")
    assert codec.decode(codec.encode({**MESSAGE, "score": score}))["score"]["value"] == 1.5


def test_json_defaults_fill_in_what_an_older_release_has_not_written():
    decode = shape(Known, {"newer": []})
    first, second = decode(b'{"submission_id":"s","messages":[]}'), decode(b'{"submission_id":"s","messages":[]}')
    assert first == {"submission_id": "s", "messages": [], "newer": []}
    assert first["newer"] is not second["newer"]


def test_an_end_of_another_release_comes_back():
    kept = ended.kept("delivered", decoded_message())
    newer = {**kept, "newer": 1, "message": {**kept["message"], "newer": 1}}
    assert ENDED.decode(ENDED.encode(newer)) == kept
    older = {"kind": "delivered", "message": {k: v for k, v in kept["message"].items() if k not in ("tags", "round")}}
    assert ENDED.decode(ENDED.encode(older))["message"] == {**kept["message"], "tags": [], "round": 0}


def test_an_mx_answer_of_a_newer_release_comes_back():
    answer = MxAnswer("hosts", ((10, "mx.there.test"),), 1)
    assert MX_CACHE.decode(MX_CACHE.encode(answer)[:-1] + b',"newer"]') == answer


def test_a_waiting_message_of_an_unknown_release_asks_for_its_schema():
    """The runner learns it through the codecs of its topics, which all share what control.schemas has told."""
    schema = avro.load("Scheduled")
    schema["fields"].append({"name": "newer", "type": "int", "default": 0})
    entry = {"message": decoded_message(), "at": 1, "due_at": None, "reason": "held", "return_to": "validated"}
    raw = Codec(schema).encode({**entry, "newer": 5})
    with pytest.raises(UnknownSchema):
        DUE.decode(raw)
    published[raw[:10]] = schema
    try:
        assert DUE.decode(raw) == entry
    finally:
        del published[raw[:10]]


def test_known_submission_comes_back():
    found = DEDUPE.decode(DEDUPE.encode({"submission_id": "s", "messages": [("m1", "r@there.test")]}))
    assert [tuple(pair) for pair in found["messages"]] == [("m1", "r@there.test")]


def test_waiting_message_comes_back_whole():
    entry = {"message": decoded_message(), "at": 1, "due_at": None, "reason": "held", "return_to": "validated"}
    assert DUE.decode(DUE.encode(entry)) == entry


def test_delivered_message_is_kept_without_its_content():
    kept = ended.kept("delivered", decoded_message())
    found = ENDED.decode(ENDED.encode(kept))
    assert found == kept
    assert found["kind"] == "delivered" and found["message"]["content"] == {"hash": "", "size": 3}
    assert len(ENDED.encode(kept)) < 1000


@given(text, text, text, text)
def test_ids_of_submissions_are_not_mistaken_for_others(tenant, other, id, other_id):
    tenant, other = tenant.replace("\0", ""), other.replace("\0", "")  # a tenant's id has none: postroad/tenants.py
    keys = {dedupe.by_submission(tenant, id), dedupe.by_dedupe_id(tenant, id)}
    assert len(keys) == 2
    if (tenant, id) != (other, other_id):
        assert dedupe.by_submission(other, other_id) not in keys
        assert dedupe.by_dedupe_id(other, other_id) not in keys


def test_suppression_is_for_an_address_whatever_its_case():
    assert suppressions.key("t", "R@There.test") == suppressions.key("t", "r@there.test") == "t\0r@there.test"
    assert suppressions.key("", "r@there.test") != suppressions.key("t", "r@there.test")


@given(st.integers(0, NEVER), st.integers(0, NEVER), text, text)
def test_due_sorts_by_time_and_gives_it_back(first, second, id, other):
    assert due.due_at(due.key(first, id)) == first
    if first < second:
        assert due.key(first, id) < due.key(second, other)
