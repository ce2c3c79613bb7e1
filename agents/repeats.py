"""Repeats: a submission whose id, or whose dedupe id, the tenant's window has seen, whichever topic it came in."""

from __future__ import annotations

from collections.abc import Iterator

from avro.records import Decision, Message, Submission
from postroad.checks import Problem
from tables import dedupe
from tables.dedupe import Known
from topics.catalogue import CANCELLATIONS, DECISIONS, Output
from topics.state import View


def known(submission: Submission, state: View) -> Problem | None:
    """Whether this is a repeat, and of what."""
    tenant, dedupe_id = submission["tenant"], submission.get("dedupe_id")
    if state.dedupe.get(dedupe.by_submission(tenant, submission["submission_id"])):
        return Problem("duplicate", "submission_id", "a submission of this id was accepted before")
    if dedupe_id is None or submission.get("dedupe_policy") == "replace":
        return None
    older = state.dedupe.get(dedupe.by_dedupe_id(tenant, dedupe_id))
    return (
        Problem("duplicate", "dedupe_id", f"submission {older['submission_id']} had this dedupe id") if older else None
    )


def remember(submission: Submission, messages: list[Message], state: View, by: str) -> Iterator[Output]:
    """Keep its ids for the tenant's window; cancel what it replaces, as far as that has not left."""
    tenant, submission_id = submission["tenant"], submission["submission_id"]
    until = state.now + state.services.tenants[tenant].get("dedupe_window_s", 86_400) * 1000
    state.dedupe.put(
        dedupe.by_submission(tenant, submission_id), {"submission_id": submission_id, "messages": []}, until
    )
    if (dedupe_id := submission.get("dedupe_id")) is None:
        return
    key = dedupe.by_dedupe_id(tenant, dedupe_id)
    older: Known | None = state.dedupe.get(key)
    for message_id, recipient in older["messages"] if older else ():
        decision: Decision = {"message_id": message_id, "recipient": recipient, "action": "cancel", "by": by,
                              "at": state.now, "reason": f"replaced by submission {submission_id}"}  # fmt: skip
        yield CANCELLATIONS.send(decision)
        yield DECISIONS.send(decision)
    ids = [(message["message_id"], message["recipient"]) for message in messages]
    state.dedupe.put(key, {"submission_id": submission_id, "messages": ids}, until)
