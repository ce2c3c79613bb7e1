"""Secrets of endpoints at rest."""

import pytest

from postroad.settings import Settings
from postroad.webhooks.guard import Rules
from postroad.webhooks.sealing import SEALED, Sealing
from postroad.webhooks.sender import Sender
from postroad.webhooks.signing import BadSecret, new_secret

OLD, NEW = "o" * 32, "n" * 32


def test_a_secret_is_sealed_and_opened_by_any_of_the_keys_and_by_no_other():
    secret = new_secret("hmac")
    kept = Sealing([OLD]).seal(secret)
    assert kept.startswith(SEALED) and secret not in kept and kept != Sealing([OLD]).seal(secret)
    assert Sealing([NEW, OLD]).open(kept) == secret
    moved = Sealing([NEW, OLD]).again(kept)
    assert Sealing([NEW]).open(moved) == secret
    for keys in ([NEW], []):
        with pytest.raises(BadSecret, match="webhook_secret_key"):
            Sealing(keys).open(kept)
        assert Sealing(keys).again(kept) == kept
    with pytest.raises(BadSecret):
        Sealing([OLD]).open(kept[:-4] + "AAA=")


def test_what_lies_there_in_plain_text_is_read_and_sealed_when_it_is_written_again():
    secret = new_secret("ed25519")
    assert Sealing().seal(secret) == Sealing().open(secret) == Sealing([NEW]).open(secret) == secret
    assert Sealing([NEW]).open(Sealing([NEW]).again(secret)) == secret


def test_the_settings_do_not_show_the_key():
    rules = Settings(webhook_secret_key=[NEW, OLD]).webhook_rules()
    assert rules.secret_keys == (NEW, OLD) and NEW not in repr(rules)


async def test_a_try_whose_secret_no_key_opens_says_so_and_goes_nowhere():
    sender = Sender(Rules(("127.0.0.0/8",), True, secret_keys=(NEW,)))
    webhook = {"webhook_id": "w", "tenant": "t", "url": "http://127.0.0.1:9/", "kind": "hmac", "types": [], "created_at": 0, "updated_at": 0,
               "secrets": [{"secret": Sealing([OLD]).seal(new_secret("hmac")), "until": None}]}  # fmt: skip
    tried = await sender.post(webhook, {"notification_id": "evt_1", "body": "{}"}, 1_790_000_000_000)
    await sender.close()
    assert tried.status == 0 and "webhook_secret_key" in tried.error
