"""Signatures of Standard Webhooks 1.0: v1 (HMAC-SHA256, secrets whsec_) and v1a (Ed25519, secrets whsk_, public keys whpk_).

The library `standardwebhooks` signs HMAC alone and brings an HTTP client with it: tests verify with it what is signed here.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from collections.abc import Sequence
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from avro.records import Webhook, WebhookKind

HMAC, ED25519, PUBLIC = "whsec_", "whsk_", "whpk_"
HMAC_BYTES = 32  # the specification has 24 to 64


class BadSecret(ValueError):
    """A secret that cannot sign; the text says why and does not show it."""


def new_secret(kind: WebhookKind) -> str:
    """A new secret in its text form."""
    prefix, size = (HMAC, HMAC_BYTES) if kind == "hmac" else (ED25519, 32)
    return prefix + base64.b64encode(secrets.token_bytes(size)).decode()


def in_force(webhook: Webhook, now: int) -> list[str]:
    """Secrets that sign at `now` (ms), newest first."""
    return [each["secret"] for each in webhook["secrets"] if (until := each.get("until")) is None or until > now] \
        if "secrets" in webhook else []  # fmt: skip


def public_key(secret: str) -> str:
    """What verifies signatures of an Ed25519 secret: whpk_ and base64. Raises BadSecret."""
    return PUBLIC + base64.b64encode(_ed25519(secret).public_key().public_bytes_raw()).decode()


def headers(secrets_in_force: Sequence[str], id: str, now: int, body: bytes) -> dict[str, str]:
    """The three headers of a request at `now` (ms), signed by every secret. Raises BadSecret, also where there is none."""
    stamp = str(now // 1000)
    signed = b"%b.%b.%b" % (id.encode(), stamp.encode(), body)
    if not secrets_in_force:
        raise BadSecret("it has no secret in force: rotate it")
    return {
        "webhook-id": id,
        "webhook-timestamp": stamp,
        "webhook-signature": " ".join(_sign(secret, signed) for secret in secrets_in_force),
    }


def _sign(secret: str, data: bytes) -> str:
    if secret.startswith(ED25519):
        return "v1a," + base64.b64encode(_ed25519(secret).sign(data)).decode()
    return "v1," + base64.b64encode(hmac.digest(_raw(secret, HMAC), data, "sha256")).decode()


@lru_cache(maxsize=4096)
def _ed25519(secret: str) -> Ed25519PrivateKey:
    raw = _raw(secret, ED25519)
    if len(raw) not in (32, 64):  # a seed, or a seed with its public key behind it
        raise BadSecret("an Ed25519 secret has 32 or 64 bytes")
    return Ed25519PrivateKey.from_private_bytes(raw[:32])


@lru_cache(maxsize=4096)
def _raw(secret: str, prefix: str) -> bytes:
    try:
        raw = base64.b64decode(secret.removeprefix(prefix), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if not secret.startswith(prefix) or not raw:
        raise BadSecret(f"a secret is {HMAC} or {ED25519} and base64")
    return raw
