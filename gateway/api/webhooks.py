"""/v1/webhooks: endpoints that are told of the tenant's events (docs/decisions/0016-webhooks.md)."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Annotated

import msgspec

from avro.records import Notification, Webhook, WebhookKind, WebhookSecret
from gateway.api import audit
from gateway.api.messages import Moment, ms
from gateway.api.problems import Problem, not_found, of_field
from gateway.api.routes import PAGE, PAGE_MAX, Answer, Call, Routes
from gateway.api.status import moment
from postroad.webhooks import payload, signing
from postroad.webhooks.guard import BadUrl, Guard
from postroad.webhooks.notifier import CONCURRENCY_MAX
from postroad.webhooks.redrive import Dead
from postroad.webhooks.sealing import Sealing
from topics.catalogue import NOTIFICATIONS, NOTIFIED, WEBHOOKS

WEBHOOKS_MAX = 50  # of a tenant
DAY_MS = 86_400_000
Concurrency = Annotated[int, msgspec.Meta(ge=1, le=CONCURRENCY_MAX)]
Description = Annotated[str, msgspec.Meta(max_length=200)]

routes = Routes()


class NewWebhook(msgspec.Struct, forbid_unknown_fields=True):
    """An endpoint. `types`: none named is all; `kind`: how it is signed."""

    url: str
    types: list[str] = []
    kind: WebhookKind = "hmac"
    concurrency: Concurrency = 10
    description: Description = ""


class Change(msgspec.Struct, forbid_unknown_fields=True):
    """What is not named stays. `enabled`: true sends again, false no more."""

    url: str | None = None
    types: list[str] | None = None
    concurrency: Concurrency | None = None
    description: Description | None = None
    enabled: bool | None = None


class Rotation(msgspec.Struct, forbid_unknown_fields=True):
    """For how long the secret before signs as well, seconds."""

    overlap_s: Annotated[float, msgspec.Meta(ge=0, le=30 * 86_400)] = 86_400.0


class Redrive(msgspec.Struct, forbid_unknown_fields=True):
    """Which of the dead: from when to when their events were (default: all of 30 days), of which types."""

    since: Moment | None = None
    until: Moment | None = None
    types: list[str] = []


class Endpoint(msgspec.Struct):
    """An endpoint, without its secret."""

    webhook_id: str
    url: str
    types: list[str]
    kind: str
    concurrency: int
    description: str
    enabled: bool
    disabled_reason: str
    created_at: datetime


class Secret(msgspec.Struct):
    """An endpoint and its secret, which is shown here and nowhere else. `public_key`: of ed25519."""

    webhook: Endpoint
    secret: str
    public_key: str | None


class Endpoints(msgspec.Struct):
    """All endpoints of the tenant."""

    webhooks: list[Endpoint]


class Delivery(msgspec.Struct):
    """What came of one try."""

    notification_id: str
    type: str
    tried_at: datetime
    attempt: int
    outcome: str
    status: int
    duration_ms: int
    error: str


class Deliveries(msgspec.Struct):
    """The latest tries, oldest first."""

    deliveries: list[Delivery]


class Query(msgspec.Struct, forbid_unknown_fields=True):
    """How many, of the last so many days."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=PAGE_MAX)] = PAGE
    days: Annotated[int, msgspec.Meta(ge=1, le=30)] = 1


class Sent(msgspec.Struct):
    """What was put on its way. `more`: there is more to redrive than one request does; ask again when these were tried."""

    notifications: list[str]
    more: bool = False


@routes.add("POST", "/v1/webhooks", "manage", body=NewWebhook, status=201, answer=Secret, problems=(409,))
async def create_webhook(call: Call) -> Answer:
    """Add an endpoint. Its secret is shown once."""
    asked: NewWebhook = call.body
    now, secret = call.door.now(), signing.new_secret(asked.kind)
    if sum(one["tenant"] == call.tenant for one in call.door.webhooks.values()) >= WEBHOOKS_MAX:
        raise Problem(409, "too-many", f"a tenant has at most {WEBHOOKS_MAX} endpoints")
    webhook: Webhook = {
        "webhook_id": "wh_" + secrets.token_urlsafe(16), "tenant": call.tenant, "url": _url(call, asked.url), "types": _types(asked.types),
        "kind": asked.kind, "secrets": [{"secret": _sealing(call).seal(secret), "until": None}], "created_at": now, "updated_at": now,
        "concurrency": asked.concurrency, "description": asked.description,
    }  # fmt: skip
    await _put(call, webhook, "webhook-created")
    return Answer(_with_secret(webhook, secret), 201)


@routes.add("GET", "/v1/webhooks", "read", answer=Endpoints)
async def list_webhooks(call: Call) -> Answer:
    """The tenant's endpoints, without their secrets."""
    return Answer(Endpoints([_shown(one) for one in call.door.webhooks.values() if one["tenant"] == call.tenant]))


@routes.add("GET", "/v1/webhooks/{webhook_id}", "read", answer=Endpoint, problems=(404,))
async def get_webhook(call: Call) -> Answer:
    """An endpoint, without its secret."""
    return Answer(_shown(_own(call)))


@routes.add("PATCH", "/v1/webhooks/{webhook_id}", "manage", body=Change, answer=Endpoint, problems=(404,))
async def update_webhook(call: Call) -> Answer:
    """Change an endpoint."""
    asked: Change = call.body
    webhook: Webhook = {**_own(call), "updated_at": call.door.now()}
    if asked.url is not None:
        webhook["url"] = _url(call, asked.url)
    if asked.types is not None:
        webhook["types"] = _types(asked.types)
    if asked.concurrency is not None:
        webhook["concurrency"] = asked.concurrency
    if asked.description is not None:
        webhook["description"] = asked.description
    if asked.enabled is not None:
        webhook["disabled_at"] = None if asked.enabled else call.door.now()
        webhook["disabled_reason"] = "" if asked.enabled else "by its tenant"
    await _put(call, webhook, "webhook-updated")
    return Answer(_shown(webhook))


@routes.add("DELETE", "/v1/webhooks/{webhook_id}", "manage", status=204, problems=(404,))
async def delete_webhook(call: Call) -> Answer:
    """Remove an endpoint; what waits for it is not delivered."""
    webhook = _own(call)
    await call.door.producer.delete(WEBHOOKS, webhook["webhook_id"].encode())
    await audit.tell(call, "webhook-deleted", webhook["webhook_id"])
    return Answer(None, 204)


@routes.add("POST", "/v1/webhooks/{webhook_id}/rotate", "manage", body=Rotation, answer=Secret, problems=(404,))
async def rotate_webhook(call: Call) -> Answer:
    """Give an endpoint a new secret, shown once; the one before signs beside it for a while."""
    webhook, now, sealing = _own(call), call.door.now(), _sealing(call)
    until, secret = now + round(call.body.overlap_s * 1000), signing.new_secret(webhook["kind"])
    old: list[WebhookSecret] = [
        {"secret": sealing.again(one["secret"]), "until": end} for one in webhook["secrets"] if (end := min(one.get("until") or until, until)) > now
    ]  # fmt: skip
    webhook = {**webhook, "secrets": [{"secret": sealing.seal(secret), "until": None}, *old], "updated_at": now}
    await _put(call, webhook, "webhook-rotated")
    return Answer(_with_secret(webhook, secret))


@routes.add("POST", "/v1/webhooks/{webhook_id}/test", "manage", status=202, answer=Sent, problems=(404,))
async def test_webhook(call: Call) -> Answer:
    """Send an event of type webhook.test; deliveries show what came of it."""
    webhook = _own(call)
    notice = payload.test_of(webhook, f"test:{webhook['webhook_id']}:{secrets.token_hex(8)}", call.door.now())
    await call.door.producer.send(NOTIFICATIONS, notice)
    await audit.tell(call, "webhook-tested", webhook["webhook_id"])
    return Answer(Sent([notice["notification_id"]]), 202)


@routes.add("GET", "/v1/webhooks/{webhook_id}/deliveries", "read", query=Query, answer=Deliveries, problems=(404,))
async def webhook_deliveries(call: Call) -> Answer:
    """What came of the latest tries."""
    since, shown = call.door.now() - call.query.days * DAY_MS, deque[Delivery](maxlen=call.query.limit)

    def take(one: Notification) -> None:
        if tried_at := one.get("tried_at"):
            shown.append(
                Delivery(one["notification_id"], one["type"], moment(tried_at), one.get("attempt", 0), one.get("outcome", ""),
                         one.get("status", 0), one.get("duration_ms", 0), one.get("error", ""))
            )  # fmt: skip

    await _tries(call, _own(call), since, take)
    return Answer(Deliveries(sorted(shown, key=lambda one: one.tried_at)))


@routes.add(
    "POST", "/v1/webhooks/{webhook_id}/redrive", "manage", body=Redrive, status=202, answer=Sent, problems=(404, 409)
)
async def redrive_webhook(call: Call) -> Answer:
    """Deliver again what is dead: each once, under its id, with three more days of tries."""
    webhook, asked, now = _own(call), call.body, call.door.now()
    if webhook.get("disabled_at") is not None:
        raise Problem(409, "disabled", "the endpoint is disabled: enable it first")
    since = ms(asked.since, "/since") if asked.since else 0
    until = ms(asked.until, "/until") if asked.until else now
    dead = Dead(since, until, _types(asked.types))
    await _tries(call, webhook, max(since, now - 30 * DAY_MS), dead.take)  # none is tried before it was made
    found = dead.again(now)
    for notice in found:
        await call.door.producer.send(NOTIFICATIONS, notice)
    await audit.tell(call, "webhook-redriven", webhook["webhook_id"], f"{len(found)} notifications")
    return Answer(Sent([notice["notification_id"] for notice in found], dead.more), 202)


def _own(call: Call) -> Webhook:
    webhook = call.door.webhooks.get(call.params["webhook_id"])
    if webhook is None or webhook["tenant"] != call.tenant:
        raise not_found("webhook")
    return webhook


async def _tries(call: Call, webhook: Webhook, since: int, take: Callable[[Notification], None]) -> None:
    """Hand over every try since then (ms), one by one: an endpoint has millions in 30 days."""

    def own(one: Notification) -> None:
        if one["tenant"] == call.tenant:
            take(one)

    await call.door.lookup.each(NOTIFIED, webhook["webhook_id"], since, own)


async def _put(call: Call, webhook: Webhook, action: str) -> None:
    await call.door.producer.send(WEBHOOKS, webhook)
    await audit.tell(call, action, webhook["webhook_id"])


def _sealing(call: Call) -> Sealing:
    return Sealing(call.door.settings.webhook_rules().secret_keys)


def _url(call: Call, url: str) -> str:
    rules = call.door.settings.webhook_rules()
    try:
        Guard(rules.networks, rules.http).check_url(url)
    except BadUrl as error:
        raise of_field("/url", str(error)) from None
    return url


def _types(given: list[str]) -> list[str]:
    names = [name if "." in name else f"message.{name}" for name in given]
    if unknown := [name for name in names if name not in (*payload.NAMES, payload.TEST)]:
        raise of_field("/types", f"no type {unknown[0][:40]!r}: there are {', '.join(payload.NAMES)}")
    return names


def _shown(webhook: Webhook) -> Endpoint:
    return Endpoint(
        webhook["webhook_id"], webhook["url"], webhook.get("types", []), webhook["kind"], webhook.get("concurrency", 10),
        webhook.get("description", ""), webhook.get("disabled_at") is None, webhook.get("disabled_reason", ""), moment(webhook["created_at"]),
    )  # fmt: skip


def _with_secret(webhook: Webhook, secret: str) -> Secret:
    public = signing.public_key(secret) if secret.startswith(signing.ED25519) else None
    return Secret(_shown(webhook), secret, public)
