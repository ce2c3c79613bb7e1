"""The simulator: what mail of a test key meets in place of an MX. It has walked the whole road; from here nothing leaves.

| local part (what follows a + does not count) | what happens |
|---|---|
| bounce | 550 5.1.1: a hard bounce |
| full | 552 5.2.2: a soft bounce |
| block | 554 5.7.1: refused as spam |
| delay | 451 4.2.0 at the first try, then delivered |
| complaint | delivered, then a complaint |
| anything else | delivered |

Nothing of it is counted: no reputation, no suppression, no rate of a site.
"""

from __future__ import annotations

from collections.abc import Iterator

from avro.records import Event, Message
from postroad.events import event
from postroad.reply import Reply, Result

NAME = "simulator"
_REPLIES = {
    "bounce": Reply(550, "5.1.1", "simulator: no such user"),
    "full": Reply(552, "5.2.2", "simulator: mailbox full"),
    "block": Reply(554, "5.7.1", "simulator: message rejected as spam"),
    "delay": Reply(451, "4.2.0", "simulator: try again later"),
}
_TAKEN = Reply(250, "2.0.0", "simulator: delivered to nobody")


def attempt(message: Message) -> Result:
    """What an attempt to deliver a message comes to."""
    reply = _REPLIES.get(_what(message), _TAKEN)
    if reply.temporary and message.get("attempt", 0):
        reply = _TAKEN
    return Result("done" if reply.positive else "rcpt", "replied", reply)


def feedback(message: Message, result: Result, at: int, stage: str) -> Iterator[Event]:
    """What comes back of a message that was delivered here."""
    if message.get("test") and result.delivered and _what(message) == "complaint":
        yield event(message, "complained", at, stage, reason="abuse", rule=NAME, evidence=NAME)


def _what(message: Message) -> str:
    return message["recipient"].rpartition("@")[0].partition("+")[0].lower()
