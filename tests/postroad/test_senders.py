"""Whose domain it is, where bounces go, with which keys mail is signed."""

import pytest

from postroad.dkim import DkimError, generate
from postroad.ids import message_id
from postroad.senders import domain_of_tenant, message_of, return_path, signing_keys

TENANT = {
    "tenant": "t",
    "domains": [{"domain": "acme.test"}, {"domain": "news.acme.test", "return_path": "b.acme.test"}],
}
ID = message_id(1_700_000_000_000, "t", "s", "0:1", "r@there.test")


@pytest.mark.parametrize(
    ("domain", "own"),
    [
        ("acme.test", "acme.test"),
        ("shop.acme.test", "acme.test"),
        ("news.acme.test", "news.acme.test"),
        ("de.news.acme.test", "news.acme.test"),
        ("evilacme.test", None),
        ("acme.test.evil.test", None),
        ("test", None),
        ("", None),
    ],
)
def test_domain_of_tenant(domain, own):
    found = domain_of_tenant(TENANT, domain)
    assert (found and found["domain"]) == own


def test_a_tenant_without_domains():
    assert domain_of_tenant({"tenant": "t"}, "acme.test") is None


def test_return_path_names_the_message_and_comes_back():
    own = domain_of_tenant(TENANT, "news.acme.test")
    assert return_path(own, "news.acme.test", ID) == f"b-{ID}@b.acme.test"
    assert return_path(TENANT["domains"][0], "shop.acme.test", ID) == f"b-{ID}@acme.test"
    assert return_path(None, "else.test", ID) == f"b-{ID}@else.test"
    assert message_of(return_path(own, "news.acme.test", ID)) == ID
    assert len(return_path(own, "news.acme.test", ID).partition("@")[0]) <= 64


@pytest.mark.parametrize(
    "address", ["", "@", "b-", "postmaster@acme.test", "xb-1@acme.test", "B-1@acme.test", "b-@acme.test"]
)
def test_no_message_in_what_is_no_return_path(address):
    assert message_of(address) == ""


def test_signing_keys():
    pem, _ = generate("ed25519")
    key = {"selector": "s1", "algorithm": "ed25519", "private_key": pem}
    (found,) = signing_keys({"domain": "acme.test", "dkim": [key]})
    assert (found.selector, found.algorithm) == ("s1", "ed25519")
    assert signing_keys({"domain": "acme.test"}) == []
    with pytest.raises(DkimError, match="s1"):
        signing_keys({"domain": "acme.test", "dkim": [{**key, "algorithm": "rsa"}]})
