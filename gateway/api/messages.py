"""Mail as REST takes it, and the submission that it becomes. Every rule is postroad.checks'; what is wrong names its field."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from avro.records import Attachment as AvroAttachment
from avro.records import Mailbox as AvroMailbox
from avro.records import Recipient as AvroRecipient
from avro.records import RecipientKind, Submission, Tenant
from gateway.api.problems import Problem, of_field, of_rule
from postroad import budget
from postroad.addresses import BadAddress, normalise
from postroad.checks import (
    ATTACHMENTS_MAX,
    MORE_HEADERS_MAX,
    RECIPIENTS_MAX,
    REPLY_TO_MAX,
    author,
    check_lifetime,
    check_submission,
)
from postroad.intake import distinct
from postroad.senders import domain_of_tenant

NAMED_MAX = 1_200  # characters
_NAMED = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*+)"|([^<>"]*))\s*<([^<>]*)>\s*')

Moment = Annotated[datetime, msgspec.Meta(tz=True, description="RFC 3339 with its zone, such as 2026-12-24T18:00:00Z")]
Text = Annotated[str, msgspec.Meta(max_length=8 << 20)]


class Mailbox(msgspec.Struct, forbid_unknown_fields=True):
    """A mail address and the name shown with it."""

    address: str
    name: str = ""


class Recipient(msgspec.Struct, forbid_unknown_fields=True):
    """A recipient; `variables` are put in the place of {{name}} in subject, text and html of its copy."""

    address: str
    name: str = ""
    variables: dict[str, str] = {}


class Attachment(msgspec.Struct, forbid_unknown_fields=True):
    """A file. `content`: base64; `content_id`: shown by <img src="cid:...">."""

    filename: str
    content: bytes
    content_type: str = "application/octet-stream"
    content_id: str = ""


Recipients = str | Recipient | list[str | Recipient]


class Message(msgspec.Struct, forbid_unknown_fields=True):
    """A mail. Addresses are "a@example.com", "Ann <a@example.com>" or objects; one, or a list of them."""

    from_: str | Mailbox | None = msgspec.field(name="from", default=None)
    to: Recipients = []
    cc: Recipients = []
    bcc: Recipients = []
    reply_to: str | Mailbox | list[str | Mailbox] = []
    subject: str = ""
    text: Text | None = None
    html: Text | None = None
    raw: Annotated[bytes, msgspec.Meta(description="A whole message/rfc822, base64")] | None = None
    headers: dict[str, str] = {}
    attachments: list[Attachment] = []
    variables: Annotated[
        dict[str, str], msgspec.Meta(description="Of every recipient that does not say otherwise")
    ] = {}
    stream: Literal["transactional", "broadcast"] = "transactional"
    tags: list[str] = []
    metadata: dict[str, str] = {}
    send_at: Moment | None = None
    expires_at: Moment | None = None
    dedupe_id: str | None = None
    dedupe_policy: Literal["reject", "replace"] = "reject"


class Accepted(msgspec.Struct):
    """One message: a recipient and its id."""

    message_id: str
    recipient: str


class SendAnswer(msgspec.Struct):
    """What was accepted."""

    submission_id: str
    messages: list[Accepted]


def submission_of(message: Message, tenant: Tenant, submission_id: str, *, test: bool, now: int, size_max: int) -> Submission:  # fmt: skip
    """The submission, checked against every rule that can be checked here. Raises Problem."""
    made = converted(message, tenant["tenant"], submission_id, test=test)
    check(made, tenant, now, size_max, sum(len(one.content) for one in message.attachments))
    return made


def converted(message: Message, tenant: str, submission_id: str, *, test: bool) -> Submission:
    """The submission, not checked yet, but for how many of everything there are. Raises Problem."""
    _few(message)
    made: Submission = {
        "tenant": tenant, "submission_id": submission_id, "stream": message.stream, "sender": _sender(message),
        "recipients": recipients_of(message), "tags": message.tags, "metadata": message.metadata,
        "dedupe_id": message.dedupe_id, "dedupe_policy": message.dedupe_policy, "test": test,
    }  # fmt: skip
    if message.reply_to:
        made["reply_to"] = [mailbox(one, "/reply_to") for one in _list(message.reply_to)]
    for name in ("subject", "text", "html", "raw"):
        if (value := getattr(message, name)) not in (None, ""):
            made[name] = value
    if message.headers:
        made["headers"] = [{"name": name, "value": value} for name, value in message.headers.items()]
    if message.attachments:
        made["attachments"] = [attachment(one) for one in message.attachments]
    if message.send_at is not None:
        made["send_at"] = ms(message.send_at, "/send_at")
    if message.expires_at is not None:
        made["expires_at"] = ms(message.expires_at, "/expires_at")
    return made


def check(made: Submission, tenant: Tenant, now: int, size_max: int, attached: int) -> None:
    """Whether the road would take it. `attached`: bytes of its files. Raises Problem."""
    if broken := check_submission(made) or check_lifetime(made, now):
        raise of_rule(broken)
    for field in ("to", "cc", "bcc"):
        for number, recipient in enumerate(one for one in made["recipients"] if one.get("kind", "to") == field):
            try:
                normalise(recipient["address"])
            except BadAddress as error:
                raise of_field(f"/{field}/{number}", f"{recipient['address'][:80]!r}: {error.text}") from None
    if (domain_of_tenant(tenant, normalise(made["sender"]["address"]).ascii_domain)) is None:
        raise of_field(
            "/from", "its domain is not one of yours: POST /v1/domains adds it", status=403, kind="sender-domain"
        )
    if attached * 4 // 3 > size_max or len(made.get("raw") or b"") > size_max:
        raise too_large(size_max)
    if any(one.get("variables") for one in made["recipients"]):
        found = budget.problems(made, distinct(made["recipients"]), attached * 4 // 3, size_max)
        if broken := next(filter(None, found), None):
            raise of_rule(broken)


def too_large(size_max: int) -> Problem:
    """A mail is larger than mailbox providers take."""
    return Problem(413, "too-large", f"the message would have more than {size_max:,} bytes: link to large files")


def attachment(one: Attachment) -> AvroAttachment:
    """As the submission has it."""
    return {"filename": one.filename, "content_type": one.content_type, "content": one.content, "content_id": one.content_id}  # fmt: skip


def mailbox(given: str | Mailbox, pointer: str) -> AvroMailbox:
    """An address, and the name where there is one. Raises Problem."""
    if isinstance(given, Mailbox):
        return {"address": given.address, "name": given.name}
    if "<" not in given:
        return {"address": given.strip()}
    found = _NAMED.fullmatch(given) if len(given) <= NAMED_MAX else None
    if found is None:
        raise of_field(pointer, f'{given[:80]!r} is not one address: write "a@example.com" or "Ann <a@example.com>"')
    return {
        "address": found[3].strip(),
        "name": re.sub(r"\\(.)", r"\1", found[1]) if found[1] is not None else found[2].strip(),
    }


def recipients_of(message: Message) -> list[AvroRecipient]:
    """To, Cc and Bcc, in this order. Raises Problem."""
    found: list[AvroRecipient] = []
    kinds: tuple[tuple[RecipientKind, Any], ...] = (("to", message.to), ("cc", message.cc), ("bcc", message.bcc))
    for kind, given in kinds:
        for number, one in enumerate(_list(given)):
            if isinstance(one, Recipient):
                recipient: AvroRecipient = {"address": one.address, "name": one.name, "kind": kind}
                variables = {**message.variables, **one.variables} if message.variables else one.variables
            else:
                known = mailbox(one, f"/{kind}/{number}")
                recipient = {"address": known["address"], "name": known.get("name", ""), "kind": kind}
                variables = message.variables
            if variables:
                recipient["variables"] = variables
            found.append(recipient)
    if not found:
        raise of_field("/to", "no recipient: name at least one in to, cc or bcc")
    return found


def ms(moment: datetime, pointer: str) -> int:
    """Milliseconds since 1970. Raises Problem."""
    try:
        return round(moment.timestamp() * 1000)
    except (OverflowError, ValueError, OSError):
        raise of_field(pointer, "this is no time of our calendar") from None


def _few(message: Message) -> None:
    """A body of 33 MB holds millions of recipients or headers: nothing is made of them before they were counted."""
    for field, most in (("to", RECIPIENTS_MAX), ("cc", RECIPIENTS_MAX), ("bcc", RECIPIENTS_MAX), ("reply_to", REPLY_TO_MAX),
                        ("headers", MORE_HEADERS_MAX), ("attachments", ATTACHMENTS_MAX)):  # fmt: skip
        found = getattr(message, field)
        if isinstance(found, list | dict) and len(found) > most:
            raise of_field(f"/{field}", f"{len(found):,} of them; {most:,} are allowed")


def _sender(message: Message) -> AvroMailbox:
    if message.from_ is not None:
        return mailbox(message.from_, "/from")
    if message.raw is not None and (found := author(message.raw)) is not None:
        return found
    raise of_field("/from", "who sends is missing: an address, or a From header in raw")


def _list(given: Any) -> Iterable[Any]:
    return given if isinstance(given, list) else [given] if given else []
