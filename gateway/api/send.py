"""POST /v1/send: one mail, as JSON or as multipart with its files beside it."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from avro.records import Submission, Tenant
from gateway.accept import INLINE_MAX, ids_of
from gateway.api import bodies, multipart
from gateway.api.door import Door
from gateway.api.messages import Accepted, Message, SendAnswer, check, converted, submission_of
from gateway.api.problems import Problem
from gateway.api.routes import Answer, Call, Routes
from gateway.idempotency import Conflict, InProgress
from gateway.inbound import Unavailable
from gateway.writer import TooLarge
from postroad import keys
from postroad.content import ContentUnavailable
from postroad.intake import distinct
from topics.client import Place
from topics.trace import HEADER, parent_of

KEY_MAX = 255  # characters of an Idempotency-Key
OVERHEAD = 1 << 20  # bytes of a body beside its files

routes = Routes()
encode = msgspec.json.Encoder(order="deterministic").encode


@routes.add(
    "POST", "/v1/send", "send", status=202, answer=SendAnswer, problems=(403, 409, 413, 422, 503),
    media={"application/json": Message, "multipart/form-data": multipart.Form},
)  # fmt: skip
async def send(call: Call) -> Answer:
    """Send a mail to up to 1,000 recipients. 202: Kafka has it on all in-sync replicas.

    As multipart/form-data: the part `message` (JSON, as the other form of the body), then any number of parts `attachments`.
    """
    async with message_of(call) as (message, files):
        submission = submission_for(call, message, files)
        id, place, replayed = await accept(call, submission)
        answer = SendAnswer(
            id, [Accepted(one, to["address"]) for one, to in zip(
                ids_of(submission, place), distinct(submission["recipients"]), strict=True)])  # fmt: skip
    return Answer(answer, 202, {"Idempotency-Replayed": "true"} if replayed else {})


@asynccontextmanager
async def message_of(call: Call) -> AsyncIterator[tuple[Message, list[multipart.File]]]:
    """The message of a request and the files that came beside it. Raises Problem."""
    door, request = call.door, call.request
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    size_max, idle_s = door.settings.size_max, door.settings.api_timeout_s
    if kind == "multipart/form-data":
        async with multipart.received(request, size_max + OVERHEAD, idle_s, door.spool) as form:
            yield bodies.json(form.message, Message), form.files
    elif kind == "application/json":
        limit = size_max * 4 // 3 + OVERHEAD
        async with bodies.decoded(request, Message, limit, idle_s, door.spool, door.large) as message:
            yield message, []
    else:
        raise Problem(415, "media-type", f"{kind[:80]!r}: send application/json or multipart/form-data")


def submission_for(call: Call, message: Message, files: list[multipart.File] = []) -> Submission:  # noqa: B006  # read only
    """The checked submission of a message, without its id. Raises Problem."""
    door, tenant = call.door, tenant_of(call)
    if not keys.may(call.key, "send", message.stream):
        raise Problem(403, "forbidden", f"this key may not send to the stream {message.stream}")
    size_max, test = door.settings.size_max, call.key.get("test_mode", False)
    if not files:
        return submission_of(message, tenant, "-", test=test, now=door.now(), size_max=size_max)
    made = converted(message, tenant["tenant"], "-", test=test)
    made["attachments"] = made.get("attachments", []) + [
        {"filename": one.filename, "content_type": one.content_type, "content": one, "content_id": one.content_id}  # type: ignore[typeddict-item]  # `_stored` puts a reference in its place
        for one in files
    ]
    attached = sum(len(one.content) for one in message.attachments) + sum(one.size for one in files)
    check(made, tenant, door.now(), size_max, attached)
    return made


def tenant_of(call: Call) -> Tenant:
    """Who calls, as control.tenants has it now."""
    if (tenant := call.door.tenants.get(call.tenant)) is None:
        raise Problem(403, "forbidden", "the tenant of this key is not there any more")
    return tenant


async def accept(call: Call, submission: Submission, part: str = "") -> tuple[str, Place, bool]:
    """Store and write a submission, under its Idempotency-Key where there is one: (submission_id, place, was it there before).
    `part`: of a request that becomes several. Raises Problem."""
    key = call.request.headers.get("idempotency-key", "")
    if len(key) > KEY_MAX or not key.isprintable():
        raise Problem(400, "idempotency-key", f"Idempotency-Key: 1 to {KEY_MAX} printable characters")
    trace = [(HEADER, value.encode()) for value in call.request.headers.getlist(HEADER)]
    trace = trace if parent_of(trace) else []  # what no stage would believe stays out of the log
    try:
        await stored(call.door, submission)
        if not key:
            submission["submission_id"] = f"api-{secrets.token_hex(16)}"
            return submission["submission_id"], await call.door.acceptor.write(submission, trace), False
        body = hashlib.blake2b(encode([call.request.url.path, submission]), digest_size=16).hexdigest()

        async def write(submission_id: str) -> Place:
            submission["submission_id"] = submission_id
            return await call.door.acceptor.write(submission, trace)

        found = await call.door.idempotency.once(call.tenant, key + part, body, write)
        submission["submission_id"] = found[0]
        return found  # type: ignore[no-any-return]  # the door knows no type of it
    except Conflict:
        raise Problem(
            409, "idempotency-conflict", "this Idempotency-Key was used with another body; take a new key"
        ) from None
    except InProgress:
        raise Problem(409, "in-progress", "the same request is being done; ask again for its answer", headers={"Retry-After": "5"}) from None  # fmt: skip
    except TooLarge:
        raise too_large_record() from None
    except (Unavailable, ContentUnavailable) as error:
        raise unavailable() from error


def unavailable() -> Problem:
    """Nothing was accepted."""
    return Problem(503, "unavailable", "it cannot be stored now; send it again later", headers={"Retry-After": "5"})


def too_large_record() -> Problem:
    """Text and HTML travel in one record."""
    return Problem(
        413, "too-large", "subject, text, html, recipients and their variables have more than 8 MiB together"
    )


async def stored(door: Door, *submissions: Submission) -> None:
    """Put large files into the content store, and those that came beside the message; one that several submissions share once.
    Raises ContentUnavailable."""
    known: dict[int, tuple[bytes, str]] = {}  # by identity, which holds as long as they are here
    for submission in submissions:
        for attachment in submission.get("attachments", []):
            file: Any = attachment["content"]
            if isinstance(file, multipart.File):
                attachment["content"] = await door.contents.put_file(file.file, file.digest)
            elif isinstance(file, bytes) and len(file) > INLINE_MAX:
                if id(file) not in known:
                    known[id(file)] = file, await door.contents.put_blob(file)
                attachment["content"] = known[id(file)][1]
