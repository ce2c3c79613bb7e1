"""POST /v3/mail/send, as SendGrid's users know it: their code moves here by changing a URL.

Each personalization is a mail of its own. What we do not have (templates of the provider, unsubscribe groups, IP pools, tracking, ...) is
refused by name, and never left out in silence.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

from avro.records import Submission
from gateway.accept import ids_of
from gateway.api import bodies
from gateway.api.messages import Attachment, Mailbox, Message, Recipient
from gateway.api.problems import Problem
from gateway.api.routes import Answer, Call, Routes
from gateway.api.send import OVERHEAD, accept, stored, submission_for

PERSONALIZATIONS_MAX = 1_000  # SendGrid's
SUBSTITUTED_MAX = 32 << 20  # characters of subjects and parts after substitution, of all personalizations together
PLAIN, HTML = "text/plain", "text/html"

routes = Routes()


class Email(msgspec.Struct):
    """An address."""

    email: str
    name: str | None = None


class Content(msgspec.Struct):
    """A part of the mail: text/plain or text/html."""

    type: str
    value: str


class File(msgspec.Struct):
    """An attachment. `content`: base64."""

    content: bytes
    filename: str
    type: str | None = None
    disposition: str | None = None
    content_id: str | None = None


class Personalization(msgspec.Struct, rename={"from_": "from"}):
    """One mail: its recipients, and what is different in it."""

    to: list[Email]
    cc: list[Email] = []
    bcc: list[Email] = []
    subject: str | None = None
    headers: dict[str, str] = {}
    substitutions: dict[str, str] = {}
    custom_args: dict[str, Any] = {}
    send_at: int | None = None
    from_: Email | None = None
    dynamic_template_data: dict[str, Any] | None = None


class Mail(msgspec.Struct, rename={"from_": "from"}):
    """The body of SendGrid's v3 Mail Send."""

    personalizations: Annotated[list[Personalization], msgspec.Meta(min_length=1, max_length=PERSONALIZATIONS_MAX)]
    from_: Email
    subject: str | None = None
    content: list[Content] = []
    reply_to: Email | None = None
    reply_to_list: list[Email] = []
    attachments: list[File] = []
    headers: dict[str, str] = {}
    categories: list[str] = []
    custom_args: dict[str, Any] = {}
    send_at: int | None = None
    template_id: str | None = None
    batch_id: str | None = None
    asm: dict[str, Any] | None = None
    ip_pool_name: str | None = None
    sections: dict[str, Any] | None = None
    mail_settings: dict[str, dict[str, Any]] | None = None
    tracking_settings: dict[str, dict[str, Any]] | None = None


class OneError(msgspec.Struct):
    """An error of SendGrid's. `help`: always null."""

    message: str
    field: str | None
    help: str | None = None


class Errors(msgspec.Struct):
    """What SendGrid answers where it does not send."""

    errors: list[OneError]


class Refused(Problem):
    """An error as SendGrid writes it."""

    media_type = "application/json"

    def __init__(self, field: str, text: str, status: int = 400) -> None:
        super().__init__(status, "sendgrid", text)
        self.field = field

    def body(self) -> Any:
        """As it is sent."""
        return Errors([OneError(self.detail, self.field or None)])


@routes.add(
    "POST",
    "/v3/mail/send",
    "send",
    status=202,
    media={"application/json": Mail},
    problems=(403, 409),
    own_problem=Errors,
)
async def mail_send(call: Call) -> Answer:
    """SendGrid's Mail Send. X-Message-Id is the id of the first message."""
    door = call.door
    limit = door.settings.size_max * 4 // 3 + OVERHEAD
    try:
        async with bodies.decoded(
            call.request, Mail, limit, door.settings.api_timeout_s, door.spool, door.large
        ) as mail:
            _check(mail)
            made = _submissions(call, mail)
            if _sandbox(mail):
                return Answer(None, 200)
            await stored(door, *made)
            found = await asyncio.gather(*(accept(call, one, f":{number}") for number, one in enumerate(made)))
    except Refused:
        raise
    except Problem as problem:
        if problem.status not in (400, 413, 422, 403):
            raise
        field = problem.errors[0].pointer.strip("/").replace("/", ".") if problem.errors else ""
        raise Refused(field, problem.detail, 400 if problem.status == 422 else problem.status) from None
    return Answer(None, 202, {"X-Message-Id": _first_id(made[0], found[0])})


def _submissions(call: Call, mail: Mail) -> list[Submission]:
    """One for each personalization. Raises Problem."""
    made, left = [], SUBSTITUTED_MAX
    for number, own in enumerate(mail.personalizations):
        message = message_of(mail, number, left)
        if own.substitutions:
            left -= _length(message)
        made.append(submission_for(call, message))
    return made


def _length(message: Message) -> int:
    return len(message.subject) + len(message.text or "") + len(message.html or "")


def message_of(mail: Mail, number: int, left: int = SUBSTITUTED_MAX) -> Message:
    """The mail of a personalization. `left`: characters that substitutions may make. Raises Refused."""
    own = mail.personalizations[number]
    subject, parts = own.subject or mail.subject or "", {one.type.lower(): one.value for one in mail.content}
    for tag, value in own.substitutions.items():
        if not tag:
            raise Refused(f"personalizations.{number}.substitutions", "a substitution tag has one character at least")
        # each works on what those before have made: forty of them would make a terabyte of a word
        more = len(value) - len(tag)
        if sum(len(text) + text.count(tag) * more for text in (subject, *parts.values())) > left:
            text = f"substitutions make more than {SUBSTITUTED_MAX:,} characters of this request: send it in several"
            raise Refused(f"personalizations.{number}.substitutions", text)
        subject = subject.replace(tag, value)
        parts = {kind: text.replace(tag, value) for kind, text in parts.items()}
    reply_to = [mail.reply_to] if mail.reply_to else mail.reply_to_list
    send_at = own.send_at if own.send_at is not None else mail.send_at
    metadata = {name: value if isinstance(value, str) else msgspec.json.encode(value).decode()
                for name, value in {**mail.custom_args, **own.custom_args}.items()}  # fmt: skip
    return Message(
        from_=_mailbox(own.from_ or mail.from_), to=_recipients(own.to), cc=_recipients(own.cc), bcc=_recipients(own.bcc),
        reply_to=[_mailbox(one) for one in reply_to], subject=subject, text=parts.get(PLAIN), html=parts.get(HTML),
        headers={**mail.headers, **own.headers}, tags=mail.categories, metadata=metadata,
        send_at=_time(send_at, f"personalizations.{number}.send_at"),
        attachments=[
            Attachment(one.filename, one.content, one.type or "application/octet-stream",
                       (one.content_id or "") if one.disposition == "inline" else "")
            for one in mail.attachments
        ],
    )  # fmt: skip


def _check(mail: Mail) -> None:
    """What we do not have. Raises Refused."""
    for name in ("template_id", "batch_id", "asm", "ip_pool_name", "sections"):
        if getattr(mail, name):
            raise Refused(name, f"{name} is not available here: leave it out")
    for number, one in enumerate(mail.personalizations):
        if one.dynamic_template_data:
            name = f"personalizations.{number}.dynamic_template_data"
            raise Refused(
                name, "dynamic templates are not available here: use substitutions, or render the mail yourself"
            )
    for group, settings in (("mail_settings", mail.mail_settings), ("tracking_settings", mail.tracking_settings)):
        for name, setting in (settings or {}).items():
            if setting.get("enable") and name != "sandbox_mode":
                raise Refused(
                    f"{group}.{name}", f"{group}.{name} is not available here: leave it out, or set enable to false"
                )
    kinds = [one.type.lower() for one in mail.content]
    for number, kind in enumerate(kinds):
        if kind not in (PLAIN, HTML) or kinds.count(kind) > 1:
            raise Refused(f"content.{number}.type", f"content has one {PLAIN} and one {HTML} at most, and nothing else")


def _sandbox(mail: Mail) -> bool:
    return bool((mail.mail_settings or {}).get("sandbox_mode", {}).get("enable"))


def _mailbox(one: Email) -> Mailbox:
    return Mailbox(one.email, one.name or "")


def _recipients(several: list[Email]) -> list[str | Recipient]:
    return [Recipient(one.email, one.name or "") for one in several]


def _time(seconds: int | None, field: str) -> datetime | None:
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        raise Refused(field, "send_at is a time in seconds since 1970") from None


def _first_id(submission: Submission, accepted: tuple[str, Any, bool]) -> str:
    return ids_of(submission, accepted[1])[0]
