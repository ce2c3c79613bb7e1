"""Addresses: one form for each, and a reason for what is none."""

import json
from pathlib import Path

import pytest

from postroad.addresses import BadAddress, ascii_domain, domain_of, key, lies_in, normalise

ISEMAIL = Path(__file__).parents[2] / "../shared/corpora/addresses/isemail/tests.jsonl"


@pytest.mark.parametrize(
    ("given", "text", "utf8"),
    [
        ("bob@example.com", "bob@example.com", False),
        ("Bob+tag@Example.COM", "Bob+tag@example.com", False),
        ("bob@x.test", "bob@x.test", False),
        ("bob@mail.example", "bob@mail.example", False),
        ("info@BÜCHER.example", "info@xn--bcher-kva.example", False),
        ("info@xn--bcher-kva.example", "info@xn--bcher-kva.example", False),
        ("a@straße.example", "a@xn--strae-oqa.example", False),  # IDNA 2008, not strasse
        ("a@ｅｘａｍｐｌｅ.com", "a@example.com", False),
        ("用户@例え.test", "用户@xn--r8jz45g.test", True),
        ("jose\u0301@x.test", "josé@x.test", True),  # composed
        ('"a b"@x.test', '"a b"@x.test', False),
        ('"ab"@x.test', "ab@x.test", False),
        ("o'brien@x.test", "o'brien@x.test", False),
        ("a" * 64 + "@x.test", "a" * 64 + "@x.test", False),
    ],
)
def test_valid(given: str, text: str, utf8: bool) -> None:
    address = normalise(given)
    assert (address.text, address.needs_smtputf8) == (text, utf8)
    assert normalise(address.text) == address
    assert domain_of(given) == address.ascii_domain == address.ascii_domain.lower()


@pytest.mark.parametrize(
    "given",
    [
        "",
        "bob",
        "@x.test",
        "bob@",
        "a@b@x.test",
        "a b@x.test",
        "a@localhost",
        "a@com",
        "a@[192.0.2.1]",
        "a@192.0.2.1",
        "a@x.test.",
        "a@-x.test",
        "a@x..test",
        ".a@x.test",
        "a..b@x.test",
        "Bob <a@x.test>",
        "a@x.test\r\nRCPT TO:<b@x.test>",
        "a\0@x.test",
        '"a\r\nb"@x.test',
        "a@x.invalid",
        "(c)a@x.test",
        "a@" + "b" * 64 + ".test",
        "a" * 65 + "@x.test",
        '"' + "a b" * 22 + '"@x.test',
        "a@" + "b." * 130 + "test",
        "a@xn--a.test",
        "a@\u202ex.test",
        "x" * 10_000_000,
    ],
)
def test_invalid(given: str) -> None:
    with pytest.raises(BadAddress) as raised:
        normalise(given)
    assert raised.value.reason == "bad-address"
    assert 0 < len(raised.value.text) <= 200


def test_ascii_domain() -> None:
    assert ascii_domain("BÜCHER.example.") == "xn--bcher-kva.example"
    with pytest.raises(BadAddress):
        ascii_domain("no dots")


@pytest.mark.skipif(not ISEMAIL.exists(), reason="needs ../shared/corpora")
def test_isemail() -> None:
    """Every address that isemail calls valid, or an error, is judged alike, with two exceptions."""
    verdicts = {"ISEMAIL_VALID_CATEGORY": True, "ISEMAIL_DNSWARN": True, "ISEMAIL_ERR": False}
    differing = []
    for line in ISEMAIL.read_text("utf-8").splitlines():
        case = json.loads(line)
        try:
            normalise(case["address"])
            valid = True
        except BadAddress:
            valid = False
        if verdicts.get(case["category"], valid) != valid:
            differing.append(case["address"])
    assert differing == [
        "test@io",
        '"test\\©"@iana.org',
    ]  # no dot; a quoted pair of RFC 6531, younger than isemail's grammar


@pytest.mark.parametrize(
    ("address", "listed"),
    [
        ("Ann@Bücher.TEST", "ann@xn--bcher-kva.test"),
        ("ann@xn--bcher-kva.test", "ann@xn--bcher-kva.test"),
        ("NO ADDRESS", "no address"),
        ("", ""),
    ],
)
def test_key(address: str, listed: str) -> None:
    assert key(address) == listed


def test_lies_in() -> None:
    assert lies_in("shop.example", "Shop.Example")
    assert lies_in("mail.shop.example", "shop.example")
    assert lies_in("xn--bcher-kva.example", "bücher.example")
    assert not lies_in("myshop.example", "shop.example")
    assert not lies_in("example", "shop.example")
    assert not lies_in("shop.example", "mail.shop.example")
    assert not lies_in("shop.example", "")
    assert not lies_in("shop.example", "not a domain")
