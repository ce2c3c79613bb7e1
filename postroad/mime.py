"""MIME: a submission becomes the bytes that are sent.

RFC 5322 (message), 2045-2047 (MIME, encoded words), 2231 (file names), 2387 (related), 6532 (internationalised
headers). The standard library's EmailMessage holds the tree and its generator writes it. Header fields are folded
by postroad.headers: the library's own structured headers take 0.7 ms a mail, and turn a long token such as the URL of
List-Unsubscribe into encoded words.

The same submission always gives the same bytes (boundaries are hashes, the date is given): a replay has the same hash.
"""

import base64
import binascii
import hashlib
import html
import re
from collections.abc import Sequence
from email.generator import BytesGenerator
from email.message import EmailMessage
from email.policy import EmailPolicy
from email.utils import formatdate
from io import BytesIO
from typing import Any, NamedTuple

from avro.records import Attachment, Mailbox, Recipient, Submission
from postroad.addresses import normalise
from postroad.headers import CONTROLS, LINE_MAX, LINE_SOFT_MAX, mailbox_list, unstructured
from postroad.returnpath import MARK

PLACEHOLDER = re.compile(r"\{\{\s*([\w.-]+)\s*\}\}")
_PLAIN = bytes([9, 10, *range(32, 127)])  # what a text may have that is to travel as it is
_NOBODY = "undisclosed-recipients:;"  # RFC 5322 3.4: an empty group, where nobody is to be named
PART_MAX = 60  # characters of each part of Feedback-ID
_NO_PART = re.compile(r"[^A-Za-z0-9._-]")
_FEEDBACK_ID = re.compile(rb"(?:^|[\r\n])feedback-id[ \t]*:", re.IGNORECASE)
_END_OF_HEADER = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_RAW_REMOVED = frozenset({b"bcc", b"resent-bcc"})


class File(NamedTuple):
    """An attachment as it travels, the same in the mail of every recipient. `body`: base64 in lines with CRLF; `digest`: of
    the bytes it stands for."""

    body: bytes
    digest: bytes


def file(data: bytes) -> File:
    """Encode an attachment's bytes."""
    body = base64.encodebytes(data).replace(b"\n", b"\r\n")
    return File(body, hashlib.blake2b(data, digest_size=16).digest())


def encoded_size(size: int) -> int:
    """Bytes that a file of `size` bytes has in a mail."""
    return size * 78 // 57  # 57 bytes are a line of 76 characters and CRLF


class MissingVariable(ValueError):
    """A recipient lacks the value for a placeholder of its copy."""

    def __init__(self, name: str, recipient: str):
        super().__init__(f"recipient {recipient} has no value for {{{{{name}}}}}")
        self.name = name


def is_individual(submission: Submission) -> bool:
    """Whether every recipient gets a copy addressed to it alone. A raw message is never touched: all get the same."""
    if submission.get("raw") is not None:
        return False
    return submission.get("stream") == "broadcast" or has_variables(submission)


def has_variables(submission: Submission) -> bool:
    """Whether any recipient has variables, so that every copy has a content of its own."""
    return any(recipient.get("variables") for recipient in submission["recipients"])


def render(submission: Submission, recipient: Recipient) -> Submission:
    """The submission with the recipient's values in place of {{name}} in subject, text and html.

    Values are escaped for HTML text and quoted attributes in html; line breaks and other controls become a space in the subject. Without
    any variables in the submission placeholders stay. Raises MissingVariable.
    """
    if not has_variables(submission):
        return submission
    variables = recipient.get("variables", {})

    def value(match: re.Match[str]) -> str:
        try:
            return variables[match[1]]
        except KeyError:
            raise MissingVariable(match[1], recipient["address"]) from None

    rendered = submission.copy()
    rendered["subject"] = PLACEHOLDER.sub(lambda match: CONTROLS.sub(" ", value(match)), submission.get("subject", ""))
    if (text := submission.get("text")) is not None:
        rendered["text"] = PLACEHOLDER.sub(value, text)
    if (page := submission.get("html")) is not None:
        rendered["html"] = PLACEHOLDER.sub(lambda match: html.escape(value(match)), page)
    return rendered


def build(submission: Submission, files: Sequence[File], *, date_ms: int, message_id: str, to_all: bool) -> bytes:
    """The message, all lines with CRLF. `files`: those of `submission["attachments"]`, in order.

    `message_id`: the part in front of the @, the sender's domain follows. `to_all`: To, Cc and Message-ID are
    written here; else they are left to `top`. A raw message gets what it lacks and is not changed otherwise.
    The submission has passed `checks.check_submission`.
    """
    raw = submission.get("raw")
    if raw is not None:
        return _complete(raw, submission, date_ms, message_id)
    message = _tree(submission, files)
    message["From"] = mailbox_list("From", [submission["sender"]])
    if submission.get("reply_to"):
        message["Reply-To"] = mailbox_list("Reply-To", submission["reply_to"])
    if to_all:
        for name, value in _recipient_fields(submission["recipients"]):
            message[name] = value
        message["Message-ID"] = _message_id(submission, message_id)
    message["Subject"] = unstructured("Subject", submission.get("subject", ""))
    message["Date"] = _date(date_ms)
    for header in submission.get("headers", []):
        message[header["name"]] = unstructured(header["name"], header["value"])
    _set_boundaries(message, submission, files)
    out = BytesIO()
    _Generator(out, policy=_POLICY).flatten(message)
    return out.getvalue()


def top(submission: Submission, recipient: Recipient, message_id: str) -> bytes:
    """Header lines of one recipient's copy, for content that was built with `to_all=False`."""
    to = mailbox_list("To", [{"address": recipient["address"], "name": recipient.get("name", "")}])
    lines = f"To: {to or _NOBODY}\r\nMessage-ID: {_message_id(submission, message_id)}\r\n"
    return lines.encode()


def marks(submission: Submission, mark: str, installation: str) -> bytes:
    """Header lines that every copy has, by which a report on it is known even where addresses are redacted: our signed mark
    (postroad/returnpath.py), and Feedback-ID as Google reads it, where the submission has none: campaign:stream:tenant:installation."""
    lines = f"{MARK}: {mark}\r\n"
    headers = {header["name"].lower() for header in submission.get("headers", [])}
    raw = submission.get("raw")
    if "feedback-id" not in headers and not (raw and _FEEDBACK_ID.search(raw[: _header_end(raw)])):
        tags = submission.get("tags", [])
        campaign = submission.get("metadata", {}).get("campaign") or (tags[0] if tags else "")
        parts = campaign, submission.get("stream", "transactional"), submission["tenant"], installation
        lines += f"Feedback-ID: {':'.join(_NO_PART.sub('-', part)[:PART_MAX] for part in parts)}\r\n"
    return lines.encode()


def _header_end(raw: bytes) -> int:
    found = _END_OF_HEADER.search(raw)
    return found.start() if found else len(raw)


def needs_smtputf8(message: bytes) -> bool:
    """Whether the header section has non-ASCII bytes, so that the receiver must offer SMTPUTF8 (RFC 6531)."""
    end = message.find(b"\r\n\r\n")
    return not message[: end if end >= 0 else len(message)].isascii()


# -- header fields ---------------------------------------------------------------------------------------------------


def _recipient_fields(recipients: Sequence[Recipient]) -> list[tuple[str, str]]:
    listed: dict[str, list[Mailbox]] = {"to": [], "cc": [], "bcc": []}
    for recipient in recipients:
        listed[recipient.get("kind", "to")].append({"address": recipient["address"], "name": recipient.get("name", "")})
    to, cc = mailbox_list("To", listed["to"]), mailbox_list("Cc", listed["cc"])
    if not to and not cc:
        to = _NOBODY
    return [(name, value) for name, value in (("To", to), ("Cc", cc)) if value]


def _message_id(submission: Submission, message_id: str) -> str:
    return f"<{message_id}@{normalise(submission['sender']['address']).ascii_domain}>"


def _date(date_ms: int) -> str:
    return formatdate(date_ms // 1000).replace("-0000", "+0000")  # RFC 5322 3.3: -0000 would say "zone unknown"


# -- the tree --------------------------------------------------------------------------------------------------------


class _Policy(EmailPolicy):
    """Field bodies are kept as they were folded here."""

    def header_max_count(self, name: str) -> None:
        """No limit is looked up: the library makes a class for each field that it is asked about."""

    def header_store_parse(self, name: str, value: Any) -> tuple[str, Any]:
        return name, value

    def header_fetch_parse(self, name: str, value: Any) -> Any:
        return value

    def fold_binary(self, name: str, value: str) -> bytes:
        if name.startswith("Content-") and len(name) + 2 + len(value) > LINE_SOFT_MAX:
            value = value.replace("; ", ";\r\n ")
        return f"{name}: {value}\r\n".encode()


_POLICY = _Policy(linesep="\r\n", cte_type="7bit")


class _Generator(BytesGenerator):
    """The library's, without its loop over the lines of a body; a file's body is written as it is."""

    def _handle_text(self, msg: Any) -> None:
        body = msg.get_payload()
        if isinstance(body, memoryview):
            self._fp.write(body)  # type: ignore[attr-defined]  # the stub leaves out what the generator writes to
        else:
            super()._handle_text(msg)  # type: ignore[misc]  # the same

    _writeBody = _handle_text  # the library's name for all that is not text

    def _write_lines(self, lines: str) -> None:
        self.write(lines.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n"))


def _tree(submission: Submission, files: Sequence[File]) -> EmailMessage:
    text, page = submission.get("text"), submission.get("html")
    message = EmailMessage(policy=_POLICY)
    message["MIME-Version"] = "1.0"
    described = list(zip(submission.get("attachments", []), files, strict=True))
    inline = [pair for pair in described if page is not None and pair[0].get("content_id")]
    beside = [pair for pair in described if page is None or not pair[0].get("content_id")]

    shown = _text_part(message, "plain", text) if text is not None else message
    if page is not None:
        if text is not None:
            message.make_alternative()
            shown = EmailMessage(policy=_POLICY)
            message.attach(shown)
        _text_part(shown, "html", page)
        if inline:
            shown.make_related()
            for attachment, encoded in inline:
                shown.attach(_file_part(attachment, encoded))
    if beside:
        message.make_mixed()
        for attachment, encoded in beside:
            message.attach(_file_part(attachment, encoded))
    return message


def _text_part(part: EmailMessage, subtype: str, text: str) -> EmailMessage:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.endswith("\n"):
        text += "\n"
    encoding, body = _encoded(text)
    part["Content-Type"] = f'text/{subtype}; charset="utf-8"'
    part["Content-Transfer-Encoding"] = encoding
    part.set_payload(body)
    return part


def _encoded(text: str) -> tuple[str, str]:
    """Transfer encoding and body: as it is, or the shorter of quoted-printable and base64. Safe for any SMTP receiver."""
    data = text.encode()
    if not data.translate(None, _PLAIN) and max(map(len, text.split("\n"))) <= LINE_MAX:
        return "7bit", text
    escaped = sum(map(data.count, (b"=", b"\0"))) + len(data) - len(data.decode("ascii", "ignore"))
    if escaped * 2 > len(data) // 3:
        return "base64", base64.encodebytes(data.replace(b"\n", b"\r\n")).decode("ascii")
    return "quoted-printable", binascii.b2a_qp(data, istext=True).decode("ascii")


def _file_part(attachment: Attachment, encoded: File) -> EmailMessage:
    part = EmailMessage(policy=_POLICY)
    content_id = attachment.get("content_id")
    part["Content-Type"] = attachment.get("content_type") or "application/octet-stream"
    part["Content-Transfer-Encoding"] = "base64"
    part["Content-Disposition"] = "inline" if content_id else "attachment"
    part.set_param("filename", attachment["filename"], header="Content-Disposition", replace=True)
    if content_id:
        part["Content-ID"] = f"<{content_id}>"
    body: Any = memoryview(encoded.body)  # bytes would become a string
    part.set_payload(body)
    return part


def _set_boundaries(message: EmailMessage, submission: Submission, files: Sequence[File]) -> None:
    if not message.is_multipart():
        return
    # A hash of all that is inside cannot be inside, and is the same the next time.
    digest = hashlib.blake2b(digest_size=16)
    texts = ((submission.get("text") or "").encode(), (submission.get("html") or "").encode())
    for data in (*texts, *(encoded.digest for encoded in files)):
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    name = digest.hexdigest()
    for number, part in enumerate(part for part in message.walk() if part.is_multipart()):
        part.set_boundary(f"=_{number}_{name}")


# -- raw messages ----------------------------------------------------------------------------------------------------


def _complete(raw: bytes, submission: Submission, date_ms: int, message_id: str) -> bytes:
    """The producer's own message with CRLF, without Bcc, with Date and Message-ID."""
    data = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if not data.endswith(b"\n"):
        data += b"\n"
    end = 0 if data.startswith(b"\n") else data.find(b"\n\n") + 1 or len(data)
    kept, present, removing = [], set(), False
    for line in data[:end].splitlines(keepends=True) if end else ():
        if line[:1] not in b" \t":
            name = line.partition(b":")[0].strip().lower()
            removing = name in _RAW_REMOVED
            present.add(name)
        if not removing:
            kept.append(line)
    added = []
    if b"date" not in present:
        added.append(f"Date: {_date(date_ms)}\r\n")
    if b"message-id" not in present:
        added.append(f"Message-ID: {_message_id(submission, message_id)}\r\n")
    added.extend(
        f"{header['name']}: {unstructured(header['name'], header['value'])}\r\n"
        for header in submission.get("headers", [])
    )
    return "".join(added).encode() + (b"".join(kept) + data[end:]).replace(b"\n", b"\r\n")
