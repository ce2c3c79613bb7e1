"""Intake: from a submission to its messages, and how much of its quota a tenant has used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from avro.records import Content, Message, Recipient, Submission, Tenant
from postroad import mime
from postroad.addresses import BadAddress, domain_of, normalise
from postroad.checks import Problem, check_submission
from postroad.content import ContentError, ContentStore, ContentUnavailable
from postroad.ids import message_id
from postroad.limits import DayQuota, DayUse, Limit, reserve
from postroad.senders import domain_of_tenant, return_path

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
        seen.setdefault(written(recipient["address"]).lower(), recipient)
    return list(seen.values())


def written(address: str) -> str:
    """An address in its one form, which is the key of every list; one that is none stays as it is (validate says so)."""
    try:
        return normalise(address).text
    except BadAddress:
        return address


def sender_domain(submission: Submission) -> str:
    """Domain of the From address, A-labels in lower case; empty where the address is none (validate says so)."""
    try:
        return domain_of(submission["sender"]["address"])
    except BadAddress:
        return ""


def refusal(submission: Submission, tenant: Tenant | None, key: bytes | None) -> Problem | None:
    """Why a submission as a whole is rejected. `key`: of its record."""
    if tenant is None:
        return Problem(
            "unknown-tenant", "tenants", f"no tenant {submission['tenant'][:64]!r}: `postroad tenants apply` makes one"
        )
    if not tenant.get("active", True):
        return Problem("inactive-tenant", "tenants", "the tenant is not active")
    if key != submission["tenant"].encode():
        return Problem("bad-key", "tenants", "the record's key is not the tenant's id: its quotas are kept by key")
    return check_submission(submission)


def message(
    submission: Submission,
    tenant: Tenant | None,
    recipient: Recipient,
    *,
    accepted_at: int,
    place: str,
    expires_ms: int,
) -> Message:
    """The message of one recipient, still without its content. `place`: "partition:offset" of the submission;
    `expires_ms`: how long a message is tried where the submission does not say."""
    id = message_id(accepted_at, submission["tenant"], submission["submission_id"], place, recipient["address"])
    domain = sender_domain(submission)
    send_at = submission.get("send_at")
    return {
        "message_id": id,
        "tenant": submission["tenant"],
        "submission_id": submission["submission_id"],
        "stream": submission.get("stream", "transactional"),
        "accepted_at": accepted_at,
        "recipient": written(recipient["address"]),  # cancellations meet the message under this key
        "sender": submission["sender"]["address"],
        "return_path": return_path(domain_of_tenant(tenant, domain) if tenant else None, domain, id),
        "top": b"",
        "content": NOTHING,
        "tags": submission.get("tags", []),
        "metadata": submission.get("metadata", {}),
        "send_at": send_at,
        "expires_at": submission.get("expires_at") or max(accepted_at, send_at or 0) + expires_ms,
        "egress_pool": submission.get("egress_pool") or "",
    }


class Built(NamedTuple):
    """What a recipient gets: the content and the header lines of its own copy, or what is wrong with it."""

    content: Content = NOTHING
    top: bytes = b""
    problem: Problem | None = None


async def build(submission: Submission, messages: Sequence[Message], store: ContentStore) -> list[Built]:
    """What each of `messages` (of `distinct` recipients, in order) gets, stored. Raises ContentUnavailable, temporary."""
    try:
        contents = [attachment["content"] for attachment in submission.get("attachments", [])]
        files = [content if isinstance(content, bytes) else await store.get_blob(content) for content in contents]
    except ContentUnavailable:
        raise
    except ContentError as exc:
        return [Built(problem=Problem("content", "attachment-reference", str(exc)))] * len(messages)
    own_copy, own_content = mime.is_individual(submission), mime.has_variables(submission)
    content: Content | None = None
    builts = []
    for recipient, message in zip(distinct(submission["recipients"]), messages, strict=True):
        try:
            if content is None or own_content:
                rendered = mime.render(submission, recipient)
                date = max(message["accepted_at"], message.get("send_at") or 0)
                raw = mime.build(rendered, files, date_ms=date, message_id=message["message_id"], to_all=not own_copy)
                content = await store.put(raw)
        except mime.MissingVariable as exc:
            builts.append(Built(problem=Problem("missing-variable", exc.name, str(exc))))
        else:
            builts.append(Built(content, mime.top(submission, recipient, message["message_id"]) if own_copy else b""))
    return builts


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
