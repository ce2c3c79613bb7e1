"""Who calls: a key, or a token that was given for one (OAuth 2 client credentials, RFC 6749 4.4, RFC 6750; JWT, RFC 7519).

A token carries the id of its key and is worth no more than the key is at the moment: who revokes the key ends its tokens. Failed
sign-ins are answered later each time, per address, and logged without what was presented.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import jwt

from avro.records import ApiKey, Tenant
from gateway.host import network
from postroad import keys

log = logging.getLogger(__name__)

ISSUER = "postroad"
ALGORITHM = "HS256"
FAILURE_S = 0.1  # the first failure waits so long, each one more twice as long,
FAILURE_MAX_S = 3.0  # up to that
FORGOTTEN_S = 60.0  # after the last
PEERS_MAX = 10_000


class Refused(Exception):
    """Not signed in; the text says why, and nothing of the secret."""


class Identity:
    """Verifies keys and tokens. `followed`, `tenants`: as their topics have them; `secrets`: the first signs, all are believed."""

    def __init__(
        self, followed: Mapping[str, ApiKey], tenants: Mapping[str, Tenant], secrets: Sequence[str] = (), token_s: float = 3600.0,
        *, clock: Callable[[], float] = time.time, sleep: Callable[[float], object] | None = None,
    ):  # fmt: skip
        self._followed, self._tenants, self._secrets, self._token_s = followed, tenants, list(secrets), token_s
        self._clock, self._sleep = clock, sleep
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self.used: dict[str, int] = {}
        """When (ms) each key was used here last."""

    async def key_of(self, presented: str, peer: str) -> ApiKey:
        """The key that a client presents, or whose token it presents. Raises Refused, later each time."""
        now = int(self._clock() * 1000)
        key = keys.verify(presented, self._followed, now) if presented.startswith("pr_") else self._of_token(presented)
        if key is not None and (key := self.still(key)) is not None:
            self.used[key["key_id"]] = now
            return key
        await self._fail(presented, peer)
        raise Refused("the key or token is not known, or not in force any more")

    def still(self, key: ApiKey) -> ApiKey | None:
        """The key as it is now, where it is in force and its tenant active."""
        found = self._followed.get(key["key_id"])
        tenant = self._tenants.get(key["tenant"])
        if found is None or tenant is None or not tenant.get("active", True):
            return None
        return found if keys.in_force(found, int(self._clock() * 1000)) else None

    def ends(self) -> list[tuple[str, str, int]]:
        """(tenant, key, when it ends in ms) of keys in force that end, the soonest first. Other threads may ask."""
        now = int(self._clock() * 1000)
        found = [
            (key["tenant"], key["key_id"], end)
            for key in list(self._followed.values())
            if (end := key.get("expires_at")) is not None and keys.in_force(key, now)
        ]
        return sorted(found, key=lambda each: each[2])

    def token(self, key: ApiKey) -> tuple[str, int]:
        """A token for a key, and for how many seconds it is good. Raises ValueError where the installation gives none."""
        if not self._secrets:
            raise ValueError("this installation gives no tokens: use the key itself (setting api_token_secret)")
        now = int(self._clock())
        claims = {
            "iss": ISSUER,
            "sub": key["key_id"],
            "tenant": key["tenant"],
            "iat": now,
            "exp": now + int(self._token_s),
        }
        return jwt.encode(claims, self._secrets[0], ALGORITHM), int(self._token_s)

    def _of_token(self, token: str) -> ApiKey | None:
        for secret in self._secrets:
            try:
                claims = jwt.decode(
                    token, secret, [ALGORITHM], issuer=ISSUER, options={"require": ["exp", "sub"], "verify_exp": False}
                )
            except (jwt.PyJWTError, ValueError):
                continue
            if not isinstance(claims["exp"], int) or claims["exp"] <= self._clock():
                return None
            key = self._followed.get(str(claims["sub"]))
            return key if key is not None and key["tenant"] == claims.get("tenant") else None
        return None

    async def _fail(self, presented: str, peer: str) -> None:
        now, who = self._clock(), network(peer)
        number, at = self._failures.pop(who, (0, now))
        number = 0 if now - at > FORGOTTEN_S else number
        self._failures[who] = number + 1, now
        if len(self._failures) > PEERS_MAX:
            self._failures.popitem(last=False)
        log.warning(
            "sign-in refused: key id %r, from %s, failure %d", keys.key_id_of(presented) or "-", peer, number + 1
        )
        wait = min(FAILURE_S * 2 ** min(number, 10), FAILURE_MAX_S)
        if self._sleep is not None:
            self._sleep(wait)
        else:
            await asyncio.sleep(wait)
