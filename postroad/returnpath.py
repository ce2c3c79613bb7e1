"""Return paths: the envelope sender of each message names it (VERP), signed so that nobody can make up a bounce.

    b-<message id>-<tag>@<return path domain>            45 octets before the @ (RFC 5321 4.5.3.1.1 allows 64)

The tag is 80 bits of BLAKE2b, keyed with the installation's secret, over the message id. RFC 5321 lets nobody but the final
host change a local part, yet hosts that turn it into lower case exist, so both parts are base32hex in one case and are read in
either. There is no expiry in it: classify knows the messages of a week (tables/ended.py), what is older names none of them.
Whoever has the mail has its return path, and can bounce that one mail; what the tag takes away is every other mail.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Sequence
from hashlib import blake2b

TAG_BYTES = 10
SECRET_MIN = 16  # characters of a secret
_LOCAL = re.compile(r"b-([0-9a-v]{26})(?:-([0-9a-v]{16}))?")


class ReturnPathError(ValueError):
    """An address that is no return path of ours; says why."""


class ReturnPaths:
    """Signs and reads return paths. The first of `secrets` signs, all of them verify: so they rotate.

    `unsigned`: also believe return paths without a tag, those of mail that a release before the signature sent.
    """

    def __init__(self, secrets: Sequence[bytes], *, unsigned: bool = False) -> None:
        if not secrets:
            raise ValueError("a return path needs a secret to be signed with")
        self._keys = [blake2b(secret, digest_size=32, person=b"return-path").digest() for secret in secrets]
        self._unsigned = unsigned

    def sign(self, message_id: str, domain: str) -> str:
        """The return path of a message at `domain` (A-labels)."""
        return f"b-{message_id}-{_tag(self._keys[0], message_id)}@{domain}"

    def message_of(self, address: str) -> str:
        """The message id in a return path. Raises ReturnPathError where it is none, or is not signed by us."""
        found = _LOCAL.fullmatch(address.rpartition("@")[0].lower())
        if not found:
            raise ReturnPathError(f"{address[:100]!r} is no return path of ours (b-<message id>-<tag>@...)")
        message_id, tag = found[1], found[2]
        if tag is None:
            if self._unsigned:
                return message_id
            raise ReturnPathError(
                f"the return path {address[:100]!r} is not signed: it was cut, made up, or is of mail from before signatures "
                "(return_path_unsigned believes those)"
            )
        if not any(hmac.compare_digest(tag, _tag(key, message_id)) for key in self._keys):
            raise ReturnPathError(
                f"the tag of the return path {address[:100]!r} is not by a secret of ours: it was changed, made up, or its "
                "secret is missing in return_path_secret"
            )
        return message_id


def named(address: str) -> str:
    """The message id that a return path names, believed or not; empty where it is none. It chooses a lane, no more."""
    local = address.rpartition("@")[0].lower()
    return local[2:].partition("-")[0] if local.startswith("b-") else ""


def _tag(key: bytes, message_id: str) -> str:
    digest = blake2b(message_id.encode(), digest_size=TAG_BYTES, key=key).digest()
    return base64.b32hexencode(digest).decode("ascii").lower()
