"""Keys, tokens, suppressions, domains, webhooks: what they do, and that every change is told."""

import base64
import json
from datetime import UTC, datetime

import pytest

from postroad.domains import Platform, records
from topics.catalogue import DOMAIN_CLAIMS, EVENTS, IN_FORCE, NOTIFICATIONS, NOTIFIED, SUPPRESSIONS, TENANTS


def _told(rig):
    return [(event["reason"], event["rule"].partition(":")[0]) for event in rig.log.values(EVENTS)]


async def test_a_key_is_made_shown_once_rotated_and_revoked(rig):
    made = (
        await rig.ask("POST", "/v1/keys", {"scopes": ["send", "read"], "name": "shop", "streams": ["transactional"]})
    ).json()
    secret = made["secret"]
    assert secret.startswith("pr_live_") and rig.followed[made["key"]["key_id"]]["hash"] not in secret
    listed = await rig.ask("GET", "/v1/keys")
    assert secret.encode() not in listed.body and [one["name"] for one in listed.json()["keys"]] == ["", "shop"]
    mail = {"from": "a@acme.test", "to": "b@there.test", "text": "x", "stream": "broadcast"}
    assert (await rig.ask("POST", "/v1/send", mail, key=secret)).status == 403
    new = (await rig.ask("POST", f"/v1/keys/{made['key']['key_id']}/rotate", {"overlap_s": 60})).json()["secret"]
    mail["stream"] = "transactional"
    assert [(await rig.ask("POST", "/v1/send", mail, key=key)).status for key in (secret, new)] == [202, 202]
    rig.log.now += 60_000
    assert [(await rig.ask("POST", "/v1/send", mail, key=key)).status for key in (secret, new)] == [401, 202]
    assert _told(rig) == [("key-created", "key"), ("key-rotated", "key")]
    assert all(secret not in json.dumps(event) for event in rig.log.values(EVENTS))


@pytest.mark.parametrize(
    ("asked", "status"),
    [({"scopes": []}, 422), ({"scopes": ["root"]}, 422), ({"scopes": ["read"], "streams": ["x"]}, 422), ({"scopes": ["read"], "name": "a\nb"}, 422),
     ({"scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z"}, 422), ({"scopes": ["send"]}, 403), ({"scopes": ["manage"]}, 201)],
)  # fmt: skip
async def test_a_key_gives_no_more_than_it_has(rig, asked, status):
    answer = await rig.ask("POST", "/v1/keys", asked, key=rig.make("acme", ["manage", "read"]))
    assert answer.status == status, answer.body


async def test_a_token_is_as_good_as_its_key_and_ends_with_it(rig):
    secret = rig.make("acme", ["read", "manage"])
    id = secret.split("_")[2]
    form, kind = (
        f"grant_type=client_credentials&client_id={id}&client_secret={secret}",
        "application/x-www-form-urlencoded",
    )
    answer = await rig.ask("POST", "/v1/oauth/token", raw=form.encode(), kind=kind, key="")
    token = answer.json()["access_token"]
    assert (answer.json()["token_type"], answer.headers["cache-control"]) == ("Bearer", "no-store")
    basic = {"authorization": "Basic " + base64.b64encode(f"{id}:{secret}".encode()).decode()}
    assert (
        await rig.ask("POST", "/v1/oauth/token", raw=b"grant_type=client_credentials", kind=kind, key="", headers=basic)
    ).status == 200
    wrong = form.replace(secret, secret[:-1] + "_")
    assert (await rig.ask("POST", "/v1/oauth/token", raw=wrong.encode(), kind=kind, key="")).status == 401
    assert (await rig.ask("POST", "/v1/oauth/token", raw=b"grant_type=password", kind=kind, key="")).status == 400
    assert (await rig.ask("GET", "/v1/keys", key=token)).status == 200
    assert (await rig.ask("POST", "/v1/send", {}, key=token)).status == 403
    head, body, tail = token.split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    for forged in (f"{none}.{body}.", f"{none}.{body}.{tail}", f"{head}.{body}.{tail[:-2]}AA", f"{head}.{body}"):
        assert (await rig.ask("GET", "/v1/keys", key=forged)).status == 401
    await rig.ask("DELETE", f"/v1/keys/{id}")
    assert (await rig.ask("GET", "/v1/keys", key=token)).status == 401


async def test_a_token_expires(rig):
    id, kind = rig.key.split("_")[2], "application/x-www-form-urlencoded"
    form = f"grant_type=client_credentials&client_id={id}&client_secret={rig.key}".encode()
    token = (await rig.ask("POST", "/v1/oauth/token", raw=form, kind=kind, key="")).json()["access_token"]
    rig.log.now += 3_601_000
    assert (await rig.ask("GET", "/v1/keys", key=token)).status == 401


async def test_suppressions_one_by_one(rig):
    answer = await rig.ask("POST", "/v1/suppressions", {"recipients": ["Gone@There.test"], "reason": "unsubscribe"})
    (entry,) = rig.log.values(SUPPRESSIONS)
    assert (answer.status, entry["tenant"], entry["action"], entry["source"]) == (202, "acme", "add", "rest")
    assert (await rig.ask("POST", "/v1/suppressions", {"recipients": ["nobody"]})).json()["errors"][0][
        "pointer"
    ] == "/recipients/0"
    assert (await rig.ask("DELETE", "/v1/suppressions/gone@there.test")).status == 202
    assert rig.log.values(SUPPRESSIONS)[1]["action"] == "remove"
    assert _told(rig) == [("suppressions-added", "key"), ("suppressions-removed", "key")]
    assert "there.test" not in json.dumps(rig.log.values(EVENTS))


async def test_suppressions_as_lists_and_files(rig):
    for number in range(5):
        for tenant in ("acme", "other", ""):
            entry = {"recipient": f"r{number}@{tenant or 'all'}.test", "tenant": tenant, "reason": "hard_bounce", "since": 1, "at": 1,
                     "detail": "=cmd|' /C calc'!A0", "expires_at": 2 if number == 4 else None, "source": "csv", "by": "", "cause": "",
                     "evidence": [{"evidence": "e", "reason": "hard_bounce", "at": 1, "source": "csv", "message_id": ""}]}  # fmt: skip
            await rig.log.send(IN_FORCE, entry)
    first = (await rig.ask("GET", "/v1/suppressions?limit=3")).json()
    rest = (await rig.ask("GET", f"/v1/suppressions?limit=3&cursor={first['next']}")).json()
    assert [one["recipient"] for one in first["suppressions"] + rest["suppressions"]] == [
        f"r{n}@acme.test" for n in range(4)
    ]
    assert rest["next"] is None and (await rig.ask("GET", "/v1/suppressions/r0@all.test")).status == 404
    file = (await rig.ask("GET", "/v1/suppressions.csv")).body
    assert file.count(b"\r\n") == 5 and b"other" not in file and b",=cmd" not in file
    back = await rig.ask("POST", "/v1/suppressions.csv", raw=file + b"not a row\r\n", kind="text/csv", key=rig.stranger)
    assert back.json()["added"] == 4 and back.json()["wrong"] == 1 and back.json()["faults"][0]["line"] == 6
    assert {entry["tenant"] for entry in rig.log.values(SUPPRESSIONS)} == {"other"}
    assert (await rig.ask("POST", "/v1/suppressions.csv", raw=b"x,y\r\n1,2\r\n", kind="text/csv")).status == 422


async def test_a_domain_is_ours_when_dns_has_its_keys(rig):
    made = (await rig.ask("POST", "/v1/domains", {"domain": "New.Example", "return_path": "b.new.example"})).json()
    assert (made["domain"], made["state"]) == ("new.example", "claimed")
    mail = {"from": "a@new.example", "to": "b@there.test", "text": "x"}
    assert (await rig.ask("POST", "/v1/send", mail)).status == 403
    assert (await rig.ask("POST", "/v1/domains/new.example/verify")).json()["domain"]["state"] == "claimed"
    zone = {
        one.name: one.value
        for one in records(rig.log.values(DOMAIN_CLAIMS)[0]["own"], Platform())
        if "_domainkey" in one.name
    }
    rig.dns = lambda name, kind: (zone[name],) if kind == "TXT" and name in zone else ()
    found = (await rig.ask("POST", "/v1/domains/new.example/verify")).json()
    assert found["domain"]["state"] == "verified" and {
        one["level"] for one in found["findings"] if "DKIM" in one["record"]
    } == {"ok"}
    assert (await rig.ask("POST", "/v1/send", mail)).status == 202
    assert rig.log.values(TENANTS)[0]["domains"][0]["domain"] == "acme.test"
    assert (await rig.ask("DELETE", "/v1/domains/new.example")).status == 204
    assert (await rig.ask("POST", "/v1/send", mail)).status == 403
    assert [action for action, _ in _told(rig)] == ["domain-claimed", "domain-verified", "domain-deleted"]


async def test_another_tenants_domain_is_never_taken(rig):
    assert (await rig.ask("POST", "/v1/domains", {"domain": "other.test"})).status == 201
    zone = {one.name: one.value for one in records(rig.log.values(DOMAIN_CLAIMS)[0]["own"], Platform())}
    rig.dns = lambda name, kind: (zone[name],) if kind == "TXT" and name in zone else ()
    assert (await rig.ask("POST", "/v1/domains/other.test/verify")).status == 409
    assert not rig.log.records[TENANTS]


@pytest.mark.parametrize("domain", ["", "x", "a b.test", "-.test", "a" * 300, "192.0.2.1", "x.test\r\nA: b"])
async def test_what_is_no_domain(rig, domain):
    assert (await rig.ask("POST", "/v1/domains", {"domain": domain})).status == 422


async def test_webhooks(rig):
    made = (
        await rig.ask("POST", "/v1/webhooks", {"url": "https://hooks.test/a", "types": ["bounced"], "kind": "ed25519"})
    ).json()
    id = made["webhook"]["webhook_id"]
    assert (
        made["secret"].startswith("whsk_")
        and made["public_key"].startswith("whpk_")
        and made["webhook"]["types"] == ["message.bounced"]
    )
    assert made["secret"].encode() not in (await rig.ask("GET", f"/v1/webhooks/{id}")).body
    assert (await rig.ask("PATCH", f"/v1/webhooks/{id}", {"enabled": False})).json()["enabled"] is False
    assert (await rig.ask("POST", f"/v1/webhooks/{id}/redrive", {})).status == 409
    assert (await rig.ask("PATCH", f"/v1/webhooks/{id}", {"enabled": True, "types": []})).json()["types"] == []
    assert (await rig.ask("POST", f"/v1/webhooks/{id}/rotate", {})).json()["secret"] != made["secret"]
    assert len(rig.webhooks[id]["secrets"]) == 2
    assert (await rig.ask("POST", f"/v1/webhooks/{id}/test")).status == 202
    (notice,) = rig.log.values(NOTIFICATIONS)
    await rig.log.send(NOTIFIED, {**notice, "attempt": 3, "outcome": "dead", "tried_at": rig.log.now, "status": 500})
    assert (await rig.ask("GET", f"/v1/webhooks/{id}/deliveries")).json()["deliveries"][0]["status"] == 500
    until = datetime.fromtimestamp(rig.log.now / 1000 + 60, UTC).isoformat()
    again = (await rig.ask("POST", f"/v1/webhooks/{id}/redrive", {"until": until, "types": ["webhook.test"]})).json()
    assert again["notifications"] == [notice["notification_id"]]
    assert (await rig.ask("DELETE", f"/v1/webhooks/{id}")).status == 204 and id not in rig.webhooks


@pytest.mark.parametrize(
    "url",
    [
        "http://a.test/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://u:p@a.test/",
        "ftp://a",
        "",
        "https://169.254.169.254/",
    ],
)
async def test_urls_that_no_webhook_may_have(rig, url):
    answer = await rig.ask("POST", "/v1/webhooks", {"url": url})
    assert (answer.status, answer.json()["errors"][0]["pointer"]) == (422, "/url")


async def test_a_rate_is_kept_and_said(rig):
    rig.door.limits._rate_of = lambda subject: 10.0 if subject[0] == "k" else 1_000.0
    answers = [await rig.ask("GET", "/v1/keys") for _ in range(4)]
    assert [one.status for one in answers] == [200, 200, 429, 429]
    assert int(answers[2].headers["retry-after"]) >= 1 and "ratelimit" in answers[0].headers
    rig.log.now += 200
    assert (await rig.ask("GET", "/v1/keys")).status == 200
