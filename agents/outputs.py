"""What several stages write in the same way: a message that has to wait, and one that is rejected."""

from __future__ import annotations

from collections.abc import Iterator

from avro.records import Message, ReturnTo
from postroad.checks import Problem
from postroad.events import ending, event
from topics.catalogue import ENDINGS, EVENTS, SCHEDULED, Output

TENANT = "tenant"  # header of mail.outbound: who takes turns there, known without unpacking the message


def park(
    message: Message, stage: str, now: int, due: int, reason: str, return_to: ReturnTo = "scored"
) -> Iterator[Output]:
    """The message waits in schedule until `due` (ms), and the event says so."""
    yield EVENTS.send(event(message, "scheduled", now, stage, reason=reason, due_at=due))
    yield SCHEDULED.send({"message": message, "at": now, "due_at": due, "reason": reason, "return_to": return_to})


def rejected(message: Message, stage: str, now: int, problem: Problem) -> Output:
    """The message is not fit to be sent: its end."""
    return ENDINGS.send(ending(message, "rejected", now, stage, problem.reason, problem.rule, problem.text))
