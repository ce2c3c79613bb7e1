"""Notifier: how much of an endpoint it holds, and how many tries at a time one has earned."""

import asyncio

from postroad.webhooks.guard import Rules
from postroad.webhooks.notifier import AHEAD, AHEAD_EACH, Notifier
from postroad.webhooks.sender import Tried

WEBHOOK = {"webhook_id": "wh_1", "tenant": "acme", "url": "https://acme.test/", "kind": "hmac", "created_at": 0, "updated_at": 0,
           "secrets": [], "concurrency": 8}  # fmt: skip


class Endpoint:
    """Stands for the sender: answers `status` once it is told to, and counts what is under way."""

    def __init__(self, status):
        self.status, self.under_way, self.most, self.answer = status, 0, 0, asyncio.Event()

    async def post(self, webhook, notification, now):
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await self.answer.wait()
        self.under_way -= 1
        return Tried(self.status, "" if self.status == 204 else "it is broken", 1)

    async def close(self):
        pass


def notifier_of(endpoint):
    return Notifier(Rules(), endpoint, clock=lambda: 1_000_000)


async def settle():
    for _ in range(200):
        await asyncio.sleep(0)


def give(notifier, n):
    for k in range(n):
        notifier.give(b"%d" % k, WEBHOOK, {"notification_id": f"n{k}", "attempt": 0})


async def test_one_that_never_answered_holds_one_connection():
    endpoint = Endpoint(204)
    notifier = notifier_of(endpoint)
    give(notifier, 20)
    await settle()
    assert endpoint.under_way == 1
    await notifier.close()


async def test_successes_earn_up_to_its_concurrency_and_failures_lose_it():
    endpoint = Endpoint(204)
    notifier = notifier_of(endpoint)
    give(notifier, 60)
    endpoint.answer.set()
    await settle()
    assert all(notifier.holds("wh_1").values()) and len(notifier.holds("wh_1")) == 60
    for key in list(notifier.holds("wh_1")):
        notifier.forget("wh_1", key)
    endpoint.answer.clear()
    give(notifier, 60)
    await settle()
    assert endpoint.most == WEBHOOK["concurrency"]
    endpoint.status, endpoint.most = 500, 0
    endpoint.answer.set()
    await settle()
    for key in list(notifier.holds("wh_1")):
        notifier.forget("wh_1", key)
    endpoint.answer.clear()
    give(notifier, 5)
    await settle()
    assert endpoint.under_way == 1
    await notifier.close()


async def test_room_is_by_what_it_has_earned_and_refilled_by_halves():
    endpoint = Endpoint(204)
    notifier = notifier_of(endpoint)
    assert notifier.room(WEBHOOK) == AHEAD_EACH
    give(notifier, AHEAD_EACH // 2)
    assert notifier.room(WEBHOOK) == AHEAD_EACH // 2
    give(notifier, AHEAD_EACH // 2 + 1)
    assert notifier.room(WEBHOOK) == 0
    endpoint.answer.set()
    await settle()
    for k in range(AHEAD * 2):
        notifier.give(b"x%d" % k, WEBHOOK, {"notification_id": "n", "attempt": 0})
        await settle()
        notifier.forget("wh_1", b"x%d" % k)
    assert AHEAD_EACH < notifier.room(WEBHOOK) <= AHEAD
    await notifier.close()
