"""Whose domain it is, where bounces go, with which keys mail is signed."""

import pytest

from postroad.dkim import DkimError, generate
from postroad.senders import domain_of_tenant, return_path_domain, signing_keys

TENANT = {
    "tenant": "t",
    "domains": [{"domain": "acme.test"}, {"domain": "news.acme.test", "return_path": "b.acme.test"}],
}


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


def test_return_path_domain():
    assert return_path_domain(domain_of_tenant(TENANT, "news.acme.test"), "news.acme.test") == "b.acme.test"
    assert return_path_domain(TENANT["domains"][0], "shop.acme.test") == "acme.test"
    assert return_path_domain(None, "else.test") == "else.test"


def test_signing_keys():
    pem, _ = generate("ed25519")
    key = {"selector": "s1", "algorithm": "ed25519", "private_key": pem}
    (found,) = signing_keys({"domain": "acme.test", "dkim": [key]})
    assert (found.selector, found.algorithm) == ("s1", "ed25519")
    assert signing_keys({"domain": "acme.test"}) == []
    assert signing_keys({"domain": "acme.test", "dkim": [{**key, "active": False}]}) == []
    with pytest.raises(DkimError, match="s1"):
        signing_keys({"domain": "acme.test", "dkim": [{**key, "algorithm": "rsa"}]})
