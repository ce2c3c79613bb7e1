"""What discarding a dead letter writes into the ledger, so that accepted = ended + in flight holds without it.

| the record | written besides the resolution |
|---|---|
| a message on its way, one that waits, an attempt, an end | its end: dropped, dead-letter. classify writes it if the message has none |
| a submission | accepted and that end for each of its messages, under the ids that ingest would have given them |
| a step of a message | nothing: the message goes on, its timeline lacks the step. Accepted and ends are not discarded: replay |
| anything else, and what does not decode | nothing: it names no message that could end |

Kafka has acknowledged a submission, so its recipients count as accepted also where ingest has failed at it. ingest writes nothing
of a submission that it fails at; where it did all the same (it was done again around a crash, with another outcome), ids and events
are the same as ours, and the message has the end that comes first.

Nothing ends by an attempt that only a watcher of the ledger failed at: classify has judged it, or will; if it fails at it too, that
opens the letter again (topics/letters.py).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from avro.records import Attempt, DeadLetter, Event, Message, Submission
from postroad import ids, intake
from postroad.checks import check_limits
from postroad.events import ENDS, ending, event
from topics.catalogue import (
    ACCEPTED,
    ATTEMPTS,
    BROADCASTS,
    CLEARED,
    ENDINGS,
    EVENTS,
    OUTBOUND,
    OUTBOUND_BROADCAST,
    SCHEDULED,
    SCORED,
    SUBMISSIONS,
    VALIDATED,
    Output,
    Topic,
    origin,
    place_of,
)
from topics.letters import LetterError
from topics.runner import PERFORMED

REASON = "dead-letter"
MESSAGES = (ACCEPTED, VALIDATED, SCORED, CLEARED, OUTBOUND, OUTBOUND_BROADCAST)
AROUND = (ATTEMPTS, SCHEDULED, ENDINGS)  # their records hold a message
WATCHERS = frozenset({"audit"})  # stages that no message passes


@dataclass(frozen=True)
class Discard:
    """`by`: who; `why`: in words; `at`: ms; `expires_ms`: how long ingest lets a message be tried."""

    by: str
    why: str
    at: int
    expires_ms: int

    def writes(
        self, topic: Topic[Any], value: Any, letter: DeadLetter, stages: Collection[str]
    ) -> tuple[list[Output], str]:
        """The outputs, in order, and what they mean in words, for the record `value` of `topic` that `stages` failed at. Raises
        LetterError where the ledger would have a hole."""
        passed = [stage for stage in stages if stage not in WATCHERS]
        letter = {
            **letter,
            "stage": passed[-1] if passed else letter["stage"],
        }  # whose end it is, of two that read a topic
        if topic in (SUBMISSIONS, BROADCASTS):
            return self._submission(topic, value, letter)
        if topic is EVENTS:
            return [], _step(value, stages)
        if topic in MESSAGES:
            tried = any(header["name"] == PERFORMED[0] for header in letter["headers"])
            return self._message(value, letter, tried)
        if topic is ATTEMPTS and WATCHERS.issuperset(stages):
            return [], (
                f"nothing ends: only {', '.join(stages)} failed at this attempt of message {value['message']['message_id']}. If classify "
                "fails at it too, the letter is open again"
            )
        if topic in AROUND:
            return self._message(value["message"], letter, topic is ATTEMPTS and _taken(value))
        return [], f"no message ends by this: what it said is not done ({topic.name})"

    def _message(self, message: Message, letter: DeadLetter, tried: bool) -> tuple[list[Output], str]:
        if not _is_ours(message["message_id"]):
            return [], f"no end: {message['message_id']!r} is no message id, so nothing of that name was ever accepted"
        told = (
            f"message {message['message_id']} to {message['recipient']} ends as dropped, {REASON}, if it has no end yet"
        )
        if tried:
            message["possible_duplicate"] = True
            told += "; an MX may have taken it all the same (the end is flagged possible_duplicate)"
        return [self._end(message, letter)], told

    def _submission(self, topic: Topic[Any], submission: Submission, letter: DeadLetter) -> tuple[list[Output], str]:
        if check_limits(submission):
            submission = intake.told_once(submission)  # as ingest
        place = place_of(topic.name, letter["partition"], letter["offset"])
        headers = [(header["name"], header["value"]) for header in letter["headers"]]
        try:
            known = origin(headers, place, letter["timestamp"])
            messages = intake.messages(submission, None, known.at, known.place, self.expires_ms)
        except ValueError as error:
            raise LetterError(f"the ids of its messages cannot be computed: {error}") from error
        outputs = []
        for message in messages:
            outputs.append(EVENTS.send(event(message, "accepted", letter["timestamp"], "ingest")))
            outputs.append(self._end(message, letter))
        if not messages:
            return [], "no end: the submission has no recipients"
        first = f"{messages[0]['message_id']} to {messages[0]['recipient']}"
        return outputs, (
            f"submission {submission['submission_id']} of {submission['tenant']}: {len(messages)} accepted and dropped, "
            f"{REASON}; the first is {first}"
        )

    def _end(self, message: Message, letter: DeadLetter) -> Output:
        return ENDINGS.send(ending(message, "dropped", self.at, letter["stage"], REASON, self.by, self.why))


def _step(step: Event, stages: Collection[str]) -> str:
    kind, message_id = step["kind"], step["message_id"]
    if not _is_ours(message_id):
        return f"no end: {message_id!r} is no message id, so nothing of that name was ever accepted"
    if kind == "accepted" or kind in ENDS:
        raise LetterError(
            f"this is the event {kind} of message {message_id}: without it the ledger has a hole. Replay it once its stage "
            "can process it (if it names a message that never was, discard it with --no-end)"
        )
    if WATCHERS.issuperset(stages):
        return f"nothing ends: message {message_id} goes on, {', '.join(stages)} has not followed the step {kind}"
    return f"nothing ends: message {message_id} goes on, its timeline lacks the step {kind}"


def _taken(attempt: Attempt) -> bool:
    """Whether the receiver has, or may have, the mail of an attempt."""
    return attempt["phase"] in ("body", "done") and (attempt["reply_code"] == 0 or 200 <= attempt["reply_code"] < 300)


def _is_ours(message_id: str) -> bool:
    try:
        ids.accepted_at(message_id)
    except ValueError:
        return False
    return True
