"""What became of messages: ClickHouse's timeline, and for the last seconds Kafka itself (gateway/lookup.py)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec

from avro.records import Reschedule
from gateway.api import audit
from gateway.api.messages import Moment, ms
from gateway.api.problems import Problem, not_found, of_field
from gateway.api.routes import PAGE, PAGE_MAX, Answer, Call, Routes
from postroad import ids, keys
from postroad.checks import LIFETIME_MAX_MS, TIME_MAX
from postroad.events import ENDS, FEEDBACK
from postroad.intake import written
from topics.catalogue import CANCELLATIONS, DECISIONS, RESCHEDULES

YOUNG_MS = 60_000  # of a younger message Kafka is asked for all events,
SEND_AT = "send-at"  # as agents/score.py says why a message waits
BEHIND_MS = 10_000  # of an older one that has not ended for those of the last seconds
WINDOW = timedelta(days=7)
State = Literal["accepted", "processing", "scheduled", "deferred", "held", "delivered", "bounced", "dropped", "rejected", "expired",
                "cancelled"]  # fmt: skip
_STATES = {kind: "processing" for kind in ("validated", "scored", "released", "cleared", "routed")}
STEPS = (*(sorted(ENDS)), *_STATES, "accepted", "scheduled", "deferred", "held")

TIMELINE = """
SELECT toUInt64(toUInt32(ts)) * 1000 + ts_ms AS at, kind, stage, round, attempt, reason, rule, detail, site, mx_host, reply_code,
       enhanced_code, reply, toUInt32(due_at) AS due, possible_duplicate, bounce_class, evidence, recipient, submission_id, stream
FROM events
WHERE tenant = {tenant:String} AND message_id = {message:String} AND ts >= {since:DateTime}
ORDER BY at, k_partition, k_offset
"""
MESSAGES = """
SELECT message_id, any(submission_id) AS m_submission, any(recipient) AS m_recipient, any(stream) AS m_stream,
       min(toUInt64(toUInt32(accepted_at)) * 1000 + accepted_ms) AS m_accepted, max(toUInt64(toUInt32(ts)) * 1000 + ts_ms) AS m_at,
       argMax(kind, (toUInt64(toUInt32(ts)) * 1000 + ts_ms) * 10 + has({ends:Array(String)}, toString(kind))) AS m_kind, any(tags) AS m_tags
FROM events
WHERE tenant = {tenant:String} AND ts >= {since:DateTime} AND has({steps:Array(String)}, toString(kind))
  AND ({recipient:String} = '' OR lower(recipient) = {recipient:String}) AND ({tag:String} = '' OR has(tags, {tag:String}))
  AND ({before:String} = '' OR message_id < {before:String})
GROUP BY message_id
HAVING length({kinds:Array(String)}) = 0 OR has({kinds:Array(String)}, toString(m_kind))
ORDER BY message_id DESC
LIMIT {most:UInt32}
"""

routes = Routes()


class Step(msgspec.Struct, omit_defaults=True):
    """One step of a message. `not_before`: when it goes on; `rule`: what decided."""

    at: datetime
    kind: str
    stage: str
    reason: str = ""
    rule: str = ""
    detail: str = ""
    attempt: int = 0
    site: str = ""
    mx_host: str = ""
    reply: str = ""
    bounce_class: str = ""
    not_before: datetime | None = None
    possible_duplicate: bool = False


class Status(msgspec.Struct):
    """A message: its state, and every step with its reason and rule."""

    message_id: str
    submission_id: str
    recipient: str
    stream: str
    state: str
    ended: bool
    accepted_at: datetime
    timeline: list[Step]


class Listed(msgspec.Struct):
    """A message of a list."""

    message_id: str
    submission_id: str
    recipient: str
    stream: str
    state: str
    accepted_at: datetime
    changed_at: datetime
    tags: list[str]


class Messages(msgspec.Struct):
    """The newest first. `next`: the cursor of the next page, null at the end."""

    messages: list[Listed]
    next: str | None


class MessagesQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which messages. `since`: accepted or changed then or later, by default in the last seven days."""

    recipient: str = ""
    tag: str = ""
    state: State | None = None
    since: Moment | None = None
    cursor: Annotated[str, msgspec.Meta(max_length=64)] = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=PAGE_MAX)] = PAGE


class Change(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be different."""

    send_at: Moment


class Cancelling(msgspec.Struct):
    """What was asked for; the timeline shows when it is done."""

    message_id: str
    state: str


@routes.add("GET", "/v1/status/{message_id}", "read", answer=Status, problems=(404,))
async def status(call: Call) -> Answer:
    """State and timeline of a message: right at once after the 202, and at most seconds behind."""
    return Answer(await found(call, call.params["message_id"]))


@routes.add("GET", "/v1/messages", "read", query=MessagesQuery, answer=Messages)
async def messages(call: Call) -> Answer:
    """Messages by recipient, tag, state and time."""
    query: MessagesQuery = call.query
    kinds = [kind for kind in STEPS if query.state in (_STATES.get(kind), kind)] if query.state else []
    since = query.since or datetime.now(UTC) - WINDOW
    rows = await call.door.ask(
        MESSAGES, tenant=call.tenant, since=since, recipient=written(query.recipient).lower(), tag=query.tag, before=query.cursor,
        kinds=kinds, steps=list(STEPS), ends=sorted(ENDS), most=query.limit + 1,
    )  # fmt: skip
    listed = [
        Listed(row["message_id"], row["m_submission"], row["m_recipient"], str(row["m_stream"]), state_of(str(row["m_kind"])),
               moment(int(row["m_accepted"])), moment(int(row["m_at"])), list(row["m_tags"]))
        for row in rows[: query.limit]
    ]  # fmt: skip
    return Answer(Messages(listed, listed[-1].message_id if len(rows) > query.limit else None))


@routes.add("DELETE", "/v1/messages/{message_id}", "send", status=202, answer=Cancelling, problems=(404, 409))
async def cancel(call: Call) -> Answer:
    """Cancel a message that has not left: it ends as cancelled where it is next held, or waits."""
    known = await found(call, call.params["message_id"])
    _may_change(call, known)
    if known.ended:
        raise Problem(409, "ended", f"the message has ended already: {known.state}")
    decision: Any = {
        "message_id": known.message_id, "recipient": written(known.recipient), "action": "cancel", "by": f"key {call.key['key_id']}",
        "at": call.door.now(), "reason": "by REST",
    }  # fmt: skip
    await call.door.producer.send(CANCELLATIONS, decision)
    await call.door.producer.send(DECISIONS, decision)
    await audit.tell(call, "message-cancelled", known.message_id)
    return Answer(Cancelling(known.message_id, "cancelling"), 202)


@routes.add(
    "PATCH", "/v1/messages/{message_id}", "send", body=Change, status=202, answer=Cancelling, problems=(404, 409)
)
async def reschedule(call: Call) -> Answer:
    """Give a message that waits for its send_at another one. Where that is later, it is tried for as much longer."""
    known, send_at = await found(call, call.params["message_id"]), ms(call.body.send_at, "/send_at")
    _may_change(call, known)
    if not 0 <= send_at <= min(TIME_MAX, call.door.now() + LIFETIME_MAX_MS):
        raise of_field("/send_at", "must be within 30 days from now")
    waits = known.state == "accepted" or (known.state == "scheduled" and known.timeline[-1].reason == SEND_AT)
    if not waits and known.state != "processing":
        raise Problem(409, "not-waiting", f"the message does not wait for its send_at: {known.state}")
    wish: Reschedule = {
        "message_id": known.message_id, "tenant": call.tenant, "send_at": send_at, "by": f"key {call.key['key_id']}",
        "at": call.door.now(),
    }  # fmt: skip
    await call.door.producer.send(RESCHEDULES, wish)
    await audit.tell(call, "message-rescheduled", known.message_id)
    return Answer(Cancelling(known.message_id, "rescheduling"), 202)


async def found(call: Call, message_id: str) -> Status:
    """The caller's message. Raises Problem 404 where there is none: also where it is another tenant's."""
    door, tenant = call.door, call.tenant
    try:
        at = ids.accepted_at(message_id)
    except ValueError:
        raise not_found("message") from None
    now, rows = door.now(), list[dict[str, Any]]()
    submission = None
    if at > now + YOUNG_MS:
        raise not_found("message")
    try:
        rows = await door.ask(TIMELINE, tenant=tenant, message=message_id, since=moment(max(0, at - YOUNG_MS)))
    except Problem:  # Kafka knows as much, of what is not too old
        rows = []
    if not rows:
        submission = await door.lookup.submission(tenant, message_id)
        if submission is None:
            raise not_found("message")
    if not any(str(row["kind"]) in ENDS for row in rows):
        since = at if submission is not None or now - at < YOUNG_MS else now - BEHIND_MS
        rows += [_row(event) for event in await door.lookup.events(message_id, since) if event["tenant"] == tenant]
    steps: dict[Any, dict[str, Any]] = {}
    for row in rows:
        steps.setdefault((str(row["kind"]), row["round"], row["attempt"], row["reason"], row["evidence"]), row)
    ordered = sorted(steps.values(), key=lambda row: int(row["at"]))
    if submission is not None:
        told = {"submission_id": submission[0]["submission_id"], "stream": submission[0].get("stream", "transactional"), "recipient": submission[1]}  # fmt: skip
    else:
        told = rows[0]
    kinds = [str(row["kind"]) for row in ordered if str(row["kind"]) not in FEEDBACK]
    last = next((kind for kind in kinds if kind in ENDS), kinds[-1] if kinds else "accepted")
    timeline = [_step(row) for row in ordered] or [Step(moment(at), "accepted", audit.STAGE)]
    return Status(message_id, told["submission_id"], told["recipient"], str(told["stream"]), state_of(last), last in ENDS, moment(at), timeline)  # fmt: skip


def _may_change(call: Call, known: Status) -> None:
    """A key that may send to some streams changes messages of these alone."""
    if not keys.may(call.key, "send", known.stream):
        raise Problem(403, "forbidden", f"this key may not change messages of the stream {known.stream}")


def state_of(kind: str) -> str:
    """The state of a message whose last step is `kind`."""
    return _STATES.get(kind, kind)


def moment(ms: int) -> datetime:
    """A time in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC)


def _row(event: Any) -> dict[str, Any]:
    """An event as ClickHouse would have it."""
    names = ("kind", "stage", "reason", "rule", "detail", "site", "mx_host", "enhanced_code", "reply", "bounce_class", "evidence",
             "recipient", "submission_id", "stream")  # fmt: skip
    numbers = {name: event.get(name, 0) for name in ("at", "round", "attempt", "reply_code", "possible_duplicate")}
    return {name: event.get(name, "") for name in names} | numbers | {"due": (event.get("due_at") or 0) // 1000}


def _step(row: dict[str, Any]) -> Step:
    reply = " ".join(str(row[part]) for part in ("reply_code", "enhanced_code", "reply") if row[part])
    due = int(row["due"])
    return Step(
        moment(int(row["at"])), str(row["kind"]), row["stage"], row["reason"], row["rule"], row["detail"], int(row["attempt"]), row["site"],
        row["mx_host"], reply, str(row["bounce_class"]), moment(due * 1000) if due else None, bool(row["possible_duplicate"]),
    )  # fmt: skip
