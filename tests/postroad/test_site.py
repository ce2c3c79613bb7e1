"""Sites and shards."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.site import MAX_SITE, preferred, shard_of, site_of

LABEL = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=63)
HOST = st.lists(LABEL, min_size=1, max_size=6).map(".".join)


@pytest.mark.parametrize(
    ("hosts", "site"),
    [
        (["aspmx.l.google.com"], "l.google.com"),
        (["gmail-smtp-in.l.google.com"], "l.google.com"),
        (["mta5.am0.yahoodns.net", "mta6.am0.yahoodns.net"], "am0.yahoodns.net"),
        (["example-com.mail.protection.outlook.com"], "mail.protection.outlook.com"),
        (["example.org"], "example.org"),
        (["localhost"], "localhost"),
        (["127.0.0.2"], "127.0.0.2"),
        (["2001:db8::1"], "2001:db8::1"),
        (["MX.B.example.", "mx.a.example"], "a.example+b.example"),
    ],
)
def test_site_of(hosts: list[str], site: str) -> None:
    assert site_of(hosts) == site


def test_no_hosts_no_site() -> None:
    with pytest.raises(ValueError, match="at least one MX host"):
        site_of([])


def test_preferred_hosts() -> None:
    assert preferred([(10, "b"), (5, "a"), (5, "c")]) == ["a", "c"]
    assert preferred([]) == []


@given(st.lists(HOST, min_size=1, max_size=40))
def test_any_hosts_give_a_short_site_whatever_their_order(hosts: list[str]) -> None:
    site = site_of(hosts)
    assert 0 < len(site) <= MAX_SITE
    assert site == site_of(hosts[::-1])


def test_long_sites_that_begin_alike_stay_apart() -> None:
    many = [f"mx.operator{number}.example" for number in range(100)]
    assert site_of(many) != site_of([*many, "mx.z.example"])


def test_shards_share_evenly_and_stay() -> None:
    counts = Counter(shard_of(f"message{number}", 4) for number in range(4000))
    assert set(counts) == {0, 1, 2, 3} and min(counts.values()) > 850
    assert shard_of("message1", 4) == shard_of("message1", 4)
    assert shard_of("message1", 1) == 0
