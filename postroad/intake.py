"""Intake: from a submission to its messages, and how much of its quota a tenant has used."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from avro.records import Content, Message, Recipient, Submission, Tenant
from postroad import budget, mime
from postroad.addresses import BadAddress, domain_of, key, normalise
from postroad.checks import Problem, check_lifetime, check_subject, check_submission
from postroad.content import ContentError, ContentStore, ContentUnavailable
from postroad.ids import header_id, message_id
from postroad.limits import DayQuota, DayUse, Limit, reserve
from postroad.returnpath import ReturnPaths
from postroad.senders import domain_of_tenant, return_path_domain

NOTHING: Content = {"hash": "", "size": 0}  # of a submission that is rejected before it is built


class Use(NamedTuple):
    """How far a tenant has used its quotas. `tat`: theoretical arrival time of the rate, ms (GCRA); `day`: UTC day since
    1970 that is being filled; `used` of it."""

    tat: float = 0.0
    day: int = 0
    used: int = 0


def distinct(recipients: list[Recipient]) -> list[Recipient]:
    """Each address once, the first mention of it: it gets one mail."""
    seen: dict[str, Recipient] = {}
    for recipient in recipients:
        seen.setdefault(key(recipient["address"]), recipient)
    return list(seen.values())


def written(address: str) -> str:
    """An address in its one form, which is the key of every list; one that is none stays as it is (validate says so)."""
    try:
        return normalise(address).text
    except BadAddress:
        return address


def sender_domain(address: str) -> str:
    """Domain of a sender's address, A-labels in lower case; empty where the address is none (validate says so)."""
    try:
        return domain_of(address)
    except BadAddress:
        return ""


def refusal(
    submission: Submission, tenant: Tenant | None, record_key: bytes | None, accepted_at: int
) -> Problem | None:
    """Why a submission as a whole is rejected. `record_key`, `accepted_at` (ms): of its record."""
    if tenant is None:
        return Problem(
            "unknown-tenant", "tenants", f"no tenant {submission['tenant'][:64]!r}: `postroad tenants apply` makes one"
        )
    if not tenant.get("active", True):
        return Problem("inactive-tenant", "tenants", "the tenant is not active")
    if record_key != submission["tenant"].encode():
        return Problem("bad-key", "tenants", "the record's key is not the tenant's id: its quotas are kept by key")
    return check_submission(submission) or check_lifetime(submission, accepted_at)


async def whole(submission: Submission, store: ContentStore, size_max: int) -> Submission | Problem:
    """The submission with its raw message, where that came by reference. Raises ContentUnavailable, temporary."""
    if (reference := submission.get("raw_blob")) is None:
        return submission
    if submission.get("raw") is not None:
        return Problem("content", "parts", "raw and raw_blob are both given; one message has one of them")
    try:
        raw = await store.get_blob(reference)
    except ContentUnavailable:
        raise
    except ContentError as exc:
        return Problem("content", "raw-reference", str(exc))
    if len(raw) > size_max:
        return Problem("content", "size", f"the message has {len(raw):,} bytes, {size_max:,} are allowed")
    return {**submission, "raw": raw}


def told_once(submission: Submission) -> Submission:
    """What remains of a submission that breaks `check_limits`, to make one message of: the work and the output that it asks
    for have no bound."""
    told = submission.copy()
    told["recipients"] = submission["recipients"][:1]
    told["tags"], told["metadata"], told["egress_pool"] = [], {}, None
    return told


def message(
    submission: Submission,
    tenant: Tenant | None,
    recipient: Recipient,
    *,
    accepted_at: int,
    place: str,
    expires_ms: int,
    return_paths: ReturnPaths | None,
) -> Message:
    """The message of one recipient, still without its content. `place`: "partition:offset" of the submission;
    `expires_ms`: how long a message is tried where the submission does not say; `return_paths`: None for one that never leaves."""
    id = message_id(accepted_at, submission["tenant"], submission["submission_id"], place, recipient["address"])
    domain = sender_domain(submission["sender"]["address"])
    own = domain_of_tenant(tenant, domain) if tenant else None
    send_at = submission.get("send_at")
    return {
        "message_id": id,
        "tenant": submission["tenant"],
        "submission_id": submission["submission_id"],
        "stream": submission.get("stream", "transactional"),
        "accepted_at": accepted_at,
        "recipient": written(recipient["address"]),  # cancellations meet the message under this key
        "sender": submission["sender"]["address"],
        "return_path": return_paths.sign(id, return_path_domain(own, domain)) if return_paths else "",
        "top": b"",
        "content": NOTHING,
        "tags": submission.get("tags", []),
        "metadata": submission.get("metadata", {}),
        "send_at": send_at,
        "expires_at": submission.get("expires_at") or max(accepted_at, send_at or 0) + expires_ms,
        "egress_pool": submission.get("egress_pool") or "",
        "test": submission.get("test", False),
    }


def messages(
    submission: Submission,
    tenant: Tenant | None,
    accepted_at: int,
    place: str,
    expires_ms: int,
    return_paths: ReturnPaths | None = None,
) -> list[Message]:
    """The messages of a submission's recipients; see `message`."""
    return [
        message(
            submission,
            tenant,
            recipient,
            accepted_at=accepted_at,
            place=place,
            expires_ms=expires_ms,
            return_paths=return_paths,
        )
        for recipient in distinct(submission["recipients"])
    ]


class Built(NamedTuple):
    """What a recipient gets: the content and the header lines of its own copy, or what is wrong with it."""

    content: Content = NOTHING
    top: bytes = b""
    problem: Problem | None = None


async def build(
    submission: Submission,
    messages: Sequence[Message],
    store: ContentStore,
    size_max: int,
    builts: list[Built],
    return_paths: ReturnPaths | None = None,
    installation: str = "",
) -> None:
    """Append to `builts` what each of `messages` (of `distinct` recipients, in order) gets, stored.

    What is in `builts` stays: after a call that was broken off the next one goes on where it stopped. `size_max`: bytes of a
    mail; `return_paths`: sign the Message-ID of a copy that has one recipient (without them, and for a copy that all share, it
    leads nowhere); `installation`: as Feedback-ID names it. Raises ContentUnavailable, temporary.
    """
    recipients = distinct(submission["recipients"])
    files = await _files(submission, store, size_max)
    if isinstance(files, Problem):
        builts[:] = [Built(problem=files)] * len(messages)
        return
    problems = budget.problems(submission, recipients, sum(len(file.body) for file in files), size_max)
    own_copy, own_content = mime.is_individual(submission), mime.has_variables(submission)
    content = builts[-1].content if builts and not own_content else None
    done = len(builts)
    for recipient, message, problem in zip(recipients[done:], messages[done:], problems[done:], strict=True):
        if problem:
            builts.append(Built(problem=problem))
            continue
        if content is None or own_content:
            try:
                rendered = mime.render(submission, recipient)
            except mime.MissingVariable as exc:
                builts.append(Built(problem=Problem("missing-variable", exc.name, str(exc))))
                continue
            if problem := check_subject(rendered.get("subject", "")):
                builts.append(Built(problem=problem))
                continue
            date = max(message["accepted_at"], message.get("send_at") or 0)
            alone = own_content or len(messages) == 1
            id = _header_id(message["message_id"], return_paths if alone else None)
            content = await store.put(mime.build(rendered, files, date_ms=date, message_id=id, to_all=not own_copy))
            await asyncio.sleep(0)  # the loop is everyone's: one content at a time
        top = mime.top(submission, recipient, _header_id(message["message_id"], return_paths)) if own_copy else b""
        if mark := message["return_path"].partition("@")[0]:
            top += mime.marks(submission, mark, installation)
        builts.append(Built(content, top))


def _header_id(message_id: str, return_paths: ReturnPaths | None) -> str:
    return return_paths.header_id(message_id) if return_paths else header_id(message_id)


async def _files(submission: Submission, store: ContentStore, size_max: int) -> list[mime.File] | Problem:
    """The attachments, each different one encoded once, or why they cannot be had or sent."""
    encoded: dict[bytes | str, mime.File] = {}
    files, size = [], 0
    for attachment in submission.get("attachments", []):
        content = attachment["content"]
        if content not in encoded:
            try:
                data = content if isinstance(content, bytes) else await store.get_blob(content)
            except ContentUnavailable:
                raise
            except ContentError as exc:
                return Problem("content", "attachment-reference", str(exc))
            if size + mime.encoded_size(len(data)) <= size_max:
                encoded[content] = mime.file(data)
                await asyncio.sleep(0)
        size += len(encoded[content].body) if content in encoded else mime.encoded_size(len(data))
        if size > size_max:
            return Problem(
                "content", "size", f"the attachments have over {size:,} bytes in base64, {size_max:,} are allowed"
            )
        files.append(encoded[content])
    return files


def take_place(use: Use | None, now: int, tenant: Tenant) -> tuple[int, Use]:
    """A place in the tenant's quotas for one recipient: (when it may go on, ms; the use to keep)."""
    tat, day, used = use or Use()
    due = now
    per_second = tenant.get("quota_per_second", 0.0)
    if per_second > 0:
        due, tat = reserve(tat, now, Limit(per_second, max(1, round(per_second))))
    if per_day := tenant.get("quota_per_day", 0):
        later, taken = DayQuota(per_day).reserve(DayUse(day, used), now)
        due, day, used = max(due, later), taken.day, taken.used
    return due, Use(tat, day, used)
