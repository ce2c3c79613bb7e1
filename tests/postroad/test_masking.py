"""Addresses in ClickHouse: plain, hashed so that only who has the secret can try one out, or none."""

import pytest

from postroad import settings
from postroad.masking import PLAIN, Masking

SECRET = "0123456789abcdef"
HASHED = Masking("hash", SECRET)


def test_plain_keeps_everything():
    assert PLAIN.address("Ann@Example.org") == "Ann@Example.org"
    assert PLAIN.text("550 <ann@example.org> unknown") == "550 <ann@example.org> unknown"


def test_a_hash_is_of_the_address_and_the_secret():
    one = HASHED.address("ann@example.org")
    assert len(one) == 32 and int(one, 16) and one == Masking("hash", SECRET).address("ann@EXAMPLE.org")
    others = [
        HASHED.address("Ann@example.org"),
        HASHED.address("bob@example.org"),
        Masking("hash", SECRET + "x").address("ann@example.org"),
    ]
    assert len({one, *others}) == 4
    assert HASHED.address("") == "" and HASHED.address("\ud800@x") and HASHED.address("no address")


def test_none_keeps_nothing():
    assert Masking("none").address("ann@example.org") == ""


@pytest.mark.parametrize("policy", ["hash", "none"])
@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("550 5.1.1 <ann@example.org>: no such user", "550 5.1.1 <<address>>: no such user"),
        ("rcpt to:jürgen+x@münchen.example, later", "rcpt to:<address>, later"),
        ('"ann b"@example.org (and bob@b.test)', "<address> (and <address>)"),
        ("250 OK id=1aBc@mx", "250 OK <address>"),
        ("nothing here, 4 @ 5", "nothing here, 4 @ 5"),
        ("", ""),
    ],
)
def test_texts_do_not_quote_addresses(policy, text, kept):
    assert Masking(policy, SECRET).text(text) == kept


def test_a_long_text_takes_no_time():
    assert "@" in Masking("none").text("a" * 100_000 + " @ " + "b@" * 50_000)


def test_settings(monkeypatch):
    monkeypatch.setenv("POSTROAD_ANALYTICS_ADDRESSES", "hash")
    with pytest.raises(settings.SettingsError, match=r"analytics_addresses.*analytics_address_secret"):
        settings.read()
    monkeypatch.setenv("POSTROAD_ANALYTICS_ADDRESS_SECRET", SECRET)
    assert settings.read().masking().address("ann@example.org") == HASHED.address("ann@example.org")
    monkeypatch.setenv("POSTROAD_ANALYTICS_ADDRESSES", "rot13")
    with pytest.raises(settings.SettingsError, match="analytics_addresses"):
        settings.read()
