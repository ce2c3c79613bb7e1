"""Addresses of people as a policy wants them kept where analysts look: as they are, hashed, or not at all.

Hashed is a keyed BLAKE2b of the address with its domain in lower case: the same address gives the same 32 characters, so it can be counted and looked for
by who has the secret, and by nobody else (RFC 5321 2.3.11 leaves the case of a local part to its host, so it stays). Other texts then have `<address>` in place
of whatever looks like one.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b
from typing import Literal

Policy = Literal["plain", "hash", "none"]
_ADDRESS = re.compile(r"(?:[^\s<>()\"',;:]{1,64}|\"[^\"\n]{1,64}\")@[^\s<>()\"',;:]{1,255}")


class Masking:
    """`address` for a column of addresses, `text` for replies and details. `secret`: of hash."""

    def __init__(self, policy: Policy = "plain", secret: str = ""):
        self.policy = policy
        self._key = blake2b(secret.encode()).digest()
        self._hashed = lru_cache(50_000)(self._hash)  # a message has some ten events

    def _hash(self, address: str) -> str:
        local, at, domain = address.rpartition("@")
        told = f"{local}{at}{domain.lower()}".encode("utf-8", "surrogatepass")
        return blake2b(told, digest_size=16, key=self._key).hexdigest()

    def address(self, address: str) -> str:
        """What is kept of an address; nothing of none."""
        if self.policy == "plain" or not address:
            return address
        return self._hashed(address) if self.policy == "hash" else ""

    def text(self, text: str) -> str:
        """What is kept of a text that may quote addresses."""
        return text if self.policy == "plain" or "@" not in text else _ADDRESS.sub("<address>", text)


PLAIN = Masking()
