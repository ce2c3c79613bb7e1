"""What a tenant with a key of its own tries: to have more than it was given, or more of the process than its share."""

import asyncio
import time

import pytest

from postroad import keys
from topics.catalogue import BROADCASTS, CANCELLATIONS, KEYS, RESCHEDULES, SUBMISSIONS

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
