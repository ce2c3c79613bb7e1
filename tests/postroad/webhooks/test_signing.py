"""Signatures as the library of Standard Webhooks, and cryptography, verify them."""

import base64

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from postroad.webhooks.redrive import dead
from postroad.webhooks.signing import BadSecret, headers, in_force, new_secret, public_key

NOW = 1_763_900_000_000
BODY = b'{"type":"message.delivered"}'


@pytest.fixture(autouse=True)
def at_that_time(monkeypatch):
    import standardwebhooks.webhooks as library

    class Clock(library.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromtimestamp(NOW / 1000, tz)

    monkeypatch.setattr(library, "datetime", Clock)


def test_hmac_by_both_secrets_while_one_replaces_the_other():
    old, new = new_secret("hmac"), new_secret("hmac")
    webhook = {"secrets": [{"secret": new, "until": None}, {"secret": old, "until": NOW + 1}]}
    signed = headers(in_force(webhook, NOW), "evt_1", NOW, BODY)
    assert len(signed["webhook-signature"].split()) == 2
    for secret in (old, new):
        assert Verifier(secret).verify(BODY, signed)
    later = headers(in_force(webhook, NOW + 1), "evt_1", NOW, BODY)
    assert Verifier(new).verify(BODY, later)
    with pytest.raises(WebhookVerificationError):
        Verifier(old).verify(BODY, later)
    with pytest.raises(WebhookVerificationError):
        Verifier(new).verify(BODY + b" ", later)
    with pytest.raises(WebhookVerificationError):
        Verifier(new).verify(BODY, {**later, "webhook-id": "evt_2"})


def test_ed25519():
    secret = new_secret("ed25519")
    signed = headers([secret], "evt_1", NOW, BODY)
    version, _, signature = signed["webhook-signature"].partition(",")
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key(secret).removeprefix("whpk_")))
    content = b"evt_1." + signed["webhook-timestamp"].encode() + b"." + BODY
    assert version == "v1a"
    key.verify(base64.b64decode(signature), content)
    with pytest.raises(InvalidSignature):
        key.verify(base64.b64decode(signature), content + b" ")


@pytest.mark.parametrize("secrets", [[], ["whsec_"], ["whsec_%%%"], ["nothing"], ["whsk_AAAA"], ["whpk_" + "A" * 44]])
def test_what_cannot_sign_says_so_without_showing_it(secrets):
    with pytest.raises(BadSecret) as caught:
        headers(secrets, "evt_1", NOW, BODY)
    assert not any(secret in str(caught.value) for secret in secrets if len(secret) > 6)


def _try(number, outcome, at=NOW, kind="message.bounced"):
    return {"notification_id": f"evt_{number}", "webhook_id": "wh_1", "tenant": "acme", "type": kind, "at": at, "outcome": outcome, "body": "{}",
            "attempt": 9, "error": "x"}  # fmt: skip


def test_what_is_redriven_is_what_ended_dead_once_each():
    tries = [
        _try(1, "dead"), _try(2, "failed"), _try(2, "dead"), _try(3, "dead"), _try(3, "delivered"), _try(4, "dead", NOW - 10),
        _try(5, "dead", kind="message.delivered"), _try(1, "dead"),
    ]  # fmt: skip
    found = dead(tries, NOW - 5, NOW + 1, ["message.bounced"], NOW + 100)
    assert [one["notification_id"] for one in found] == ["evt_1", "evt_2"]
    assert all(one["at"] == NOW + 100 and not one.get("attempt") and one["body"] == "{}" for one in found)
    assert [one["notification_id"] for one in dead(tries, 0, NOW, [], NOW)] == ["evt_4"]
