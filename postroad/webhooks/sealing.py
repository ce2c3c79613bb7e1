"""Secrets of endpoints as control.webhooks keeps them: sealed with a key of the operator's (Fernet: AES-128-CBC and HMAC-SHA256).

A sealed secret is "sealed:" and a Fernet token. Without keys secrets are written as they are; those that are there so are read in any
case, and are sealed when their endpoint is rotated.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from postroad.webhooks.signing import BadSecret

SEALED = "sealed:"
_INFO = b"postroad secrets of webhooks"  # the same text as a setting elsewhere makes another key there


class Sealing:
    """`keys`: the first seals, all open; none: nothing is sealed."""

    def __init__(self, keys: Sequence[str] = ()):
        self._fernet = MultiFernet([_fernet(key) for key in keys]) if keys else None
        self._opened = lru_cache(maxsize=4096)(self._open)  # at each try; a secret that signs is in memory all the same

    def seal(self, secret: str) -> str:
        """A secret as it is kept."""
        return secret if self._fernet is None else SEALED + self._fernet.encrypt(secret.encode()).decode()

    def open(self, kept: str) -> str:
        """The secret. Raises BadSecret for one that no key here opens."""
        return self._opened(kept) if kept.startswith(SEALED) else kept

    def again(self, kept: str) -> str:
        """The same secret as it is kept now; one that no key here opens stays as it is."""
        try:
            return self.seal(self.open(kept))
        except BadSecret:
            return kept

    def _open(self, kept: str) -> str:
        try:
            if self._fernet is None:
                raise InvalidToken
            return self._fernet.decrypt(kept.removeprefix(SEALED)).decode()
        except InvalidToken:
            raise BadSecret(
                "its secret is sealed with a key that the setting webhook_secret_key does not have"
            ) from None


def _fernet(key: str) -> Fernet:
    derived = HKDF(SHA256(), 32, salt=None, info=_INFO).derive(key.encode())
    return Fernet(base64.urlsafe_b64encode(derived))
