"""Sites and shards."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.shaping.policy import parse
from postroad.site import MAX_SITE, LoopsBack, drop_ourselves, order, preferred, shard_of, site_of

LABEL = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=63)
HOST = st.lists(LABEL, min_size=1, max_size=6).map(".".join)


@pytest.mark.parametrize(
    ("hosts", "site"),
    [
        (["aspmx.l.google.com"], "google.com"),
        (["gmail-smtp-in.l.google.com"], "google.com"),
        (["smtp.google.com"], "google.com"),
        (["aspmx.l.google.com", "alt1.aspmx.l.google.com", "aspmx2.googlemail.com"], "google.com"),
        (["mta5.am0.yahoodns.net", "mta6.am0.yahoodns.net"], "yahoodns.net"),
        (["example-com.mail.protection.outlook.com"], "outlook.com"),
        (["tenant-example.mail.protection.outlook.com"], "outlook.com"),
        (["hotmail-com.olc.protection.outlook.com"], "outlook.com"),
        (["mx0a-0012ab01.pphosted.com", "mx0b-0012ab01.pphosted.com"], "pphosted.com"),
        (["in1-smtp.messagingengine.com", "in2-smtp.messagingengine.com"], "messagingengine.com"),
        (["mx1.forwardemail.net", "mx2.forwardemail.net"], "forwardemail.net"),
        (["d1234a.ess.barracudanetworks.com"], "barracudanetworks.com"),
        (["esa1.hc123-4.iphmx.com"], "iphmx.com"),
        (["mx-ha02.web.de", "mx-ha03.web.de"], "web.de"),
        (["mail.customer.example"], "customer.example"),
        (["customer.example"], "customer.example"),
        (["customer.co.uk"], "customer.co.uk"),
        (["mx1.mail.customer.co.uk"], "customer.co.uk"),
        (["mail.firma.com.br", "firma.com.br"], "firma.com.br"),
        (["mx.xn--bcher-kva.example"], "xn--bcher-kva.example"),
        (["localhost"], "localhost"),
        (["127.0.0.2"], "127.0.0.2"),
        (["127.0.0.2."], "127.0.0.2"),
        (["2001:db8::1"], "2001:db8::1"),
        (["::ffff:192.0.2.1"], "::ffff:192.0.2.1"),
        (["mail.192.0.2.1"], "mail.192.0.2.1"),
        (["MX.A.example.", "mx2.a.EXAMPLE"], "a.example"),
    ],
)
def test_site_of(hosts: list[str], site: str) -> None:
    assert site_of(hosts) == site


@pytest.mark.parametrize(
    ("host", "site"),
    [
        ("mail.firm.kiev.ua", "firm.kiev.ua"),
        ("mail.someone.duckdns.org", "someone.duckdns.org"),
        ("mail.firm.uk.com", "firm.uk.com"),
        ("co.uk", "co.uk"),
    ],
)
def test_what_is_handed_out_to_strangers_is_no_operator(host: str, site: str) -> None:
    assert site_of([host]) == site


def test_hosts_of_two_operators_share_the_limits_of_one() -> None:
    assert site_of(["mx.b.example", "mx.a.example"]) == "a.example"
    assert site_of(["mx.a.example", "mx1.b.example", "mx2.b.example"]) == "b.example"


def test_the_shaping_file_may_split_an_operator_and_join_several() -> None:
    policy = parse(
        '[site.hotmail]\nhosts = ["*.olc.mail.example"]\n[site.joined]\nhosts = ["*.a.example", "mx.b.example"]',
        "t.toml",
    )
    assert site_of(["hotmail-com.OLC.mail.example."], policy.named) == "hotmail"
    assert site_of(["firm.protection.mail.example"], policy.named) == "mail.example"
    assert site_of(["mx1.a.example"], policy.named) == site_of(["mx.b.example"], policy.named) == "joined"
    assert site_of(["mx2.b.example"], policy.named) == "b.example"


@pytest.mark.parametrize("hosts", ['hosts = ["mx.firm.example"]', 'hosts = ["*.firm.example"]', ""])
def test_a_site_may_be_called_as_one_of_its_hosts(hosts: str) -> None:
    policy = parse(f'[site."mx.firm.example"]\ntls = "required"\n{hosts}', "t.toml")
    site = site_of(["MX.firm.example."], policy.named)
    assert (site, policy.site_of(site), policy.limits(site).tls) == ("mx.firm.example", site, "required")
    assert site_of(["mx.other.example"], policy.named) == "other.example"


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
    long = "x" * 250
    assert site_of([f"mx.{long}.example"]) != site_of([f"mx.{long}y.example"])
    assert len(site_of([f"mx.{long}.example"])) == MAX_SITE


HOSTS = [(20, "d"), (10, "a"), (10, "b"), (10, "c"), (30, "e")]


def test_order_shuffles_hosts_of_one_preference() -> None:
    first = Counter(order(HOSTS, f"message{number}")[0] for number in range(3000))
    assert set(first) == {"a", "b", "c"} and min(first.values()) > 850
    assert all(order(HOSTS, f"m{n}")[3:] == ["d", "e"] for n in range(50))


def test_order_is_the_messages_whatever_dns_says_first() -> None:
    for number in range(50):
        assert order(HOSTS, f"m{number}") == order(HOSTS[::-1], f"m{number}")
    assert order([(10, "a"), (5, "a"), (7, "b")], "m") == ["a", "b"]  # once, at its best
    assert order([], "m") == []


@pytest.mark.parametrize(
    ("hosts", "left"),
    [
        ([(10, "a"), (20, "b")], [(10, "a"), (20, "b")]),  # not one of them
        ([(10, "a"), (20, "MX.us.example."), (20, "b"), (30, "c")], [(10, "a")]),
        ([(30, "mx.us.example"), (20, "b"), (40, "mx2.us.example"), (10, "c")], [(20, "b"), (10, "c")]),
        ([(10, "a"), (20, "mx2.us.example"), (30, "mx.us.example")], [(10, "a")]),
        ([], []),
    ],
)
def test_our_own_host_and_all_that_are_no_better_go(hosts: list[tuple[int, str]], left: list[tuple[int, str]]) -> None:
    assert drop_ourselves(hosts, {"mx.us.example", "Mx2.Us.Example"}) == left


@pytest.mark.parametrize("hosts", [[(0, "mx.us.example")], [(10, "a"), (10, "mx.us.example")]])
def test_a_domain_that_leads_back_to_us(hosts: list[tuple[int, str]]) -> None:
    with pytest.raises(LoopsBack, match=r"loops back: .* mx\.us\.example"):
        drop_ourselves(hosts, ["mx.us.example"])


def test_shards_share_evenly_and_stay() -> None:
    counts = Counter(shard_of(f"message{number}", 4) for number in range(4000))
    assert set(counts) == {0, 1, 2, 3} and min(counts.values()) > 850
    assert shard_of("message1", 4) == shard_of("message1", 4)
    assert shard_of("message1", 1) == 0
