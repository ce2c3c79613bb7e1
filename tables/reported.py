"""classify: reports that were acted on, and those that came before their message had its end.

`reported`: message id NUL evidence -> the record that it was acted on by, "topic@offset", so that the same evidence changes nothing twice;
message id NUL kind of event -> the same, so that a message counts once however many reports tell of it. Kept as long as `ended`.
`early`: time in ms (8 bytes, big-endian), message id NUL evidence -> the Report, to be read again at that time: a host may send its DSN
before the worker of its lane has read what the host had answered.
"""

from __future__ import annotations

from avro.records import Report
from tables.ended import KEPT_MS as ENDED_KEPT_MS
from topics.codec import Codec
from topics.state import Table

KEPT_MS = ENDED_KEPT_MS


async def _by_the_runner() -> None:
    """As in tables/due.py."""


_codec = Codec("Report", look=_by_the_runner)
REPORTED: Table[str] = Table(5, "reported", str.encode, bytes.decode, expires=True, cached=False)
EARLY: Table[Report] = Table(6, "early", _codec.encode, _codec.decode, cached=False)


def key(message_id: str, what: str) -> str:
    """Key in `reported`. `what`: evidence, or a kind of event."""
    return f"{message_id}\0{what}"


def early_key(at: int, message_id: str, evidence: str) -> bytes:
    """Key in `early`: sorts by time."""
    return at.to_bytes(8, "big") + key(message_id, evidence).encode()


def early_at(key: bytes) -> int:
    """The time inside a key of `early`."""
    return int.from_bytes(key[:8], "big")
