"""Ingest: a submission becomes one message per recipient, built once, within the tenant's quota, and no repeat of another.

mail.submissions, mail.broadcasts (key: tenant) -> mail.accepted (key: recipient), mail.events, mail.scheduled, mail.endings;
mail.cancellations and mail.decisions where it replaces an older one

Broadcasts wait in their topic while the road behind is long, so that a blast stands in nobody's way (topics/road.py). That is the
only difference: either topic takes submissions of either stream, with the same quotas and the same memory of repeats.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

from agents.application import application
from agents.mail import mail
from agents.outputs import park, rejected
from agents.repeats import known, remember
from agents.services import Services
from avro.records import Message, Submission
from postroad import intake
from postroad.checks import Problem, check_limits
from postroad.content import ContentUnavailable
from postroad.events import event
from tables.dedupe import DEDUPE
from tables.tenant_quota import TENANT_QUOTA
from topics.catalogue import (
    ACCEPTED,
    BROADCASTS,
    CANCELLATIONS,
    CLEARED,
    DECISIONS,
    ENDINGS,
    EVENTS,
    OUTBOUND_BROADCAST,
    SCHEDULED,
    SCORED,
    SUBMISSIONS,
    VALIDATED,
    Output,
    origin,
    place_of,
)
from topics.road import Road
from topics.stage import Hold, Stage
from topics.state import View

NAME = "ingest"
AT_ONCE = 20  # submissions built side by side: all their attachments are in memory

#: For the services of a process, by partition: what the last batch has built while it is not finished.
_built: WeakKeyDictionary[Services, dict[int, dict[tuple[str, int], list[intake.Built]]]] = WeakKeyDictionary()

road = Road(BROADCASTS, [(ACCEPTED, "validate"), (VALIDATED, "score"), (SCORED, "suppress"), (CLEARED, "route"),
                         (OUTBOUND_BROADCAST, "send")])  # fmt: skip
stage = Stage(NAME, reads=[SUBMISSIONS, BROADCASTS], writes=[ACCEPTED, EVENTS, ENDINGS, SCHEDULED, CANCELLATIONS, DECISIONS],
              tables=[DEDUPE, TENANT_QUOTA], prepare_s=60.0, road=road)  # fmt: skip
__getattr__ = application(stage)


@stage.prepare(BROADCASTS)
@stage.prepare(SUBMISSIONS)
async def build_contents(todo: list[tuple[Any, Submission]], state: View) -> None:
    """Build every submission's MIME and store what is large, before a record refers to it.

    What is built stays built when the batch is held or runs into its bound: the next try goes on from there.
    """
    expires_ms = round(state.services.settings.expires_hours * 3_600_000)
    services, built = state.services, _built.setdefault(state.services, {})
    return_paths = services.settings.return_paths()
    before = built.get(state.partition, {})
    begun = built[state.partition] = {key: before.get(key, []) for record, _ in todo for key in [_known_by(record)]}

    async def one(record: Any, submission: Submission) -> ContentUnavailable | None:
        try:
            if problem := check_limits(submission):
                submission = intake.told_once(submission)
            tenant, first = services.tenants.get(submission["tenant"]), origin(record.headers, *_known_by(record))
            messages = intake.messages(submission, tenant, first.at, first.place, expires_ms, return_paths)
            if record.topic.endswith(BROADCASTS.name):
                road.weigh(len(messages))
            size_max = services.settings.size_max
            found = submission if problem else await intake.whole(submission, services.contents, size_max)
            problem = found if isinstance(found, Problem) else problem
            submission = submission if isinstance(found, Problem) else found
            if problem := problem or intake.refusal(submission, tenant, record.key, record.timestamp):
                builts = [intake.Built(problem=problem)] * len(messages)
            else:
                builts = begun[_known_by(record)]
                await intake.build(submission, messages, services.contents, size_max, builts,
                                   return_paths, services.settings.feedback_id)  # fmt: skip
            state.found[record.offset] = ([], []) if first.known else (messages, builts)
        except ContentUnavailable as exc:
            return exc
        except Exception as exc:  # `accept` raises it: a dead letter, not a batch that is held for ever
            state.found[record.offset] = exc
        return None

    for i in range(0, len(todo), AT_ONCE):
        if exc := next(filter(None, await asyncio.gather(*(one(*pair) for pair in todo[i : i + AT_ONCE]))), None):
            raise Hold(f"the content store is away: {exc}") from exc
    del built[state.partition]


def _known_by(record: Any) -> tuple[str, int]:
    """The place and the time of a submission: no other has both."""
    return place_of(record.topic, record.partition, record.offset), record.timestamp


@stage.on(BROADCASTS)
@stage.on(SUBMISSIONS)
def accept(submission: Submission, state: View) -> Iterator[Output]:
    """Accepted, and on or to an end."""
    if not submission["recipients"]:
        raise ValueError("a submission without recipients has no message that could tell of it")
    if state.record.offset not in state.found:
        raise Hold("the contents of a batch were not built in time")
    if isinstance(found := state.found[state.record.offset], Exception):
        raise found
    (messages, builts), repeat, again = found, None, origin(state.record.headers, "", 0).again
    if any(not built.problem for built in builts):  # else, mended, it may come again under the same id
        repeat = known(submission, state)
        if not repeat:
            yield from remember(submission, messages, state, NAME)
    for message, built in zip(messages, builts, strict=True):
        message["content"], message["top"], message["possible_duplicate"] = built.content, built.top, again
        mail.accepted(message)
        yield EVENTS.send(event(message, "accepted", state.record.timestamp, NAME))
        if problem := repeat or built.problem:
            yield rejected(message, NAME, state.now, problem)
        else:
            yield from _admitted(message, state)


def _admitted(message: Message, state: View) -> Iterator[Output]:
    """On, at once or when the tenant's quota has a place: by the time at which Kafka took the submission, so that what was
    used follows from the log alone, and a worker whose clock is wrong leaves nothing behind."""
    tenant, now, accepted_at = state.services.tenants[message["tenant"]], state.now, message["accepted_at"]
    due, use = intake.take_place(state.tenant_quota.get(message["tenant"]), accepted_at, tenant)
    if due - accepted_at > tenant.get("quota_waiting_max_s", 86_400) * 1000:
        problem = Problem("quota", "quota_waiting_max_s", "the tenant's quota is used up for longer than mail may wait")
        yield rejected(message, NAME, now, problem)
        return
    state.tenant_quota.put(message["tenant"], use)
    if due > now:
        yield from park(message, NAME, now, due, "quota", "accepted")
    else:
        yield ACCEPTED.send(message)
