"""Route: the site that takes the mail, and the source that it leaves from."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest
from builders import ID, NOW, events, message, values

from agents.route import stage
from postroad.egress import Pool, Source
from postroad.orders import BOUNCE, order
from postroad.retry import PUT_OFF_MS
from postroad.shaping.policy import parse
from postroad.site import shard_of
from topics.catalogue import CLEARED, ENDINGS, OUTBOUND, OUTBOUND_BROADCAST, SCHEDULED
from topics.testing import Scripted


def shaping(text):
    """In place of postroad.shaping's Watched."""
    return SimpleNamespace(policy=parse(text, "shaping.toml"))


@pytest.fixture
def route(services):
    services.orders, services.shaping = {}, shaping("")
    services.pools["bulk"] = Pool(
        "bulk", (Source("b1", "127.0.0.1", "b1.test"), Source("b2", "127.0.0.2", "b2.test", 0))
    )
    return Scripted(stage, services, NOW)


async def test_site_hosts_and_key(route):
    outputs = await route.feed(CLEARED, message())
    assert events(outputs) == [("routed", "")]
    (found,) = values(outputs, OUTBOUND)
    assert found["route"] == {
        "site": "there.test", "shard": 0, "hosts": ["mx1.there.test", "backup.elsewhere.test"], "pool": "default",
        "source": "default",
    }  # fmt: skip
    assert outputs[1].key == b"there.test#0"


async def test_a_name_server_that_does_not_answer_holds_the_others_for_a_moment_only(route, services, monkeypatch):
    monkeypatch.setattr("tables.mx_cache.PATIENCE_S", 0.05)
    answered, ask, done = asyncio.Event(), services.resolver.mx, []

    async def mx(domain):
        if domain == "other.test":
            try:
                await answered.wait()
            finally:
                done.append(domain)
        return await ask(domain)

    services.resolver.mx = mx
    route.stage = replace(stage, prepare_s=None)  # without the bound of all that a stage prepares
    async with asyncio.timeout(5):
        outputs = await route.feed(CLEARED, message(), message(message_id="m2", recipient="r@other.test"))
    assert events(outputs) == [("routed", ""), ("scheduled", "dns")]
    assert done == ["other.test"], "nothing is left behind"
    answered.set()
    assert events(await route.feed(CLEARED, message(message_id="m2", recipient="r@other.test"))) == [("routed", "")]


async def test_a_batch_asks_so_many_queries_and_puts_the_others_off(route, services, monkeypatch):
    monkeypatch.setattr("tables.mx_cache.ASKED_MAX", 2)
    outputs = await route.feed(CLEARED, *(message(recipient=f"r@no{n}.test", message_id=f"m{n}") for n in range(5)))
    assert len(services.resolver.asked) == 2
    assert sorted(events(outputs)) == [("rejected", "no-such-domain")] * 2 + [("scheduled", "dns")] * 3


async def test_shards_of_a_large_site(route, services):
    services.shaping = shaping('[site."there.test"]\nshards = 8\nconnections = 16')
    outputs = await route.feed(CLEARED, *(message(message_id=f"{ID[:-3]}{n:03}") for n in range(40)))
    shards = {m["message_id"]: m["route"]["shard"] for m in values(outputs, OUTBOUND)}
    assert len(set(shards.values())) == 8
    assert all(shard_of(id, 8) == shard for id, shard in shards.items())


async def test_pool_of_the_message_before_the_tenants_before_the_default(route, services):
    async def pool(**fields):
        (found,) = values(await route.feed(CLEARED, message(**fields)), OUTBOUND)
        return found["route"]["pool"], found["route"]["source"]

    assert await pool() == ("default", "default")
    assert await pool(egress_pool="bulk") == ("bulk", "b1"), "a source of weight 0 rests"
    services.tenants["acme"]["egress_pool"] = "bulk"
    assert await pool() == ("bulk", "b1")
    assert await pool(egress_pool="default") == ("default", "default")


async def test_a_pool_that_is_not_there(route):
    outputs = await route.feed(CLEARED, message(egress_pool="gone"))
    assert events(outputs) == [("rejected", "egress-pool")]
    assert "'gone'" in outputs[0].value["detail"]


async def test_dns_does_not_answer_now(route):
    outputs = await route.feed(CLEARED, message(recipient="r@slow.test"))
    assert events(outputs) == [("scheduled", "dns")]
    (entry,) = values(outputs, SCHEDULED)
    assert (entry["due_at"], entry["return_to"]) == (NOW + PUT_OFF_MS, "scored")


@pytest.mark.parametrize(("domain", "reason"), [("null.test", "null-mx"), ("nowhere.test", "no-such-domain")])
async def test_domain_that_takes_no_mail_any_more(route, domain, reason):
    assert events(await route.feed(CLEARED, message(recipient=f"r@{domain}"))) == [("rejected", reason)]


async def test_each_domain_is_asked_for_once_a_batch(route, services):
    await route.feed(CLEARED, *(message(message_id=f"m{n}") for n in range(10)))
    assert services.resolver.asked == ["there.test"]


async def test_a_broadcast_has_a_lane_of_its_own(route):
    outputs = await route.feed(CLEARED, message(stream="broadcast"), message(message_id="m2"))
    assert [m["message_id"] for m in values(outputs, OUTBOUND_BROADCAST)] == [ID]
    assert [m["message_id"] for m in values(outputs, OUTBOUND)] == ["m2"]
    assert values(outputs, OUTBOUND_BROADCAST)[0]["route"]["site"] == "there.test"


@pytest.mark.parametrize(("name", "host"), [("big", "there.test"), ("mx1.there.test", "mx1.there.test")])
async def test_the_operators_name_of_a_site(route, services, name, host):
    services.shaping = shaping(f'[site."{name}"]\nhosts = ["{host}"]')
    (found,) = values(await route.feed(CLEARED, message()), OUTBOUND)
    assert found["route"]["site"] == name


async def test_hosts_of_equal_preference_are_shuffled_by_message(route, services):
    services.resolver.hosts["there.test"] = [(10, f"mx{n}.there.test") for n in range(4)] + [(20, "last.there.test")]
    outputs = await route.feed(CLEARED, *(message(message_id=f"{ID[:-3]}{n:03}") for n in range(30)))
    hosts = [tuple(m["route"]["hosts"]) for m in values(outputs, OUTBOUND)]
    assert len(set(hosts)) > 5 and {each[0] for each in hosts} == {f"mx{n}.there.test" for n in range(4)}
    assert {each[-1] for each in hosts} == {"last.there.test"}


async def test_a_host_of_our_own_goes_with_all_that_are_no_better(route, services):
    services.resolver.hosts["there.test"] = [(10, "mx1.there.test"), (20, "B1.test"), (20, "x.test"), (30, "y.test")]
    (found,) = values(await route.feed(CLEARED, message()), OUTBOUND)
    assert found["route"]["hosts"] == ["mx1.there.test"]


async def test_mail_that_would_come_back_to_us_is_rejected(route, services):
    services.resolver.hosts["there.test"] = [(10, "b1.test"), (20, "mx1.there.test")]
    outputs = await route.feed(CLEARED, message())
    assert events(outputs) == [("rejected", "mx-loop")]
    assert "b1.test" in values(outputs, ENDINGS)[0]["detail"]


async def test_an_order_ends_what_was_accepted_before_it(route, services):
    given = order("bounce", "op", NOW, site="there.test", reason="gone")
    services.orders = {given["order_id"]: given}
    outputs = await route.feed(CLEARED, message(), message(message_id="m2", accepted_at=NOW + 1),
                               message(message_id="m3", recipient="r@other.test"))  # fmt: skip
    (end,) = values(outputs, ENDINGS)
    assert (end["message"]["message_id"], end["reason"], end["rule"], end["detail"]) == (ID, BOUNCE, "op", "gone")
    assert [m["message_id"] for m in values(outputs, OUTBOUND)] == ["m2", "m3"]
