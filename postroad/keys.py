"""Keys of the front doors: how they are made, recognised, and what each may do.

    pr_live_<id>_<random>    mail that is sent with it leaves
    pr_test_<id>_<random>    mail that is sent with it ends in the simulator

The id may be shown and logged, the rest may not. Stored is a SHA-256 of the whole: 190 random bits cannot be guessed, so a slow hash
would only slow us down.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
from collections.abc import Iterable, Mapping
from typing import get_args

from avro.records import ApiKey, MessageStream

SCOPES = ("send", "read", "manage")
STREAMS: tuple[str, ...] = get_args(MessageStream)
ID_LETTERS, SECRET_LETTERS = string.ascii_lowercase + string.digits, string.ascii_letters + string.digits
ID_LENGTH, SECRET_LENGTH = 16, 32
NAME_MAX = 100  # characters
RATE_MIN = 0.001  # requests a second: one in a quarter of an hour
OVERLAP_MS = 24 * 3_600_000  # by default both of two keys work for so long when one is rotated

_SECRET = re.compile(rf"pr_(live|test)_([a-z0-9]{{{ID_LENGTH}}})_[A-Za-z0-9]{{{SECRET_LENGTH}}}")
_NOBODY = hashlib.sha256(b"").hexdigest()  # compared with where the key is unknown, so that it takes as long


def make(
    tenant: str, scopes: Iterable[str], now: int, *, streams: Iterable[str] = (), expires_at: int | None = None,
    test_mode: bool = False, name: str = "", rate_per_second: float = 0.0,
) -> tuple[ApiKey, str]:  # fmt: skip
    """A new key and its secret. Times are ms. Raises ValueError that says what is wrong."""
    scopes, streams = list(dict.fromkeys(scopes)), list(dict.fromkeys(streams))
    if not scopes or (wrong := [scope for scope in scopes if scope not in SCOPES]):
        raise ValueError(
            f"scopes: {wrong[0][:40]!r} is none" if scopes else f"scopes: one at least of {', '.join(SCOPES)}"
        )
    if wrong := [stream for stream in streams if stream not in STREAMS]:
        raise ValueError(f"streams: {wrong[0][:40]!r} is none of {', '.join(STREAMS)}")
    if len(name) > NAME_MAX or not name.isprintable():
        raise ValueError(f"name: one line of at most {NAME_MAX} characters")
    if expires_at is not None and expires_at <= now:
        raise ValueError("expires_at is over already")
    if rate_per_second != 0 and not RATE_MIN <= rate_per_second < 1e6:
        raise ValueError(f"rate_per_second: 0 for the installation's, or {RATE_MIN} to a million")
    key_id = "".join(secrets.choice(ID_LETTERS) for _ in range(ID_LENGTH))
    random = "".join(secrets.choice(SECRET_LETTERS) for _ in range(SECRET_LENGTH))
    secret = f"pr_{'test' if test_mode else 'live'}_{key_id}_{random}"
    key: ApiKey = {
        "key_id": key_id, "tenant": tenant, "hash": _hash(secret), "scopes": scopes, "streams": streams, "created_at": now,
        "expires_at": expires_at, "revoked_at": None, "test_mode": test_mode, "name": name, "rate_per_second": rate_per_second,
    }  # fmt: skip
    return key, secret


def verify(secret: str, followed: Mapping[str, ApiKey], now: int) -> ApiKey | None:
    """The key with this secret, where it is in force at `now` (ms). `followed`: keys by id, as control.keys has them."""
    found = _SECRET.fullmatch(secret)
    key = followed.get(found[2]) if found else None
    same = hmac.compare_digest(_hash(secret), key["hash"] if key else _NOBODY)
    return key if key is not None and same and in_force(key, now) else None


def in_force(key: ApiKey, now: int) -> bool:
    """Whether a key works at `now` (ms)."""
    expires_at, revoked_at = key.get("expires_at"), key.get("revoked_at")
    return (expires_at is None or now < expires_at) and (revoked_at is None or now < revoked_at)


def may(key: ApiKey, scope: str, stream: str = "") -> bool:
    """Whether a key has a scope and, where one is named, may send to the message stream."""
    return scope in key["scopes"] and (not stream or not key.get("streams") or stream in key["streams"])


def beyond(giver: ApiKey, given: ApiKey) -> str:
    """What a key has that another one, which makes or rotates it, has not; empty: nothing."""
    if more := set(given["scopes"]) - set(giver["scopes"]):
        return f"scopes {', '.join(sorted(more))}"
    if more := set(given.get("streams") or STREAMS) - set(giver.get("streams") or STREAMS):
        return f"streams {', '.join(sorted(more))}"
    if giver.get("test_mode", False) and not given.get("test_mode", False):
        return "live mail; a test key gives test keys only"
    ends, until = giver.get("expires_at"), given.get("expires_at")
    if ends is not None and (until is None or until > ends):
        return "a longer life; expires_at must be no later than your key's own"
    return ""


def rotated(key: ApiKey, now: int, overlap_ms: int = OVERLAP_MS) -> tuple[ApiKey, ApiKey, str]:
    """The key as it ends after the overlap, the one that takes its place, and the secret of that. Raises ValueError for one that
    is over already."""
    if not in_force(key, now):
        raise ValueError("the key is not in force any more: create another one")
    life = key.get("expires_at")
    end = now + max(overlap_ms, 0) if life is None else min(life, now + max(overlap_ms, 0))
    new, secret = make(
        key["tenant"], key["scopes"], now, streams=key.get("streams", []), expires_at=life, test_mode=key.get("test_mode", False),
        name=key.get("name", ""), rate_per_second=key.get("rate_per_second", 0.0),
    )  # fmt: skip
    return {**key, "expires_at": end}, new, secret


def key_id_of(secret: str) -> str:
    """What of a presented secret may be logged: the id, empty where it does not look like a key."""
    found = _SECRET.fullmatch(secret)
    return found[2] if found else ""


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
