"""postroad keys: what the programs of a tenant sign in with at the front doors."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

import typer

from avro.records import ApiKey
from postroad import keys
from postroad.commands.orders import _ms
from postroad.commands.printing import safe, time_of

app = typer.Typer(no_args_is_help=True, help="Keys of tenants for REST and SMTP submission.")

Tenant = Annotated[str, typer.Option(help="Id of the tenant.")]
Id = Annotated[str, typer.Argument(help="Id of the key, as `list` shows it.")]


@app.command()
def create(
    tenant: Tenant,
    scope: Annotated[list[str] | None, typer.Option(help="send, read, manage; may be repeated. Default: send, read.")] = None,
    stream: Annotated[list[str] | None, typer.Option(help="transactional, broadcast; default: both.")] = None,
    name: Annotated[str, typer.Option(help="For people to read.")] = "",
    expires: Annotated[str, typer.Option(help="After so long it is refused: 90d, 12h; default: never.")] = "",
    test: Annotated[bool, typer.Option("--test", help="Mail sent with it reaches the simulator and nobody else.")] = False,
    rate: Annotated[float, typer.Option(min=0, help="Requests a second; 0: the installation's setting.")] = 0.0,
) -> None:  # fmt: skip
    """Make a key. Its secret is shown once."""
    from postroad.cli import CommandError

    _must_exist(tenant)
    now = _now()
    try:
        key, secret = keys.make(
            tenant, scope or ["send", "read"], now, streams=stream or [], name=name, test_mode=test, rate_per_second=rate,
            expires_at=now + _ms(expires) if expires else None,
        )  # fmt: skip
    except ValueError as error:
        raise CommandError(safe(str(error))) from None
    _put(key)
    print(f"created: {key['key_id']}")
    print(f"secret: {secret}")


@app.command("list")
def list_keys(tenant: Annotated[str, typer.Option(help="Only of this tenant.")] = "") -> None:
    """Show the keys, without their secrets."""
    from postroad.cli import _show

    found, uses = asyncio.run(_read())
    now = _now()
    rows = [
        (key["key_id"], key["tenant"], key.get("name", ""), " ".join(key["scopes"]), " ".join(key.get("streams", [])) or "all",
         "test" if key.get("test_mode") else "live", "yes" if keys.in_force(key, now) else "no", _at(key.get("expires_at")),
         _at(uses.get(key["key_id"])))
        for key in sorted(found.values(), key=lambda one: (one["tenant"], one["created_at"])) if tenant in ("", key["tenant"])
    ]  # fmt: skip
    _show(["id", "tenant", "name", "scopes", "streams", "mode", "in force", "expires", "last used"], rows)


@app.command()
def revoke(key_id: Id) -> None:
    """End a key at once, for good."""
    key = _known(key_id)
    _put({**key, "revoked_at": _now()})
    print(f"revoked: {key_id}")


@app.command()
def rotate(
    key_id: Id, overlap_h: Annotated[float, typer.Option(min=0, help="Hours for which both work.")] = 24.0
) -> None:
    """Make a key like another one, which ends after a while. The new secret is shown once."""
    from postroad.cli import CommandError

    try:
        old, new, secret = keys.rotated(_known(key_id), _now(), round(overlap_h * 3_600_000))
    except ValueError as error:
        raise CommandError(str(error)) from None
    _put(new, old)
    print(f"created: {new['key_id']}; {key_id} works until {_at(old['expires_at'])}")
    print(f"secret: {secret}")


def _put(*several: ApiKey) -> None:
    from postroad.cli import _write
    from topics.catalogue import KEYS

    _write([KEYS.send(key) for key in several])


def _known(key_id: str) -> ApiKey:
    from postroad.cli import CommandError

    if (key := asyncio.run(_read())[0].get(key_id)) is None:
        raise CommandError(f"no key {safe(key_id[:40])!r}: `postroad keys list` shows them")
    return key


def _must_exist(tenant: str) -> None:
    from postroad.cli import CommandError
    from postroad.commands.domains import in_force

    if tenant not in in_force():
        raise CommandError(f"no tenant {safe(tenant[:64])!r}: `postroad tenants apply` makes one")


async def _read() -> tuple[dict[str, ApiKey], dict[str, int]]:
    """The keys by id, and when each was used last."""
    from postroad.cli import _client
    from topics.catalogue import KEY_USES, KEYS

    found: dict[str, Any] = {}
    uses: dict[str, int] = {}
    async with _client() as client:
        async for record, value in client.read(KEYS, broken=lambda record, error: None):
            found[(record.key or b"").decode(errors="replace")] = value
        async for _, use in client.read(KEY_USES, broken=lambda record, error: None):
            if use is not None:
                uses[use["key_id"]] = max(use["used_at"], uses.get(use["key_id"], 0))
    return {id: key for id, key in found.items() if key is not None}, uses


def _at(ms: int | None) -> str:
    return "-" if ms is None else time_of(ms)


def _now() -> int:
    return time.time_ns() // 1_000_000
