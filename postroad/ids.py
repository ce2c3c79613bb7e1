"""Deterministic ids: the same step of the same mail has the same id however often it is done again."""

import base64
import re
from hashlib import blake2b

_MESSAGE_ID = re.compile(r"[0-9a-v]{25}[048cgkos]")  # 128 bits in 26 characters: the last two bits are zero


def message_id(accepted_at: int, tenant: str, submission_id: str, place: str, recipient: str) -> str:
    """26 characters of base32hex (RFC 4648) in lower case that sort by time: 48 bits of `accepted_at`, 80 bits of hash.

    `accepted_at`: ms since 1970; ValueError when it does not fit. `place`: "partition:offset" of the submission.
    """
    if not 0 <= accepted_at < 1 << 48:
        raise ValueError(f"accepted_at {accepted_at} is not a time in ms since 1970")
    # lengths in front keep ("a", "bc") and ("ab", "c") apart, whatever a producer puts into its ids
    named = "".join(f"{len(part)}:{part}" for part in (tenant, submission_id, place, recipient))
    digest = blake2b(named.encode("utf-8", "surrogatepass"), digest_size=10).digest()
    return base64.b32hexencode(accepted_at.to_bytes(6, "big") + digest)[:26].decode("ascii").lower()


def accepted_at(message_id: str) -> int:
    """The time inside a message id, in ms since 1970. ValueError when it is no message id."""
    if not _MESSAGE_ID.fullmatch(message_id):
        raise ValueError(f"{message_id[:40]!r} is not a message id (26 characters of base32hex, lower case)")
    return int(message_id[:10], 32) >> 2


def header_id(message_id: str) -> str:
    """What stands before the @ of a Message-ID header. Everyone whom the mail reaches reads it, and the message id is also in
    the return path, where bounces are believed: so it does not lead back there."""
    return blake2b(message_id.encode(), digest_size=16, person=b"Message-ID").hexdigest()
