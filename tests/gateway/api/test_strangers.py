"""A walk over every route with a stranger's key: of what is another tenant's it learns nothing, and changes nothing."""

import json
import re

import pytest

from gateway.api import all_routes
from topics.catalogue import ALL, EVENTS, JOBS, KEYS, WEBHOOKS

PUBLIC = {"/v1/oauth/token"}


async def _made(rig, mail):
    """What acme has, by the name of the parameter of a path."""
    sent = (await rig.ask("POST", "/v1/send", mail)).json()["messages"][0]["message_id"]
    hook = (await rig.ask("POST", "/v1/webhooks", {"url": "https://hooks.acme.test/x"})).json()["webhook"]["webhook_id"]
    key = (await rig.ask("POST", "/v1/keys", {"scopes": ["read"], "name": "secret-name"})).json()["key"]["key_id"]
    claimed = await rig.ask("POST", "/v1/domains", {"domain": "mine.acme.test"})
    assert claimed.status == 201, claimed.body
    job = (await rig.ask("POST", "/v1/send/batch", raw=json.dumps(mail).encode(), kind="application/x-ndjson")).json()[
        "job_id"
    ]
    entry = {"recipient": "gone@there.test", "tenant": "acme", "reason": "manual", "since": 1, "at": 1, "source": "rest", "by": "",
             "detail": "", "expires_at": None, "cause": "", "evidence": []}  # fmt: skip
    from topics.catalogue import IN_FORCE

    await rig.log.send(IN_FORCE, entry)
    return {
        "message_id": sent,
        "webhook_id": hook,
        "key_id": key,
        "domain": "mine.acme.test",
        "job_id": job,
        "recipient": "gone@there.test",
    }


BODIES = {
    "/v1/send": {"from": "x@other.test", "to": "b@there.test", "text": "x"},
    "/v3/mail/send": {"personalizations": [{"to": [{"email": "b@there.test"}]}], "from": {"email": "x@other.test"},
                      "subject": "s", "content": [{"type": "text/plain", "value": "x"}]},
    "/v1/keys": {"scopes": ["read"]}, "/v1/domains": {"domain": "their.other.test"}, "/v1/webhooks": {"url": "https://x.other.test/"},
    "/v1/suppressions": {"recipients": ["a@b.test"]}, "/v1/messages/{message_id}": {"send_at": "2026-12-24T18:00:00Z"},
}  # fmt: skip


def _name(route):
    return f"{route.method} {route.path}"


@pytest.mark.parametrize("route", all_routes(), ids=_name)
async def test_a_stranger_learns_nothing(rig, mail, route):
    if route.path in PUBLIC:
        return
    made = await _made(rig, mail)
    before = {topic: len(rig.log.records[topic]) for topic in ALL}
    parameters = re.findall(r"\{(\w+)(?::path)?\}", route.path)
    body = BODIES.get(route.path, {}) if route.body is not None or route.media else None
    path = route.path.replace(":path", "").format(**made)
    answer = await rig.ask(route.method, path, body, key=rig.stranger)
    for value in (*made.values(), "secret-name", "hooks.acme.test"):
        assert value.encode() not in answer.body or value in path, answer.body
    if (parameters and route.method != "DELETE") or (parameters and parameters != ["recipient"]):
        absent = {"message_id": "0" * 26, "webhook_id": "wh_none", "key_id": "k" * 16, "domain": "none.acme.test",
                  "job_id": "job_none", "recipient": "none@there.test"}  # fmt: skip
        none = await rig.ask(route.method, route.path.replace(":path", "").format(**absent), body, key=rig.stranger)
        assert (answer.status, answer.body) == (404, none.body) == (none.status, none.body), answer.body
        changed = {topic.name for topic in ALL if len(rig.log.records[topic]) != before[topic]}
        assert not changed, f"{_name(route)} wrote to {changed}"
    for topic in (WEBHOOKS, KEYS, JOBS):
        assert all(value is not None and value["tenant"] == "other" for value in rig.log.values(topic)[before[topic] :])


@pytest.mark.parametrize("route", all_routes(), ids=_name)
async def test_no_key_a_wrong_one_or_one_without_the_scope(rig, route):
    if route.path in PUBLIC:
        return
    path = re.sub(r"\{[\w:]+\}", "x", route.path)
    for key in ("", "pr_live_" + "a" * 16 + "_" + "b" * 32, "x.y.z", "é"):
        answer = await rig.ask(route.method, path, {}, key=key.encode().decode("latin-1"))
        assert answer.status == 401 and "www-authenticate" in answer.headers
    weak = rig.make("acme", [scope for scope in ("send", "read", "manage") if scope != route.scope])
    assert (await rig.ask(route.method, path, {}, key=weak)).status == 403
    assert not rig.log.records[EVENTS]


async def test_revoked_and_expired_keys_and_those_of_a_tenant_that_is_not_active(rig, mail):
    for key in (rig.make("acme", expires_at=rig.log.now + 10_000), rig.make("acme"), rig.make("nobody")):
        found = next(one for one in rig.followed.values() if one["key_id"] in key)
        if found["tenant"] == "acme":
            assert (await rig.ask("GET", "/v1/keys", key=key)).status == 200
        if found["expires_at"] is None:
            answer = await rig.ask("DELETE", f"/v1/keys/{found['key_id']}")
            assert answer.status == (204 if found["tenant"] == "acme" else 404)
        else:
            rig.log.now += 10_000
        assert (await rig.ask("GET", "/v1/keys", key=key)).status == 401
    rig.tenants["acme"] = {**rig.tenants["acme"], "active": False}
    assert (await rig.ask("POST", "/v1/send", mail)).status == 401


async def test_failures_are_slowed_and_logged_without_the_secret(rig, caplog):
    wrong = rig.key[:-4] + "XXXX"
    for _ in range(7):
        assert (await rig.ask("GET", "/v1/keys", key=wrong)).status == 401
    assert rig.waited == sorted(rig.waited) and rig.waited[0] < 1 < rig.waited[-1] <= 3
    assert rig.key.split("_")[2] in caplog.text and wrong.split("_")[3] not in caplog.text
