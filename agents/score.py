"""Score: hold or reject what looks like spam or phishing; park what is to be sent later.

mail.validated (key: recipient) -> mail.scored (key: recipient), mail.events, mail.scheduled, mail.endings
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agents.application import application
from agents.outputs import park
from avro.records import Message, Score
from postroad import scoring
from postroad.content import ContentError, each
from postroad.events import ending, event
from postroad.retry import put_off
from postroad.tenants import HOLD_SCORE, REJECT_SCORE
from tables.content_scores import CONTENT_SCORES, KEPT_MS
from topics.catalogue import ENDINGS, EVENTS, SCHEDULED, SCORED, VALIDATED, Output
from topics.stage import Stage
from topics.state import View

NAME = "score"

stage = Stage(NAME, reads=[VALIDATED], writes=[SCORED, EVENTS, ENDINGS, SCHEDULED], tables=[CONTENT_SCORES])
__getattr__ = application(stage)


@stage.prepare(VALIDATED)
async def read_contents(todo: list[tuple[Any, Message]], state: View) -> None:
    """Each distinct content that was not scored yet: `found[hash]`."""

    async def content(message: Message) -> None:
        try:
            state.found[message["content"]["hash"]] = await state.services.contents.get(message["content"])
        except ContentError:
            pass  # put off below; one that is gone for good expires there

    unknown = {m["content"]["hash"]: m for _, m in todo if not state.content_scores.get(m["content"]["hash"])}
    await each(unknown.values(), content)


@stage.on(VALIDATED)
def judge(message: Message, state: View) -> Iterator[Output]:
    """On, held for an operator, or rejected, by the tenant's thresholds."""
    now = state.now
    score = _score(message, state)
    if score is None:
        due = put_off(now, message["round"], message["expires_at"])
        yield from park(message, NAME, now, due, "content", "validated")
        return
    message["score"] = score
    rules, detail = ",".join(score["rules"]), f"content score {score['value']:g}"
    tenant = state.services.tenants.get(message["tenant"], {})
    verdict = scoring.verdict(score["value"], tenant.get("hold_score", HOLD_SCORE),
                              tenant.get("reject_score", REJECT_SCORE), message.get("released", False))  # fmt: skip
    if verdict == "reject":
        yield ENDINGS.send(ending(message, "rejected", now, NAME, "content", rules, detail))
        return
    yield EVENTS.send(event(message, "scored", now, NAME, rule=rules, detail=detail))
    if verdict == "hold":
        until = message["expires_at"]
        yield EVENTS.send(event(message, "held", now, NAME, reason="content", rule=rules, detail=detail, due_at=until))
        yield SCHEDULED.send({"message": message, "at": now, "due_at": None, "reason": "held", "return_to": "scored"})
    elif (send_at := message.get("send_at")) and send_at > now:
        yield from park(message, NAME, now, send_at, "send-at")
    else:
        yield SCORED.send(message)


def _score(message: Message, state: View) -> Score | None:
    """The score of the message's content: equal content is scored once. None: it cannot be read now."""
    digest = message["content"]["hash"]
    known: Score | None = state.content_scores.get(digest)
    if known is None and (content := state.found.get(digest)) is not None:
        known = scoring.score(content)
        state.content_scores.put(digest, known, state.now + KEPT_MS)
    return known
