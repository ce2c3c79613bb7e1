"""/v1/send/batch and /v1/jobs: files of mails of any size. The answer comes when the file is stored; gateway/jobs.py does the rest."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import IO, Annotated, Any

import msgspec

from avro.records import Job, Submission, Tenant
from gateway.api import audit, bodies, multipart
from gateway.api.messages import Message, Recipient, submission_of
from gateway.api.problems import Problem, not_found, of_field
from gateway.api.routes import PAGE, PAGE_MAX, Answer, Call, Routes
from gateway.api.status import moment, state_of
from gateway.batch import Make, Refusal
from gateway.jobs import Jobs, State
from postroad import keys
from postroad.events import ENDS

CSV, NDJSON = "text/csv", "application/x-ndjson"
FILE = "recipients"
FILE_MAX = 1 << 40  # bytes: what a disk takes
MESSAGE_MAX = 512 << 10  # bytes of what all mails have in common: it travels in a record
ADDRESSES = ("to", "email", "address", "recipient")  # columns that name the recipient, the first that is there
ENDED = """
SELECT m_kind, count() AS n FROM (
    SELECT message_id, argMax(kind, (toUInt64(toUInt32(ts)) * 1000 + ts_ms) * 10 + has({ends:Array(String)}, toString(kind))) AS m_kind
    FROM events
    WHERE tenant = {tenant:String} AND ts >= {since:DateTime} AND substring(submission_id, 1, {length:UInt32}) = {prefix:String}
      AND NOT has(['reported', 'complained', 'late_bounce'], toString(kind))
    GROUP BY message_id
)
GROUP BY m_kind
"""

routes = Routes()


class BatchForm(msgspec.Struct):
    """What all mails have in common, and a file: CSV, whose first line names the variables (one column is `to` or `email`), or
    NDJSON, whose lines say what is different."""

    message: Message
    recipients: Annotated[str, msgspec.Meta(extra_json_schema={"format": "binary"})]


class Created(msgspec.Struct):
    """Where to ask."""

    job_id: str
    state: str


class JobAnswer(msgspec.Struct):
    """A job: waiting, running, done, cancelled or failed. `read`, `refused`: lines; `accepted`: recipients; `messages`: by state."""

    job_id: str
    state: str
    cancelling: bool
    created_at: datetime
    ended_at: datetime | None
    read: int
    accepted: int
    refused: int
    error: str
    messages: dict[str, int] | None


class JobList(msgspec.Struct):
    """The newest first. `next`: the cursor of the next page, null at the end."""

    jobs: list[JobAnswer]
    next: str | None


class JobsQuery(msgspec.Struct, forbid_unknown_fields=True):
    """From where on, and how many."""

    cursor: Annotated[str, msgspec.Meta(max_length=64)] = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=PAGE_MAX)] = PAGE


@routes.add(
    "POST", "/v1/send/batch", "send", status=202, answer=Created, media={NDJSON: None, "multipart/form-data": BatchForm}, problems=(413,),
)  # fmt: skip
async def send_batch(call: Call) -> Answer:
    """Send a file of mails, of any size: NDJSON with a mail a line, or multipart with a message and a file of recipients."""
    door = call.door
    async with _uploaded(call) as (message, format, file, digest):
        reference = await door.contents.put_file(file, digest)
    job: Job = {
        "job_id": f"job_{secrets.token_hex(13)}", "tenant": call.tenant, "step": "created", "by": f"key {call.key['key_id']}",
        "input": reference, "format": format, "message": message, "test": call.key.get("test_mode", False),
        "streams": call.key.get("streams", []),
    }  # fmt: skip
    await jobs_of(call).say(job)
    return Answer(Created(job["job_id"], "waiting"), 202)


@routes.add("GET", "/v1/jobs", "read", query=JobsQuery, answer=JobList)
async def list_jobs(call: Call) -> Answer:
    """The tenant's jobs of the last 30 days."""
    own = sorted(
        (one for one in jobs_of(call).states.values() if one.created["tenant"] == call.tenant),
        key=lambda one: (one.created_at, one.created["job_id"]), reverse=True,
    )  # fmt: skip
    ids = [one.created["job_id"] for one in own]
    at = ids.index(call.query.cursor) + 1 if call.query.cursor in ids else 0
    page = own[at : at + call.query.limit]
    return Answer(
        JobList([_shown(one, None) for one in page], ids[at + len(page) - 1] if at + len(page) < len(own) else None)
    )


@routes.add("GET", "/v1/jobs/{job_id}", "read", answer=JobAnswer, problems=(404,))
async def get_job(call: Call) -> Answer:
    """How far a job is, and what became of its messages."""
    state, prefix = _own(call), f"{call.params['job_id']}-"
    try:
        rows = await call.door.ask(ENDED, tenant=call.tenant, since=moment(state.created_at - 60_000), prefix=prefix,
                                   length=len(prefix), ends=sorted(ENDS))  # fmt: skip
    except Problem:  # the rest is known without ClickHouse
        return Answer(_shown(state, None))
    ended: dict[str, int] = {}
    for row in rows:
        name = state_of(str(row["m_kind"]))
        ended[name] = ended.get(name, 0) + int(row["n"])
    return Answer(_shown(state, ended))


@routes.add("GET", "/v1/jobs/{job_id}/refusals", "read", answer_media=NDJSON, problems=(404,))
async def job_refusals(call: Call) -> Answer:
    """The lines that were refused, with their reasons: a JSON object a line."""
    parts = _own(call).counts.get("refusals", [])

    async def rows() -> AsyncIterator[bytes]:
        for part in parts:
            yield await call.door.contents.get_blob(part)

    return Answer(rows(), 200, {}, NDJSON)


@routes.add("POST", "/v1/jobs/{job_id}/cancel", "send", status=202, answer=Created, problems=(404, 409))
async def cancel_job(call: Call) -> Answer:
    """Stop a job: lines that were not read are not sent. What was accepted goes on."""
    state, id = _own(call), call.params["job_id"]
    own, of_job = call.key.get("streams"), state.created.get("streams")
    if own and not set(of_job or keys.STREAMS) <= set(own):
        raise Problem(403, "forbidden", "the job was made with a key that may send to more streams than this one")
    if state.ended is not None:
        raise Problem(409, "ended", f"the job has ended already: {state.name}")
    job: Job = {"job_id": id, "tenant": call.tenant, "step": "cancelled", "by": f"key {call.key['key_id']}"}
    await jobs_of(call).say(job)
    await audit.tell(call, "job-cancelled", id)
    return Answer(Created(id, "cancelling"), 202)


@asynccontextmanager
async def _uploaded(call: Call) -> AsyncIterator[tuple[str, str, IO[bytes], str]]:
    """(what the mails have in common, format, file, its SHA-256). Raises Problem."""
    door, request = call.door, call.request
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    idle_s = door.settings.api_timeout_s
    if kind == NDJSON:
        async with bodies.hashed(request, FILE_MAX, idle_s, door.spool) as (file, digest):
            yield "", "ndjson", file, digest
    elif kind == "multipart/form-data":
        async with multipart.received(request, FILE_MAX, idle_s, door.spool, (FILE,), 1) as form:
            if not form.files:
                raise of_field(f"/{FILE}", "the file is missing")
            (sent,) = form.files
            kind = sent.content_type.partition(";")[0].strip().lower()
            if kind not in (CSV, NDJSON):
                raise of_field(f"/{FILE}", f"its Content-Type must be {CSV} or {NDJSON}")
            if len(form.message) > MESSAGE_MAX:
                raise Problem(
                    413, "too-large", f"the message of a batch has at most {MESSAGE_MAX:,} bytes: link to large files"
                )
            message = bodies.json(form.message, Message)
            if message.to or message.cc or message.bcc:
                raise of_field("/message/to", "the recipients of a batch stand in its file")
            if not keys.may(call.key, "send", message.stream):
                raise Problem(403, "forbidden", f"this key may not send to the stream {message.stream}")
            yield (
                form.message.decode(),
                "csv" if kind == CSV else "ndjson",
                sent.file,
                sent.digest,
            )
    else:
        raise Problem(415, "media-type", f"{kind[:80]!r}: send {NDJSON} or multipart/form-data")


def maker(tenants: Mapping[str, Tenant], now: Any, size_max: int) -> Make:
    """What makes submissions of lines."""

    def make(job: Job, lines: list[tuple[int, Any]]) -> tuple[Submission | None, list[Refusal]]:
        tenant = tenants.get(job["tenant"])
        if tenant is None:
            return None, [Refusal(number, "the tenant is not there any more") for number, _ in lines]
        refused: list[Refusal] = []

        def build(message: Message) -> Submission:
            if (allowed := job.get("streams")) and message.stream not in allowed:
                raise Problem(403, "forbidden", f"the key of this job may not send to the stream {message.stream}")
            return submission_of(message, tenant, "-", test=job.get("test", False), now=now(), size_max=size_max)

        def alone(number: int, message: Message) -> Message | None:
            try:
                build(message)
            except Problem as problem:
                refused.append(Refusal(number, problem.detail))
                return None
            return message

        if job.get("format") == "csv":
            template = bodies.json(job.get("message", "").encode(), Message)
            rows = [(number, _recipient(row)) for number, row in lines]
            refused += [Refusal(number, found) for number, found in rows if isinstance(found, str)]
            good = [(number, found) for number, found in rows if isinstance(found, Recipient)]
            together = msgspec.structs.replace(template, to=[one for _, one in good])
            try:
                return (build(together) if good else None), refused
            except Problem:  # of one or of all: each is looked at by itself
                kept = [one for number, one in good if alone(number, msgspec.structs.replace(template, to=[one]))]
                return (build(msgspec.structs.replace(template, to=kept)) if kept else None), refused
        ((number, raw),) = lines
        try:
            if isinstance(raw, str):
                raise Problem(400, "line", raw)
            return build(_merged(job.get("message", ""), raw)), []
        except Problem as problem:
            return None, [Refusal(number, problem.detail)]

    return make


def _merged(common: str, raw: bytes) -> Message:
    if not common:
        return bodies.json(raw, Message)  # type: ignore[no-any-return]
    own = bodies.json(raw, dict[str, msgspec.Raw])
    return bodies.json(msgspec.json.encode(bodies.json(common.encode(), dict[str, msgspec.Raw]) | own), Message)  # type: ignore[no-any-return]


def _recipient(row: Any) -> Recipient | str:
    """The recipient of a row of CSV, or why there is none."""
    if isinstance(row, str):
        return row
    column = next((name for name in row if name.lower() in ADDRESSES), None)
    if column is None or not row[column]:
        return f"no recipient: one column is {', '.join(ADDRESSES)}"
    name = next((value for key, value in row.items() if key.lower() == "name"), "")
    return Recipient(row[column].strip(), name, {key: value for key, value in row.items() if key != column})


def jobs_of(call: Call) -> Jobs:
    """The jobs of the door."""
    jobs: Jobs = call.door.jobs
    return jobs


def _own(call: Call) -> State:
    state = jobs_of(call).states.get(call.params["job_id"])
    if state is None or state.created["tenant"] != call.tenant:
        raise not_found("job")
    return state


def _shown(state: State, messages: dict[str, int] | None) -> JobAnswer:
    counts = state.counts
    return JobAnswer(
        state.created["job_id"], state.name, state.cancelled and state.ended is None, moment(state.created_at),
        moment(state.ended_at) if state.ended is not None else None, counts.get("lines", 0), counts.get("accepted", 0),
        counts.get("refused", 0), counts.get("error", ""), messages,
    )  # fmt: skip
