"""Return paths: the envelope sender of each message names it (VERP), signed so that nobody can make up a bounce. And the other
two places of a mail that name its message, for reports that do not come to the return path.

    b-<message id>-<tag>@<return path domain>        the envelope sender; 45 octets before the @ (RFC 5321 4.5.3.1.1 allows 64)
    X-Postroad-Id: b-<message id>-<tag>              the mark: a header of its own, which those who redact addresses leave alone
    Message-ID: <<message id>.<another tag>@...>     in archives and replies for all to see, so its tag makes no return path

The tag is 80 bits of BLAKE2b, keyed with the installation's secret, over the message id. RFC 5321 lets nobody but the final
host change a local part, yet hosts that turn it into lower case exist, so all parts are base32hex in one case and are read in
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
MARK = "X-Postroad-Id"
_LOCAL = re.compile(r"b-([0-9a-v]{26})(?:-([0-9a-v]{16}))?")
_HEADER_ID = re.compile(r"<?([0-9a-v]{26})\.([0-9a-v]{16})@[^@<>\s]*>?")


class ReturnPathError(ValueError):
    """An address, mark or Message-ID that is none of ours; says why."""


class Forged(ReturnPathError):
    """One that looks like ours, and no secret of ours has signed it."""


class ReturnPaths:
    """Signs and reads return paths. The first of `secrets` signs, all of them verify: so they rotate.

    `unsigned`: also believe return paths without a tag, those of mail that a release before the signature sent.
    """

    def __init__(self, secrets: Sequence[bytes], *, unsigned: bool = False) -> None:
        if not secrets:
            raise ValueError("a return path needs a secret to be signed with")
        self._keys = [blake2b(secret, digest_size=32, person=b"return-path").digest() for secret in secrets]
        self._header_keys = [blake2b(secret, digest_size=32, person=b"message-id").digest() for secret in secrets]
        self._unsigned = unsigned

    def sign(self, message_id: str, domain: str) -> str:
        """The return path of a message at `domain` (A-labels)."""
        return f"b-{message_id}-{_tag(self._keys[0], message_id)}@{domain}"

    def header_id(self, message_id: str) -> str:
        """What stands before the @ of a message's Message-ID header."""
        return f"{message_id}.{_tag(self._header_keys[0], message_id)}"

    def message_of(self, address: str) -> str:
        """The message id in a return path. Raises ReturnPathError where it is none, Forged where it is not signed by us."""
        local, at, _ = address.strip().strip("<>").rpartition("@")
        if not at or not _LOCAL.fullmatch(local.lower()):
            raise ReturnPathError(f"{address[:100]!r} is no return path of ours (b-<message id>-<tag>@...)")
        return self.message_of_mark(local)

    def message_of_mark(self, text: str) -> str:
        """The message id in the value of the header MARK. Raises as `message_of`."""
        found = _LOCAL.fullmatch(text.strip().lower())
        if not found:
            raise ReturnPathError(f"{text[:100]!r} is no mark of ours (b-<message id>-<tag>)")
        message_id, tag = found[1], found[2]
        if tag is None and self._unsigned:
            return message_id
        if tag is None:
            raise Forged(
                f"the return path {text[:100]!r} is not signed: it was cut, made up, or is of mail from before signatures "
                "(return_path_unsigned believes those)"
            )
        return _believed(self._keys, message_id, tag, f"the return path {text[:100]!r}")

    def message_of_message_id(self, text: str) -> str:
        """The message id in the value of a Message-ID header. Raises as `message_of`."""
        found = _HEADER_ID.fullmatch(text.strip().lower())
        if not found:
            raise ReturnPathError(f"{text[:100]!r} is no Message-ID of ours (<<message id>.<tag>@...>)")
        return _believed(self._header_keys, found[1], found[2], f"the Message-ID {text[:100]!r}")


def named(address: str) -> str:
    """The message id that a return path names, believed or not; empty where it is none. It chooses a lane, no more."""
    local = address.rpartition("@")[0].lower()
    return local[2:].partition("-")[0] if local.startswith("b-") else ""


def _believed(keys: Sequence[bytes], message_id: str, tag: str, what: str) -> str:
    if not any(hmac.compare_digest(tag, _tag(key, message_id)) for key in keys):
        raise Forged(
            f"the tag of {what} is not by a secret of ours: it was changed, made up, or its secret is missing in return_path_secret"
        )
    return message_id


def _tag(key: bytes, message_id: str) -> str:
    digest = blake2b(message_id.encode(), digest_size=TAG_BYTES, key=key).digest()
    return base64.b32hexencode(digest).decode("ascii").lower()
