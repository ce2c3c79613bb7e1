"""What becomes of a message that is to be sent: an attempt was made, or none, and why."""

from typing import NamedTuple

from avro.records import Message
from postroad.reply import Reply, Result

BUSY_MS = 3_000  # all connections of the site are in use; twice as long each round, as far as 16 times


class Sent(NamedTuple):
    """An attempt was made."""

    result: Result
    possible_duplicate: bool  # an earlier life of the worker may have sent it


class Parked(NamedTuple):
    """Nothing was tried: not before `until` (ms)."""

    until: int
    reason: str
    possible_duplicate: bool


class Expired(NamedTuple):
    """Nothing was tried: its time is over."""

    possible_duplicate: bool


def local(reply: Reply) -> Result:
    """Our own word about the message, in the phase where the SMTP client has its own: a 5xx ends the message."""
    return Result("mail", "local", reply)


def busy(message: Message, now: int, possible_duplicate: bool) -> Parked:
    """No connection of the site is free: back later, and not all at the same time."""
    pause = BUSY_MS << min(message["round"], 4)
    return Parked(now + pause + int(message["message_id"][-4:], 32) % pause, "connection-limit", possible_duplicate)
