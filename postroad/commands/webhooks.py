"""postroad webhooks: endpoints that are told of events, what was delivered to them, and what is delivered again."""

from __future__ import annotations

import asyncio
import secrets
import time
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from avro.records import Notification, Webhook, WebhookKind, WebhookSecret
from postroad import settings
from postroad.commands.printing import time_of
from postroad.webhooks import payload, signing
from postroad.webhooks.guard import BadUrl, Guard
from postroad.webhooks.notifier import CONCURRENCY_MAX
from postroad.webhooks.redrive import dead
from postroad.webhooks.sealing import Sealing

app = typer.Typer(no_args_is_help=True, help="Endpoints of tenants that are told of events.")

Id = Annotated[str, typer.Argument(help="Id of the endpoint, as `list` shows it.")]
Tenant = Annotated[str, typer.Option(help="Id of the tenant.")]
Url = Annotated[str, typer.Option(help="Where to POST.")]
Types = Annotated[list[str] | None, typer.Option("--type", help="Type of event; may be repeated. Default: all.")]
Concurrency = Annotated[int, typer.Option(min=1, max=CONCURRENCY_MAX, help="Requests at a time.")]


@app.command("list")
def list_webhooks(tenant: Annotated[str, typer.Option(help="Only of this tenant.")] = "") -> None:
    """Show the endpoints, without their secrets."""
    from postroad.cli import _show

    rows = [one for one in asyncio.run(_read()).values() if tenant in ("", one["tenant"])]
    _show(["id", "tenant", "url", "types", "kind", "at a time", "disabled", "why"],
          [(one["webhook_id"], one["tenant"], one["url"], ", ".join(one.get("types", [])) or "all", one["kind"], one.get("concurrency", 10),
            time_of(at) if (at := one.get("disabled_at")) else "", one.get("disabled_reason", "")) for one in rows])  # fmt: skip


@app.command()
def create(tenant: Tenant, url: Url, type: Types = None, kind: WebhookKind = "hmac", concurrency: Concurrency = 10) -> None:  # fmt: skip
    """Add an endpoint. Its secret is shown once."""
    now, secret = _now(), signing.new_secret(kind)
    webhook: Webhook = {
        "webhook_id": "wh_" + secrets.token_urlsafe(16), "tenant": tenant, "url": _checked(url), "types": _types(type), "kind": kind,
        "secrets": [{"secret": _sealing().seal(secret), "until": None}], "created_at": now, "updated_at": now, "concurrency": concurrency,
    }  # fmt: skip
    _put(webhook)
    print(f"created: {webhook['webhook_id']}")
    _tell(secret)


@app.command()
def update(
    webhook_id: Id,
    url: Url = "",
    type: Types = None,
    all_types: Annotated[bool, typer.Option("--all-types", help="Events of all types again.")] = False,
    concurrency: Annotated[int, typer.Option(min=0, max=CONCURRENCY_MAX, help="Requests at a time.")] = 0,
    enable: Annotated[bool | None, typer.Option("--enable/--disable", help="Send to it again, or no more.")] = None,
) -> None:
    """Change an endpoint. What is not named stays."""
    webhook = _known(webhook_id)
    webhook["updated_at"] = _now()
    if url:
        webhook["url"] = _checked(url)
    if type or all_types:
        webhook["types"] = _types(type)
    if concurrency:
        webhook["concurrency"] = concurrency
    if enable is not None:
        webhook["disabled_at"], webhook["disabled_reason"] = (None, "") if enable else (_now(), "by an operator")
    _put(webhook)
    print(f"updated: {webhook_id}")


@app.command()
def delete(webhook_id: Id) -> None:
    """Remove an endpoint; what waits for it is not delivered."""
    from postroad.cli import _write
    from topics.catalogue import WEBHOOKS

    _write([WEBHOOKS.send(_known(webhook_id))._replace(value=None)])
    print(f"deleted: {webhook_id}")


@app.command()
def rotate(
    webhook_id: Id, overlap_h: Annotated[float, typer.Option(min=0, help="Hours for which both sign.")] = 24.0
) -> None:
    """Give an endpoint a new secret, shown once; the one before signs beside it for a while."""
    webhook, now, sealing = _known(webhook_id), _now(), _sealing()
    until, secret = now + round(overlap_h * 3_600_000), signing.new_secret(webhook["kind"])
    old: list[WebhookSecret] = [
        {"secret": sealing.again(each["secret"]), "until": end}
        for each in webhook.get("secrets", [])
        if (end := min(each.get("until") or until, until)) > now
    ]
    webhook["secrets"] = [{"secret": sealing.seal(secret), "until": None}, *old]
    webhook["updated_at"] = now
    _put(webhook)
    print(f"rotated: {webhook_id}; the secret before signs until {time_of(until)}")
    _tell(secret)


@app.command()
def test(webhook_id: Id) -> None:
    """Send an event of type webhook.test to an endpoint; `deliveries` shows what came of it."""
    from postroad.cli import _write
    from topics.catalogue import NOTIFICATIONS

    notice = payload.test_of(_known(webhook_id), f"test:{webhook_id}:{secrets.token_hex(8)}", _now())
    _write([NOTIFICATIONS.send(notice)])
    print(f"sent: {notice['notification_id']}")


@app.command()
def deliveries(
    webhook_id: Id, limit: Annotated[int, typer.Option(min=1, help="The newest so many tries.")] = 50
) -> None:
    """Show what came of the latest tries of the last 30 days."""
    from postroad.cli import _show

    tries = sorted(asyncio.run(_tries(webhook_id)), key=lambda one: one.get("tried_at") or 0)[-limit:]
    _show(["at", "notification", "type", "try", "outcome", "status", "ms", "error"],
          [(time_of(one.get("tried_at") or 0), one["notification_id"], one["type"], one.get("attempt", 0), one.get("outcome", ""),
            one.get("status", 0), one.get("duration_ms", 0), one.get("error", "")) for one in tries])  # fmt: skip


@app.command()
def redrive(
    webhook_id: Id,
    since: Annotated[str, typer.Option(help="Events from then on: 2026-12-24T18:00 (UTC). Default: 30 days ago.")] = "",
    until: Annotated[str, typer.Option(help="... and before then; default: now.")] = "",
    type: Types = None,
) -> None:
    """Deliver again what is dead: each once, under its id, with three more days of tries."""
    from postroad.cli import CommandError, _write
    from topics.catalogue import NOTIFICATIONS

    webhook, now = _known(webhook_id), _now()
    if webhook.get("disabled_at") is not None:
        raise CommandError(f"{webhook_id} is disabled: `postroad webhooks update {webhook_id} --enable` first")
    found = dead(asyncio.run(_tries(webhook_id)), _at(since) or 0, _at(until) or now, _types(type), now)
    _write([NOTIFICATIONS.send(notice) for notice in found])
    print(f"redriven: {len(found)}")


def _put(webhook: Webhook) -> None:
    from postroad.cli import _write
    from topics.catalogue import WEBHOOKS

    _write([WEBHOOKS.send(webhook)])


def _tell(secret: str) -> None:
    print(f"secret: {secret}")
    if secret.startswith(signing.ED25519):
        print(f"public key: {signing.public_key(secret)}")


def _known(webhook_id: str) -> Webhook:
    from postroad.cli import CommandError

    if (webhook := asyncio.run(_read()).get(webhook_id)) is None:
        raise CommandError(f"no endpoint {webhook_id[:40]!r}: `postroad webhooks list` shows them")
    return webhook


def _sealing() -> Sealing:
    return Sealing(settings.load().webhook_rules().secret_keys)


def _checked(url: str) -> str:
    from postroad.cli import CommandError

    rules = settings.load().webhook_rules()
    try:
        Guard(rules.networks, rules.http).check_url(url)
    except BadUrl as error:
        raise CommandError(str(error)) from None
    return url


def _types(given: list[str] | None) -> list[str]:
    from postroad.cli import CommandError

    names = [name if "." in name else f"message.{name}" for name in given or []]
    if unknown := [name for name in names if name not in (*payload.NAMES, payload.TEST)]:
        raise CommandError(f"no type {unknown[0][:40]!r}: there are {', '.join(payload.NAMES)}")
    return names


def _at(text: str) -> int | None:
    from postroad.cli import CommandError

    try:
        when = datetime.fromisoformat(text) if text else None
    except ValueError:
        raise CommandError(f"{text[:40]!r} is no time: write 2026-12-24T18:00, in UTC") from None
    if when is None:
        return None
    return round((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000)


async def _read() -> dict[str, Webhook]:
    from postroad.cli import _client
    from topics.catalogue import WEBHOOKS

    found: dict[str, Any] = {}
    async with _client() as client:
        async for record, value in client.read(WEBHOOKS, broken=lambda record, error: None):
            found[(record.key or b"").decode(errors="replace")] = value
    return {key: value for key, value in found.items() if value is not None}


async def _tries(webhook_id: str) -> list[Notification]:
    from postroad.cli import _client
    from topics.catalogue import NOTIFIED

    async with _client() as client:
        return [
            value
            async for record, value in client.read(NOTIFIED, broken=lambda record, error: None)
            if value is not None and record.key == webhook_id.encode()
        ]


def _now() -> int:
    return time.time_ns() // 1_000_000
