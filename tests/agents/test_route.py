"""Route: the site that takes the mail, and the source that it leaves from."""

import asyncio
from dataclasses import replace

import pytest
from builders import ID, NOW, events, message, values

from agents.route import stage
from postroad.egress import Pool, Source
from postroad.retry import PUT_OFF_MS
from postroad.settings import Settings, Site
from postroad.site import shard_of
from topics.catalogue import CLEARED, OUTBOUND, SCHEDULED
from topics.testing import Scripted


@pytest.fixture
def route(services):
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
    services.settings = Settings(sites={"there.test": Site(shards=8)})
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
