"""Rules that a submission, and the content built from it, must keep. RFC 5322 2.1.1, 2.2, 3.6; RFC 2045 5.1; RFC 6532.

`check_submission` runs in ingest on what the producer wrote, `check_content` in validate on what will be sent: what a
raw message holds, and what variables brought in, is seen only there.
"""

# ruff: noqa: SIM905  # lists of words are easier to read and to add to as one text

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from email.errors import NonASCIILocalPartDefect, ObsoleteHeaderDefect
from email.policy import default as _parsing
from functools import lru_cache

from avro.records import Attachment, Header, Mailbox, Submission
from postroad.addresses import BadAddress, domain_of, lies_in, normalise
from postroad.headers import CONTROLS, LINE_MAX
from postroad.reading import header_fields

RECIPIENTS_MAX = 1_000
TAGS_MAX = 10
TAG_MAX = 100  # characters
FILENAME_MAX = 200  # bytes of UTF-8: percent-encoded (RFC 2231) it still fits one line
SIZE_MAX = 25 << 20  # bytes of the built message; what the large mailbox providers take
ID_MAX = 200  # characters of submission_id and dedupe_id
NAME_MAX = 100  # characters of the names of a tenant and an egress pool
MAILBOX_MAX = 1_000  # characters of an address, and of the name shown with it
METADATA_MAX = 50  # entries
METADATA_SIZE_MAX = 16 << 10  # bytes; it travels in every message and in most of its events
METADATA_TOTAL_MAX = 4 << 20  # bytes, times recipients
ATTACHMENTS_MAX = 100
REPLY_TO_MAX = 100
MORE_HEADERS_MAX = 100  # fields beyond those that Postroad writes
MORE_HEADERS_SIZE_MAX = 64 << 10  # characters of them; folding and encoding takes 1 us each
SUBJECT_MAX = 16 << 10  # characters
FROM_MAX = (
    2 << 10
)  # characters of From or Sender; the parser takes 40 ms for so many, four times that for twice as many
LIFETIME_MAX_MS = 30 * 86_400_000  # after the time that a mail may go
HEADERS_MAX = 256 * 1024  # bytes; 1,000 recipients with long names in To take 200 KB
TIME_MAX = 4_102_444_800_000  # ms, the year 2100: beyond it the producer wrote another unit

_OWN_HEADERS = frozenset(
    "from to cc bcc subject date message-id mime-version dkim-signature return-path resent-bcc x-postroad-id".split()
)
_ONCE = frozenset(b"from sender reply-to to cc bcc message-id date subject in-reply-to references".split())
_HEADER_NAME = re.compile(r"[!-9;-~]{1,100}")
_HARMLESS = (ObsoleteHeaderDefect, NonASCIILocalPartDefect)  # RFC 5322 4.1, RFC 6532
_EMPTY_LINE = re.compile(rb"(?:\r\n|\r|\n|\A)(?:\r\n|\r|\n)")  # as mime.py will write it, whatever the line ends are
_FIELD = re.compile(rb"([!-9;-~]+):")  # no blank before the colon: obsolete (RFC 5322 4.5), and DKIM cannot sign it
_TOKEN = r"[a-zA-Z0-9!#$&^_.+-]+"
_MEDIA_TYPE = re.compile(rf'({_TOKEN})/{_TOKEN}(?:; ?{_TOKEN}=(?:{_TOKEN}|"[ !#-\[\]-~]*"))*')
_CONTENT_ID = re.compile(r"[!-;=?-~]{1,200}")  # printable ASCII, no space, no angle brackets


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a mail is rejected. `reason` and `rule`: as on its event; `text`: what is wrong and what to do."""

    reason: str
    rule: str
    text: str


def check_submission(submission: Submission) -> Problem | None:
    """The first rule that the submission breaks."""
    return (
        check_limits(submission)
        or _check_mailboxes(submission)
        or _check_recipients(submission)
        or _check_parts(submission)
        or _check_headers(submission)
        or _check_attachments(submission.get("attachments", []))
        or _check_times(submission)
    )


def check_limits(submission: Submission) -> Problem | None:
    """The first of the rules that bound what a submission asks for: what each of its recipients' messages carries along, and
    how many those are."""
    number = len(submission["recipients"])
    if not 1 <= number <= RECIPIENTS_MAX:
        return _bad("recipients", f"{number:,} recipients; 1 to {RECIPIENTS_MAX:,} are allowed")
    if not 1 <= len(submission["submission_id"]) <= ID_MAX:
        return _bad("submission-id", f"submission_id must have 1 to {ID_MAX} characters")
    if len(submission.get("dedupe_id") or "") > ID_MAX:
        return _bad("dedupe-id", f"dedupe_id may have up to {ID_MAX} characters")
    if len(submission["tenant"]) > NAME_MAX or len(submission.get("egress_pool") or "") > NAME_MAX:
        return _bad("names", f"tenant and egress_pool may have up to {NAME_MAX} characters")
    tags = submission.get("tags", [])
    if len(tags) > TAGS_MAX or any(len(tag) > TAG_MAX for tag in tags):
        return _bad("tags", f"at most {TAGS_MAX} tags of up to {TAG_MAX} characters")
    metadata = submission.get("metadata", {})
    size = sum(len(name.encode()) + len(value.encode()) for name, value in metadata.items())
    if len(metadata) > METADATA_MAX or size > METADATA_SIZE_MAX or size * number > METADATA_TOTAL_MAX:
        text = (
            f"{len(metadata)} entries of metadata with {size:,} bytes for each of {number:,} recipients; allowed are "
        )
        text += f"{METADATA_MAX} entries, {METADATA_SIZE_MAX:,} bytes, {METADATA_TOTAL_MAX:,} bytes times recipients"
        return _bad("metadata", text)
    mailboxes = [submission["sender"], *submission.get("reply_to", []), *submission["recipients"]]
    if any(len(one["address"]) > MAILBOX_MAX or len(one.get("name", "")) > MAILBOX_MAX for one in mailboxes):
        return _bad("mailbox-length", f"an address or the name shown with it has more than {MAILBOX_MAX:,} characters")
    return None


def check_lifetime(submission: Submission, accepted_at: int) -> Problem | None:
    """Whether the mail, accepted at `accepted_at` (ms), would be tried for too long."""
    expires_at, from_ms = submission.get("expires_at"), max(accepted_at, submission.get("send_at") or 0)
    if expires_at is None or expires_at <= from_ms + LIFETIME_MAX_MS:
        return None
    days = LIFETIME_MAX_MS // 86_400_000
    return _bad("times", f"expires_at is more than {days} days after the mail may go (accepted, or send_at)")


def check_subject(subject: str) -> Problem | None:
    """Whether a subject, as it is sent, is too long."""
    if len(subject) <= SUBJECT_MAX:
        return None
    return _bad("subject", f"the subject has {len(subject):,} characters; {SUBJECT_MAX:,} are allowed")


def check_content(raw: bytes, size_max: int = SIZE_MAX, domains: Collection[str] | None = None) -> Problem | None:
    """The first rule that a built message breaks. With `domains`, every address of From and Sender must lie in one of them."""
    if len(raw) > size_max:
        return Problem("content", "size", f"the message has {len(raw):,} bytes, {size_max:,} are allowed")
    if not raw.count(b"\n") == raw.count(b"\r") == raw.count(b"\r\n"):
        return Problem("content", "line-end", "a CR or LF stands alone; every line must end with CRLF")
    if b"\0" in raw:
        return Problem("content", "nul", "the message has a NUL byte; encode the part as base64")
    end = 0 if raw.startswith(b"\r\n") else raw.find(b"\r\n\r\n") + 2
    if end == 1:  # no empty line: all of it is header
        end = len(raw)
    return _check_lines(raw) or _check_fields(raw[:end], domains)


def author(raw: bytes) -> Mailbox | None:
    """The first address of a message's From and the name shown with it; None where there is none. Any bytes do."""
    field = header_fields(raw[:HEADERS_MAX])[0].get("from", "")
    try:
        found = _parsing.header_factory("From", field).addresses[0] if len(field) <= FROM_MAX else None
    except (
        Exception
    ):  # the library's parser fails in many ways on hostile input, and a list without an address is empty
        return None
    if found is None or not found.username or not found.domain:
        return None
    name = found.display_name.encode("utf-8", "replace").decode()  # an encoded word may hold half a character
    return {"address": found.addr_spec, "name": name}


# -- submission ------------------------------------------------------------------------------------------------------


def _bad(rule: str, text: str) -> Problem:
    return Problem("content", rule, text)


def _control_in(what: str, text: str) -> Problem | None:
    found = CONTROLS.search(text)
    if found is None:
        return None
    return _bad("header-injection", f"{what} has the control character U+{ord(found[0][0]):04X}; take it out")


def _check_mailboxes(submission: Submission) -> Problem | None:
    if len(submission.get("reply_to", [])) > REPLY_TO_MAX:
        return _bad("reply_to", f"at most {REPLY_TO_MAX} addresses in reply_to")
    for what, mailbox in [("sender", submission["sender"])] + [("reply_to", m) for m in submission.get("reply_to", [])]:
        if problem := _control_in(f"{what} name", mailbox.get("name", "")):
            return problem
        try:
            normalise(mailbox["address"])
        except BadAddress as error:
            return Problem(error.reason, what, f"{what} {mailbox['address'][:80]!r}: {error.text}")
    return None


def _check_recipients(submission: Submission) -> Problem | None:
    for recipient in submission["recipients"]:
        problem = _control_in("a recipient's address", recipient["address"])
        problem = problem or _control_in("a recipient's name", recipient.get("name", ""))
        if problem:
            return problem
    return None


def _check_parts(submission: Submission) -> Problem | None:
    raw = submission.get("raw")
    if raw is None:
        if submission.get("text") is None and submission.get("html") is None:
            return _bad("parts", "neither text nor html nor raw is given")
        return None
    beside = [name for name in ("text", "html") if submission.get(name) is not None]
    beside += [name for name in ("subject", "attachments", "reply_to") if submission.get(name)]
    if any(recipient.get("variables") for recipient in submission["recipients"]):
        beside.append("variables")
    if beside:
        return _bad("parts", f"raw is a whole message: {', '.join(beside)} cannot be given beside it")
    if (
        len(raw) > HEADERS_MAX and _EMPTY_LINE.search(raw, 0, HEADERS_MAX + 4) is None
    ):  # 4 million lines take 2 s to go through
        return _bad("header-size", f"the header section of raw has more than {HEADERS_MAX:,} bytes; those are allowed")
    return None


def _check_headers(submission: Submission) -> Problem | None:
    subject = submission.get("subject", "")
    if problem := check_subject(subject) or _control_in("subject", subject) or _check_tokens("Subject", subject):
        return problem
    headers = submission.get("headers", [])
    size = sum(len(header["name"]) + len(header["value"]) for header in headers)
    if len(headers) > MORE_HEADERS_MAX or size > MORE_HEADERS_SIZE_MAX:
        text = f"{len(headers):,} headers with {size:,} characters; {MORE_HEADERS_MAX} headers with "
        return _bad("header-size", text + f"{MORE_HEADERS_SIZE_MAX:,} characters are allowed")
    for header in headers:
        if problem := _check_header(header, has_reply_to=bool(submission.get("reply_to"))):
            return problem
    return None


def _check_header(header: Header, has_reply_to: bool) -> Problem | None:
    name = header["name"]
    if not _HEADER_NAME.fullmatch(name):
        return _bad("header-name", f"{name[:80]!r} is no header name: printable ASCII without a colon, up to 100")
    lower = name.lower()
    if lower in _OWN_HEADERS or lower.startswith("content-") or (has_reply_to and lower == "reply-to"):
        return _bad("header-own", f"header {name} is written by Postroad; use the field of the submission")
    return _control_in(f"header {name}", header["value"]) or _check_tokens(name, header["value"])


def _check_tokens(name: str, text: str) -> Problem | None:
    if len(text) > 800 and max(map(len, text.split()), default=0) > LINE_MAX - len(name) - 2 and text.isascii():
        return _bad("line-length", f"{name} has a word that does not fit a line of {LINE_MAX} characters")
    return None


def _check_attachments(attachments: Sequence[Attachment]) -> Problem | None:
    if len(attachments) > ATTACHMENTS_MAX:
        return _bad("attachments", f"{len(attachments):,} attachments; {ATTACHMENTS_MAX} are allowed")
    for attachment in attachments:
        name, content_id = attachment["filename"], attachment.get("content_id")
        if problem := _control_in("an attachment's filename", name):
            return problem
        if not name or name in (".", "..") or "/" in name or "\\" in name or len(name.encode()) > FILENAME_MAX:
            text = f"{name[:80]!r}: a filename has no path and 1 to {FILENAME_MAX} bytes in UTF-8"
            return _bad("filename", text)
        media_type = attachment.get("content_type") or "application/octet-stream"
        match = _MEDIA_TYPE.fullmatch(media_type) if len(media_type) <= FILENAME_MAX else None
        if match is None or match[1].lower() in ("multipart", "message"):  # RFC 2046: those may not be base64
            return _bad("content-type", f"{media_type[:80]!r} of {name} is no media type that a file can have")
        if content_id and not _CONTENT_ID.fullmatch(content_id):
            return _bad("content-id", f"{content_id[:80]!r}: a content_id is printable ASCII without space, < or >")
    return None


def _check_times(submission: Submission) -> Problem | None:
    send_at, expires_at = submission.get("send_at"), submission.get("expires_at")
    for name, time in (("send_at", send_at), ("expires_at", expires_at)):
        if time is not None and not 0 <= time <= TIME_MAX:
            return _bad("times", f"{name} {time} is not a time in milliseconds since 1970")
    if send_at is not None and expires_at is not None and expires_at <= send_at:
        return _bad("times", "expires_at is not after send_at")
    return None


# -- content ---------------------------------------------------------------------------------------------------------


def _check_fields(section: bytes, domains: Collection[str] | None) -> Problem | None:
    if len(section) > HEADERS_MAX:
        return _bad("header-size", f"the header section has {len(section):,} bytes, {HEADERS_MAX:,} are allowed")
    try:
        section.decode()
    except UnicodeDecodeError:
        return _bad("header-syntax", "the header section is not UTF-8; use encoded words (RFC 2047)")
    found: set[bytes] = set()
    senders, naming = {b"from": b"", b"sender": b""}, b""  # as far as they have been read; the one that is being read
    for line in section.removesuffix(b"\r\n").split(b"\r\n") if section else ():
        if line[:1] in (b" ", b"\t") and found and line.strip():
            if naming:
                senders[naming] += line
            continue
        match = _FIELD.match(line)
        if match is None:
            return _bad("header-syntax", f"{line[:60]!r} is no header line; an empty line must follow the header")
        name = match[1].lower()
        naming = name if name in senders else b""
        if naming:
            senders[naming] = line[match.end() :]
        if name in found and name in _ONCE:
            return _bad("header-count", f"header {match[1].decode()} stands there twice")
        found.add(name)
    if b"from" not in found:
        return _bad("header-count", "header From is missing")
    if domains is None:
        return None
    for name, field in senders.items():
        if name in found and (problem := _check_sender(name.decode(), field.decode().strip(), domains)):
            return problem
    return None


def _check_sender(name: str, field: str, domains: Collection[str]) -> Problem | None:
    if len(field) > FROM_MAX:
        return Problem("sender-domain", name, f"header {name} has {len(field):,} characters, {FROM_MAX:,} are allowed")
    found = _domains_in(field)
    if not found:
        return Problem("sender-domain", name, f"header {name} {field[:80]!r} is no list of valid addresses")
    for domain in found:
        if not any(lies_in(domain, own) for own in domains):
            return Problem("sender-domain", name, f"header {name} names {domain}, which is not a domain of the tenant")
    return None


@lru_cache(maxsize=4_096)
def _domains_in(sender: str) -> tuple[str, ...]:
    """Domains of all addresses of a From field; none when any of it is not clear."""
    try:
        field = _parsing.header_factory("From", sender)
        if any(not isinstance(defect, _HARMLESS) for defect in field.defects):
            return ()  # "a@ours <b@theirs>": this parser takes the one, a mail program shows the other
        return tuple(domain_of(address.addr_spec) for address in field.addresses)
    except Exception:  # the library's parser fails in many ways on hostile input; none of them is an address
        return ()


def _check_lines(raw: bytes) -> Problem | None:
    at, end = 0, len(raw)
    while end - at > LINE_MAX:  # jump to the last line that begins within reach: everything in between is short enough
        newline = raw.rfind(b"\n", at, at + LINE_MAX + 2)
        if newline < 0:
            return _bad("line-length", f"a line has more than {LINE_MAX} bytes (RFC 5322 2.1.1); encode or break it")
        at = newline + 1
    return None
