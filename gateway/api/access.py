"""/v1/keys and /v1/oauth/token: who may call. A caller gives no key more than its own has."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Annotated
from urllib.parse import parse_qs, unquote_plus

import msgspec

from avro.records import ApiKey
from gateway.api import audit, bodies
from gateway.api.messages import Moment, ms
from gateway.api.problems import Problem, not_found, unauthorized
from gateway.api.routes import Answer, Call, Routes, rate_headers
from gateway.api.status import moment
from gateway.identity import Refused
from postroad import keys
from topics.catalogue import KEYS

FORM_MAX = 8 << 10  # bytes
KEYS_MAX = 1_000  # of a tenant in force: every door knows all of them
NO_STORE = {"Cache-Control": "no-store"}  # RFC 6749 5.1

routes = Routes()


class NewKey(msgspec.Struct, forbid_unknown_fields=True):
    """A key to make. Scopes: send, read, manage; streams: none named is all."""

    scopes: list[str]
    name: str = ""
    streams: list[str] = []
    expires_at: Moment | None = None
    test_mode: bool = False
    rate_per_second: float = 0.0


class Rotation(msgspec.Struct, forbid_unknown_fields=True):
    """For how long the key before works as well, seconds."""

    overlap_s: Annotated[float, msgspec.Meta(ge=0, le=30 * 86_400)] = 86_400.0


class Key(msgspec.Struct):
    """A key, without its secret. `used_at`: to within a minute, by what this replica has seen or was told."""

    key_id: str
    name: str
    scopes: list[str]
    streams: list[str]
    test_mode: bool
    in_force: bool
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    used_at: datetime | None


class Secret(msgspec.Struct):
    """A key and its secret, which is shown here and nowhere else."""

    key: Key
    secret: str


class Keys(msgspec.Struct):
    """All keys of the tenant."""

    keys: list[Key]


class Token(msgspec.Struct):
    """RFC 6749 5.1."""

    access_token: str
    token_type: str
    expires_in: int
    scope: str


@routes.add("POST", "/v1/keys", "manage", body=NewKey, status=201, answer=Secret, problems=(409,))
async def create_key(call: Call) -> Answer:
    """Make a key. Its secret is shown once."""
    asked: NewKey = call.body
    expires_at = ms(asked.expires_at, "/expires_at") if asked.expires_at else None
    try:
        key, secret = keys.make(
            call.tenant, asked.scopes, call.door.now(), streams=asked.streams, name=asked.name, test_mode=asked.test_mode,
            expires_at=expires_at, rate_per_second=asked.rate_per_second,
        )  # fmt: skip
    except ValueError as error:
        field, _, text = str(error).partition(": ")
        raise Problem(422, "invalid", f"{field}: {text}" if text else field) from None
    if beyond := keys.beyond(call.key, key):
        raise Problem(403, "forbidden", f"a key cannot give more than it has: {beyond}")
    mine = sum(keys.in_force(one, key["created_at"]) for one in call.door.keys.values() if one["tenant"] == call.tenant)
    if mine >= KEYS_MAX:
        raise Problem(409, "too-many", f"a tenant has at most {KEYS_MAX:,} keys in force: revoke some")
    await call.door.producer.send(KEYS, key)
    await audit.tell(call, "key-created", key["key_id"], " ".join(key["scopes"]))
    return Answer(Secret(_shown(call, key), secret), 201, NO_STORE)


@routes.add("GET", "/v1/keys", "manage", answer=Keys)
async def list_keys(call: Call) -> Answer:
    """The tenant's keys, without their secrets."""
    own = sorted(
        (one for one in call.door.keys.values() if one["tenant"] == call.tenant), key=lambda one: one["created_at"]
    )
    return Answer(Keys([_shown(call, one) for one in own]))


@routes.add("DELETE", "/v1/keys/{key_id}", "manage", status=204, problems=(404,))
async def revoke_key(call: Call) -> Answer:
    """End a key at once, for good."""
    key = _own(call)
    revoked: ApiKey = {**key, "revoked_at": call.door.now()}
    await call.door.producer.send(KEYS, revoked)
    await audit.tell(call, "key-revoked", key["key_id"])
    return Answer(None, 204)


@routes.add("POST", "/v1/keys/{key_id}/rotate", "manage", body=Rotation, status=201, answer=Secret, problems=(404, 409))
async def rotate_key(call: Call) -> Answer:
    """Make a key like another one, which works for a while beside it. The new secret is shown once."""
    own = _own(call)
    if beyond := keys.beyond(call.key, own):
        raise Problem(403, "forbidden", f"a key cannot give more than it has, rotate it with one like it: {beyond}")
    try:
        old, new, secret = keys.rotated(own, call.door.now(), round(call.body.overlap_s * 1000))
    except ValueError as error:
        raise Problem(409, "not-in-force", str(error)) from None
    await call.door.producer.send(KEYS, new)
    await call.door.producer.send(KEYS, old)
    await audit.tell(call, "key-rotated", old["key_id"], f"into {new['key_id']}")
    return Answer(Secret(_shown(call, new), secret), 201, NO_STORE)


@routes.add(
    "POST",
    "/v1/oauth/token",
    None,
    answer=Token,
    media={"application/x-www-form-urlencoded": None},
    problems=(401, 429),
)
async def token(call: Call) -> Answer:
    """A signed token for a key: OAuth 2 client credentials. client_id is the id of the key, client_secret the key."""
    raw = await bodies.small(call.request, FORM_MAX, call.door.settings.api_timeout_s)
    try:
        form = {name: values[0] for name, values in parse_qs(raw.decode(), max_num_fields=20).items()}
    except ValueError:
        raise Problem(400, "invalid_request", "the body is no form in UTF-8") from None
    if form.get("grant_type") != "client_credentials":
        raise Problem(400, "unsupported_grant_type", "grant_type must be client_credentials")
    client_id, secret = _basic(call.request.headers.get("authorization", "")) or (
        form.get("client_id", ""),
        form.get("client_secret", ""),
    )
    try:
        key = await call.door.identity.key_of(secret, call.peer)
    except Refused as error:
        raise unauthorized(str(error)) from None
    if not secret.startswith("pr_") or client_id not in ("", key["key_id"]):
        raise unauthorized("client_id is the id of the key, client_secret the key itself")
    verdict = call.door.limits.take(f"t:{key['tenant']}", f"k:{key['key_id']}")
    if not verdict.passes:
        raise Problem(429, "too-many", "more requests than this key or tenant may send", headers=rate_headers(verdict))
    try:
        signed, life_s = call.door.identity.token(key)
    except ValueError as error:
        raise Problem(400, "unsupported_grant_type", str(error)) from None
    return Answer(Token(signed, "Bearer", life_s, " ".join(key["scopes"])), 200, NO_STORE)


def _own(call: Call) -> ApiKey:
    key = call.door.keys.get(call.params["key_id"])
    if key is None or key["tenant"] != call.tenant:
        raise not_found("key")
    return key


def _shown(call: Call, key: ApiKey) -> Key:
    def at(time: int | None) -> datetime | None:
        return None if time is None else moment(time)

    used = max(call.door.identity.used.get(key["key_id"], 0), call.door.key_uses.get(key["key_id"], 0))
    return Key(
        key["key_id"], key.get("name", ""), key["scopes"], key.get("streams", []), key.get("test_mode", False),
        keys.in_force(key, call.door.now()), moment(key["created_at"]), at(key.get("expires_at")), at(key.get("revoked_at")), at(used or None),
    )  # fmt: skip


def _basic(header: str) -> tuple[str, str] | None:
    """RFC 6749 2.3.1: both are form-encoded inside."""
    if header[:6].lower() != "basic ":
        return None
    try:
        user, _, password = base64.b64decode(header[6:], validate=True).decode().partition(":")
    except (binascii.Error, UnicodeError, ValueError):
        raise unauthorized("the Authorization header is no Basic of RFC 7617") from None
    return unquote_plus(user), unquote_plus(password)
