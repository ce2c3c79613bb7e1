"""Notify, with a real receiver on loopback: what it is told, tried again, given up, and that nothing is forgotten."""

import asyncio
import json
from types import SimpleNamespace

import pytest
from aiohttp import web
from builders import message
from standardwebhooks import Webhook as Verifier

from agents import notify
from postroad import events
from postroad.checks import check_submission
from postroad.settings import Settings
from postroad.webhooks import retries
from postroad.webhooks.guard import Rules
from postroad.webhooks.notifier import Notifier, wall_clock
from postroad.webhooks.signing import new_secret
from topics.catalogue import EVENTS, NOTIFICATIONS, NOTIFIED, SUBMISSIONS, WEBHOOKS
from topics.testing import Scripted

DAY_MS = 86_400_000


class Receiver:
    """An endpoint that answers with `status`."""

    def __init__(self):
        self.status, self.seen, self.headers = 200, [], {}

    async def take(self, request):
        self.seen.append((dict(request.headers), await request.text()))
        return web.Response(status=self.status, headers=self.headers)


@pytest.fixture
async def receiver():
    one = Receiver()
    app = web.Application()
    app.router.add_post("/", one.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    one.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/"
    yield one
    await runner.cleanup()


class Stand:
    """The stage with a clock that the test moves."""

    def __init__(self, url, **fields):
        self.secret = new_secret("hmac")
        self.webhook = {"webhook_id": "wh_1", "tenant": "acme", "url": url, "kind": "hmac", "types": [], "created_at": 0, "updated_at": 0,
                        "secrets": [{"secret": self.secret, "until": None}], **fields}  # fmt: skip
        self.notifier = Notifier(Rules(("127.0.0.0/8",), True, 5.0), clock=lambda: self.runner.now)
        self.webhooks = {"wh_1": self.webhook}
        settings = Settings(notices_tenant="ourselves", notices_from="post@postroad.test")
        tenants = {"acme": {"tenant": "acme", "contact": "post@acme.test"}}
        services = SimpleNamespace(webhooks=self.webhooks, notifier=self.notifier, settings=settings, tenants=tenants)
        self.runner = Scripted(notify.stage, services, wall_clock())

    async def tell(self, kind="delivered", **fields):
        said = await self.runner.feed(
            EVENTS, events.event(message(tenant="acme"), kind, self.runner.now, "classify", **fields)
        )
        await self.runner.feed(NOTIFICATIONS, *(each.value for each in said))
        return [each.value for each in said]

    async def turns(self):
        """Turns until nothing is under way, and one more."""
        outputs = await self.runner.tick()
        while any(result is None for each in self.notifier._endpoints.values() for result in each.held.values()):
            await asyncio.sleep(0.005)
        return outputs + await self.runner.tick() + await self.runner.tick()

    def waiting(self):
        return [notice for _, notice in self.runner.state.notices.scan()]


def values(outputs, topic):
    return [each.value for each in outputs if each.topic is topic]


async def test_an_event_is_told_signed_and_over(receiver):
    stand = Stand(receiver.url)
    await stand.tell("bounced", reason="user-unknown", bounce_class="hard")
    [tried] = values(await stand.turns(), NOTIFIED)
    assert (tried["outcome"], tried["status"], tried["attempt"], tried["body"]) == ("delivered", 200, 1, "")
    [(headers, body)] = receiver.seen
    told = Verifier(stand.secret).verify(body, headers)
    assert told["type"] == "message.bounced" and told["data"]["reason"] == "user-unknown"
    assert not stand.waiting() and not stand.runner.state.endpoints.scan()
    await stand.notifier.close()


async def test_only_what_it_wants_of_its_own_tenant(receiver):
    stand = Stand(receiver.url, types=["message.suppressed"])
    assert not await stand.tell("delivered") and not await stand.tell("dropped", reason="operator")
    assert not await stand.tell("accepted") and await stand.tell("dropped", reason="suppressed")
    stand.webhooks["wh_1"] = {**stand.webhook, "tenant": "other"}
    stand.runner.now += 1000
    assert not await stand.tell("dropped", reason="suppressed")


async def test_a_failure_waits_and_goes_again_under_its_id(receiver):
    stand = Stand(receiver.url)
    receiver.status = 503
    await stand.tell()
    [tried] = values(await stand.turns(), NOTIFIED)
    assert (tried["outcome"], tried["attempt"]) == ("failed", 1)
    await stand.turns()
    assert len(receiver.seen) == 1, "before its time"
    receiver.status, stand.runner.now = 200, stand.runner.now + 10_000
    [tried] = values(await stand.turns(), NOTIFIED)
    assert (tried["outcome"], tried["attempt"]) == ("delivered", 2)
    assert receiver.seen[0][0]["webhook-id"] == receiver.seen[1][0]["webhook-id"]
    await stand.notifier.close()


async def test_what_was_given_and_has_no_result_goes_again_in_the_next_life(receiver):
    stand = Stand(receiver.url)
    await stand.tell()
    await stand.runner.tick()  # given; the process dies
    await stand.notifier.close()
    stand.runner.services.notifier = stand.notifier = Notifier(
        Rules(("127.0.0.0/8",), True), clock=lambda: stand.runner.now
    )
    assert [each["outcome"] for each in values(await stand.turns(), NOTIFIED)] == ["delivered"]
    await stand.notifier.close()


async def test_an_endpoint_is_disabled_after_three_days_and_its_rest_is_dead_with_bodies(receiver):
    stand, said = Stand(receiver.url), []
    receiver.status = 500
    await stand.tell()
    for _ in range(40):
        said += await stand.turns()
        await stand.tell()
        stand.runner.now += 4 * retries.HOUR
        if disabled := values(said, WEBHOOKS):
            break
    assert disabled[0]["disabled_reason"].startswith("failed for 3 days")
    [event] = values(said, EVENTS)
    assert (event["kind"], event["reason"], event["tenant"]) == ("noted", "webhook-disabled", "acme")
    [mail] = values(said, SUBMISSIONS)
    assert (mail["tenant"], mail["sender"]["address"]) == ("ourselves", "post@postroad.test")
    assert (
        mail["recipients"][0]["address"] == "post@acme.test"
        and receiver.url in mail["text"]
        and "failed for 3 days" in mail["text"]
    )
    assert check_submission(mail) is None
    stand.webhooks["wh_1"] = disabled[0]
    rest = values(await stand.turns(), NOTIFIED)
    assert rest and all(each["outcome"] == "dead" and json.loads(each["body"]) for each in rest) and not stand.waiting()
    await stand.notifier.close()


async def test_redirects_are_not_followed_and_gone_is_gone(receiver):
    stand = Stand(receiver.url)
    receiver.status, receiver.headers = 307, {"Location": "http://169.254.169.254/"}
    await stand.tell()
    [tried] = values(await stand.turns(), NOTIFIED)
    assert tried["error"] == "redirects are not followed"
    receiver.status, receiver.headers, stand.runner.now = 410, {}, stand.runner.now + 10_000
    assert values(await stand.turns(), WEBHOOKS)[0]["disabled_reason"] == "it answered 410 Gone"
    await stand.notifier.close()


async def test_a_dead_endpoint_parks_in_the_table_and_delays_nobody(receiver):
    stand = Stand(receiver.url)
    dead = {**stand.webhook, "webhook_id": "wh_dead", "url": "http://127.0.0.1:1/", "concurrency": 2}
    stand.webhooks["wh_dead"] = dead
    for n in range(300):
        await stand.tell(attempt=n)
    outputs = [each for _ in range(4) for each in await stand.turns()]
    ends = values(outputs, NOTIFIED)
    assert (
        len({each["notification_id"] for each in ends if each["outcome"] == "delivered"}) == 300 == len(receiver.seen)
    )
    assert len([each for each in ends if each["outcome"] == "failed"]) < 12  # its circuit opened
    assert len(stand.waiting()) == 300 and not stand.notifier.holds("wh_dead") and stand.notifier.room(dead) == 0
    assert stand.notifier.room({**dead, "updated_at": 7}) > 0, "its owner has changed it: it may be mended"
    await stand.notifier.close()
