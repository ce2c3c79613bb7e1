"""What a tenant with a key of its own tries: to have more than it was given, or more of the process than its share."""

import errno
import json
import time
from itertools import pairwise
from types import SimpleNamespace

import pytest

from postroad.webhooks.sealing import Sealing
from topics.catalogue import CANCELLATIONS, KEYS, NOTIFIED, RESCHEDULES, SUBMISSIONS, SUPPRESSIONS, WEBHOOKS

FORM = "application/x-www-form-urlencoded"


def _id(secret):
    return secret.split("_")[2]


@pytest.mark.parametrize(
    ("caller", "other"),
    [
        ({"test_mode": True}, {}),
        ({"streams": ["broadcast"]}, {}),
        ({"streams": ["broadcast"]}, {"streams": ["transactional"]}),
        ({"expires_at": 1_790_000_600_000}, {}),
        ({"expires_at": 1_790_000_600_000}, {"expires_at": 1_790_000_600_001}),
        ({"scopes": ["manage"]}, {}),
    ],
)
async def test_no_key_is_had_by_rotating_or_making_it_that_has_more(rig, caller, other):
    mine = rig.make("acme", **caller)
    theirs = rig.make("acme", **other)
    assert (await rig.ask("POST", f"/v1/keys/{_id(theirs)}/rotate", {}, key=mine)).status == 403
    wish = {"scopes": ["send", "read"], **other}
    if "expires_at" in wish:
        wish["expires_at"] = "2026-09-21T14:23:20.001Z"
    assert (await rig.ask("POST", "/v1/keys", wish, key=mine)).status == 403
    assert not rig.log.records[KEYS]
    assert (await rig.ask("POST", f"/v1/keys/{_id(mine)}/rotate", {}, key=mine)).status == 201


async def test_a_key_of_one_stream_changes_no_message_or_job_of_another(rig, mail):
    key = rig.make("acme", streams=["broadcast"])
    sent = [(await rig.ask("POST", "/v1/send", mail | {"stream": one})).json()["messages"][0]["message_id"]
            for one in ("transactional", "broadcast")]  # fmt: skip
    for method, body in (("DELETE", None), ("PATCH", {"send_at": "2026-09-21T15:00:00Z"})):
        answers = [await rig.ask(method, f"/v1/messages/{id}", body, key=key) for id in sent]
        assert [one.status for one in answers] == [403, 202]
    assert len(rig.log.records[CANCELLATIONS]) == len(rig.log.records[RESCHEDULES]) == 1
    for other, status in ((rig.key, 403), (key, 202)):
        made = await rig.ask("POST", "/v1/send/batch", raw=b"{}\n", kind="application/x-ndjson", key=other)
        assert (await rig.ask("POST", f"/v1/jobs/{made.json()['job_id']}/cancel", key=key)).status == status


async def test_the_rate_counts_tokens_and_has_no_number_that_is_none(rig):
    rig.door.limits._rate_of = lambda subject: 10.0
    form = f"grant_type=client_credentials&client_secret={rig.key}".encode()
    answers = [await rig.ask("POST", "/v1/oauth/token", raw=form, kind=FORM, key="") for _ in range(3)]
    assert [one.status for one in answers] == [200, 200, 429] and answers[2].headers["retry-after"]
    rig.log.now += 10_000
    answer = await rig.ask("POST", "/v1/keys", {"scopes": ["read"], "rate_per_second": 1e-310})
    assert answer.status == 422


async def test_keys_in_force_have_a_bound(rig, monkeypatch):
    monkeypatch.setattr("gateway.api.access.KEYS_MAX", 3)
    found = [await rig.ask("POST", "/v1/keys", {"scopes": ["read"]}) for _ in range(3)]
    assert [one.status for one in found] == [201, 201, 409]
    await rig.ask("DELETE", f"/v1/keys/{found[0].json()['key']['key_id']}")
    assert (await rig.ask("POST", "/v1/keys", {"scopes": ["read"]})).status == 201
    assert (await rig.ask("POST", "/v1/keys", {"scopes": ["read"]}, key=rig.stranger)).status == 201


def _personalized(number=1, **more):
    to = [{"email": "bob@there.test"}]
    return {"from": {"email": "ann@acme.test"}, "subject": "-", "content": [{"type": "text/plain", "value": "a" * 1000}],
            "personalizations": [{"to": to, **more} for _ in range(number)]}  # fmt: skip


async def test_substitutions_do_not_grow_without_end(rig):
    letters = "abcdefghijklmnopqrstuvwxyz"
    bomb = {one: next * 2 for one, next in pairwise(letters)}
    for mail in (_personalized(substitutions=bomb), _personalized(500, substitutions={"a": "b" * 1000})):
        started = time.monotonic()
        answer = await rig.ask("POST", "/v3/mail/send", mail)
        assert answer.status == 400 and "substitutions" in str(answer.json()["errors"][0]["field"]), answer.body
        assert time.monotonic() - started < 5
    assert (await rig.ask("POST", "/v3/mail/send", _personalized(substitutions={"": "x"}))).status == 400
    assert not rig.log.records[SUBMISSIONS]
    assert (await rig.ask("POST", "/v3/mail/send", _personalized(substitutions={"a": "bb"}))).status == 202
    assert rig.log.values(SUBMISSIONS)[0]["text"].strip() == "bb" * 1000


async def test_a_file_of_many_personalizations_is_stored_once(rig, monkeypatch):
    puts, put_blob = [], rig.contents.put_blob

    async def counted(data):
        puts.append(len(data))
        return await put_blob(data)

    monkeypatch.setattr(rig.contents, "put_blob", counted)
    mail = _personalized(50)
    mail["attachments"] = [{"content": "QUFB" * 20_000, "filename": "a.bin"}]
    assert (await rig.ask("POST", "/v3/mail/send", mail)).status == 202
    assert puts == [60_000]
    kept = {one["attachments"][0]["content"] for one in rig.log.values(SUBMISSIONS)}
    assert len(rig.log.values(SUBMISSIONS)) == 50 and len(kept) == 1


@pytest.mark.parametrize(
    "more",
    [{"to": ["a"] * 300_000}, {"reply_to": ["a"] * 300_000}, {"headers": {str(n): "" for n in range(300_000)}}, {"bcc": [{"address": ""}] * 300_000},
     {"attachments": [{"filename": "", "content": ""}] * 300_000}],
    ids=lambda more: next(iter(more)),
)  # fmt: skip
async def test_of_a_million_recipients_nothing_is_made(rig, mail, more, monkeypatch):
    made = []
    for name in ("mailbox", "attachment"):
        monkeypatch.setattr(f"gateway.api.messages.{name}", lambda *_: made.append(1))
    answer = await rig.ask(
        "POST", "/v1/send", {**mail, "from": {"address": "ann@acme.test"}, "to": "bob@there.test", **more}
    )
    assert answer.status == 422 and answer.json()["errors"][0]["pointer"] == f"/{next(iter(more))}"
    assert len(made) <= 2


async def test_entries_that_are_over_are_not_the_end_of_the_list(rig):
    lists = rig.door.suppressions
    for number in range(30):
        lists.hear(SimpleNamespace(key=f"acme\0r{number:02}@there.test".encode()), {
            "recipient": f"r{number:02}@there.test", "tenant": "acme", "reason": "manual", "since": 1, "at": 1, "detail": "", "source": "rest",
            "expires_at": 2 if number < 20 else None, "by": "", "cause": "", "evidence": []})  # fmt: skip
    first = (await rig.ask("GET", "/v1/suppressions?limit=6")).json()
    rest = (await rig.ask("GET", f"/v1/suppressions?limit=6&cursor={first['next']}")).json()
    assert [len(first["suppressions"]), len(rest["suppressions"]), rest["next"]] == [6, 4, None]
    assert len(lists.page("acme", "", "", 5, 3)) == 5


async def test_addresses_with_a_slash_can_be_asked_for_and_let_pass(rig):
    lists = rig.door.suppressions
    entry = {"recipient": "a/b@there.test", "tenant": "acme", "reason": "manual", "since": 1, "at": 1, "detail": "", "source": "rest",
             "expires_at": None, "by": "", "cause": "", "evidence": []}  # fmt: skip
    lists.hear(SimpleNamespace(key=b"acme\0a/b@there.test"), entry)
    assert (await rig.ask("GET", "/v1/suppressions/a/b@there.test")).status == 200
    assert (await rig.ask("DELETE", "/v1/suppressions/a/b@there.test")).status == 202
    assert (await rig.ask("GET", "/v1/suppressions")).status == 200


async def test_a_list_of_addresses_comes_with_its_reason(rig):
    file = b"email\r\na@there.test\r\n"
    answer = await rig.ask("POST", "/v1/suppressions.csv", raw=file, kind="text/csv")
    assert answer.status == 422 and b"?reason=" in answer.body
    answer = await rig.ask("POST", "/v1/suppressions.csv?reason=unsubscribe", raw=file, kind="text/csv")
    assert answer.json()["added"] == 1 and rig.log.values(SUPPRESSIONS)[0]["reason"] == "unsubscribe"
    blocks = b"status,reason,email,created\r\n4.0.0,busy,a@there.test,1700000000\r\n"
    answer = await rig.ask("POST", "/v1/suppressions.csv?name=suppression_blocks.csv", raw=blocks, kind="text/csv")
    assert answer.status == 422 and len(rig.log.records[SUPPRESSIONS]) == 1


async def test_a_failure_names_the_route_and_no_address(rig, monkeypatch, caplog):
    def full(folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    def broken(*_):
        raise RuntimeError("broken")

    monkeypatch.setattr(rig.door.suppressions, "get", broken)
    answer = await rig.ask("GET", "/v1/suppressions/ann@there.test")
    assert (answer.status, answer.json()["type"]) == (500, "urn:postroad:problem:failed")
    assert "GET /v1/suppressions/{recipient" in caplog.text and "ann@there.test" not in caplog.text
    monkeypatch.setattr("gateway.api.bodies.spooled", full)
    answer = await rig.ask("POST", "/v1/send/batch", raw=b"{}\n", kind="application/x-ndjson")
    assert answer.status == 503 and answer.headers["retry-after"]


async def test_an_endpoint_with_many_tries_does_not_fill_the_memory(rig, monkeypatch):
    made = (await rig.ask("POST", "/v1/webhooks", {"url": "https://hooks.test/a"})).json()
    id = made["webhook"]["webhook_id"]
    for number in range(300):
        await rig.log.send(NOTIFIED, {"notification_id": f"evt_{number % 100}", "webhook_id": id, "tenant": "acme", "type": "message.bounced",
                                      "at": rig.log.now, "body": "x" * 1000, "attempt": 1, "tried_at": rig.log.now,
                                      "outcome": "delivered" if number % 100 < 50 else "dead"})  # fmt: skip
    shown = (await rig.ask("GET", f"/v1/webhooks/{id}/deliveries?limit=10")).json()["deliveries"]
    assert [one["notification_id"] for one in shown] == [f"evt_{n}" for n in range(90, 100)]
    monkeypatch.setattr("postroad.webhooks.redrive.MANY", 20)
    sent = (await rig.ask("POST", f"/v1/webhooks/{id}/redrive", {})).json()
    assert sent == {"notifications": [f"evt_{n}" for n in range(50, 70)], "more": True}
    monkeypatch.setattr("postroad.webhooks.redrive.MANY", 50)
    assert (await rig.ask("POST", f"/v1/webhooks/{id}/redrive", {})).json()["more"] is False


async def test_no_secret_of_a_webhook_lies_in_kafka_as_it_is_shown(rig, tmp_path):
    rig = type(rig)(tmp_path, webhook_secret_key=["k" * 32])
    made = (await rig.ask("POST", "/v1/webhooks", {"url": "https://hooks.test/a"})).json()
    id = made["webhook"]["webhook_id"]
    new = (await rig.ask("POST", f"/v1/webhooks/{id}/rotate", {})).json()["secret"]
    kept = [one["secret"] for one in rig.webhooks[id]["secrets"]]
    assert [Sealing(["k" * 32]).open(one) for one in kept] == [new, made["secret"]]
    text = json.dumps([webhook for _, webhook, _ in rig.log.records[WEBHOOKS]])
    assert new not in text and made["secret"] not in text
