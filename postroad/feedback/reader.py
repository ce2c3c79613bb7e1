"""What a report is, and whom it is about: the marks of the forms, from the surest to the least sure."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

from postroad.bounces import Judgement, judge
from postroad.feedback import arf, codes, dsn, ending, ses, signs, text, words
from postroad.feedback import original as originals
from postroad.feedback.model import MAX_RECIPIENTS, Action, Complaint, Feedback, Kind, Original, Recipient
from postroad.feedback.parts import split
from postroad.feedback.phase import phase_of, phases

COMPLAINED = Judgement("undetermined", "feedback", "complaint", 1.0)
_SENTENCES_MAX = 3_000  # characters of a text that are searched for the host's own sentence
_FAILED_HEADERS = ("x-failed-recipients", "x-mailer-daemon-recipients", "x-bounced-address")
_OWN_HEADERS = (
    "to",
    "delivered-to",
    "x-original-to",
    "envelope-to",
    "x-envelope-to",
    "from",
    "sender",
    "reply-to",
    "errors-to",
)


def read(raw: bytes, mark_header: str = originals.MARK_HEADER) -> Feedback:
    """What a report says. Any bytes give a Feedback, in bounded work; `mark_header`: our header in every message."""
    report = _Report(raw, mark_header)
    found = _read(report)
    if found.kind != "bounce" or found.rule not in ("original", "text") or not report.parts.original:
        return found
    if not found.original.fields.get("content-type", "").lower().startswith("multipart/report"):
        return found
    inner = _read(
        _Report(report.parts.original, mark_header)
    )  # a gateway bounced a bounce, and says less than that one
    wins = inner.kind == "bounce" and inner.rule == "dsn" and (found.rule == "original" or not found.recipients)
    return inner if wins else found


class _Report:
    """A report that is being read. Its text is only taken apart where its fields do not say all, as that costs most."""

    def __init__(self, raw: bytes, mark_header: str) -> None:
        self.parts = split(raw)
        self._raw, self._mark_header = raw, mark_header

    @cached_property
    def _text(self) -> tuple[list[str], str]:
        return ending.body_and_original(self.parts.text)

    @property
    def lines(self) -> list[str]:
        """What the host wrote."""
        return self._text[0]

    @cached_property
    def original(self) -> Original:
        """What the returned message says of itself, in its part or behind the host's text."""
        data = self.parts.original or self._text[1].encode("utf-8", "replace")
        found = originals.read(data, self._raw, self._mark_header)
        if not found.message_id and (reply_to := originals.mailboxes(self.parts.fields.get("in-reply-to", ""))):
            found = replace(found, message_id=reply_to[0])
        return found


def _read(report: _Report) -> Feedback:
    return _complaint(report) or _notification(report) or _told(report)


def _complaint(report: _Report) -> Feedback | None:
    parts = report.parts
    if parts.statuses and not parts.feedback:
        return None
    original = report.original
    if parts.feedback or parts.report_type == "feedback-report":
        complaint: Complaint | None = arf.of_report(parts, original)
        rule = "arf"
    else:
        complaint, rule = arf.of_form(parts, original), "fbl-form"
    if complaint is None:
        found = ses.read(parts.text) if "otificationType" in parts.text or "eventType" in parts.text else None
        if found is None or found.complaint is None:
            return found
        complaint, rule, original = found.complaint, found.rule, found.original
    people = tuple(Recipient(address, COMPLAINED) for address in complaint.original_rcpt_to)
    return Feedback("complaint", rule, people, complaint, original)


def _notification(report: _Report) -> Feedback | None:
    """From the fields of RFC 3464, in their part or in the text."""
    parts, rule = report.parts, "dsn"
    blocks = [dsn.parse(body) for body in parts.statuses]
    if not any(block.recipients for block in blocks) and "final-recipient:" in parts.text.lower():
        at = parts.text.lower().find("final-recipient:")
        begin = max(
            parts.text.rfind("\n\n", 0, at), parts.text.lower().rfind("reporting-mta:", max(0, at - 2_000), at), 0
        )
        rule, blocks = "dsn-in-text", [dsn.parse(parts.text[begin : at + 20_000].strip().encode())]
        if not signs.bounce(parts, report.lines, report.original):
            return None
    people = _distinct([one for block in blocks for one in block.recipients])
    if not people or (
        not any("@" in one.address for one in people) and text.recipients(report.lines, own=(), expected=())
    ):
        return None
    if any(one.action in ("failed", "delayed") and not one.diagnostic for one in people):
        people = _completed(people, report.lines)
    original = report.original
    if not original.return_path and (sender := next((block.sender for block in blocks if block.sender), "")):
        original = replace(original, return_path=sender)
    actions = {one.action for one in people}
    kind: Kind = "bounce" if "failed" in actions else "delay" if "delayed" in actions else "other"
    return Feedback(kind, rule, _judged(people, parts.text, by_fields=True), original=original)


def _judged(people: Sequence[Recipient], told: str, by_fields: bool = False) -> tuple[Recipient, ...]:
    """The recipients with their judgements; `told`: the text, which names the command where the diagnostic does not."""
    answered = phases([one.address for one in people], told)
    judged = [
        dsn.judged(one, phase_of(one.diagnostic) or phase, by_fields)
        for one, phase in zip(people, answered, strict=True)
    ]
    if len(people) == 1 and judged[0].judgement.bounce_class == "hard":
        return (_in_doubt(judged[0], told),)
    return tuple(judged)


def _in_doubt(recipient: Recipient, told: str) -> Recipient:
    """A hard recipient as the host's own sentence has it, where that says of a mailbox that it is there: gateways quote
    "user unknown" of mailboxes that they know to be full or disabled."""
    if found := words.STILL_THERE.search(told[:_SENTENCES_MAX]):
        judgement = judge(0, "", found[0].strip())
        if judgement.bounce_class == "soft":
            return replace(recipient, judgement=judgement)
    return recipient


def _distinct(people: Sequence[Recipient]) -> list[Recipient]:
    found: dict[str, Recipient] = {}
    for one in people:
        known = found.setdefault(one.address.lower(), one)
        if known.action != "failed" and one.action == "failed":
            found[one.address.lower()] = one
    return list(found.values())[:MAX_RECIPIENTS]


def _completed(people: Sequence[Recipient], lines: list[str]) -> list[Recipient]:
    """The recipients with what the text says of them, where their fields say little."""
    said = {
        one.address.lower(): one
        for one in text.recipients(lines, own=(), expected={one.address.lower() for one in people})
    }
    completed = []
    for one in people:
        found = said.get(one.address.lower()) or (next(iter(said.values())) if len(said) == len(people) == 1 else None)
        told = found.said if found else text.whole(lines)
        if not one.diagnostic and one.action in ("failed", "delayed"):
            code = codes.reply_code(told)
            status = one.status
            if codes.is_general(status):
                status = codes.status(told, code) or status
            remote = one.remote_mta or codes.remote_host("\n".join(lines[:200]))
            one = replace(one, diagnostic=told, reply_code=code, status=status, remote_mta=remote)
        completed.append(one)
    return completed


def _told(report: _Report) -> Feedback:
    """From the text for people."""
    parts, lines, original = report.parts, report.lines, report.original
    if parts.report_type in signs.OTHER_REPORTS or not signs.bounce(parts, lines, original):
        if signs.vacation(parts, lines):
            return Feedback("vacation", "auto-reply", original=original)
        return Feedback("other", "no-marks", original=original)
    kind: Kind = "delay" if signs.delay(parts, lines) else "bounce"
    action: Action = "delayed" if kind == "delay" else "failed"
    expected = {address.lower() for address in original.recipients}
    own = {address.lower() for name in _OWN_HEADERS for address in originals.mailboxes(parts.fields.get(name, ""))}
    own |= {original.sender.lower(), original.return_path.lower()} - expected
    named = [one for name in _FAILED_HEADERS for one in originals.mailboxes(parts.fields.get(name, ""))]
    found = text.recipients(lines, own=own, expected=expected | {one.lower() for one in named})
    rule = "text"
    if named:
        said = {one.address.lower(): one.said for one in found}
        rest = found[0].said if len(found) == 1 and found[0].said else text.whole(lines)
        found = [text.Found(one, said.get(one.lower()) or rest, 5) for one in dict.fromkeys(named)]
        rule = "failed-recipients"
    elif (
        not found
        and (at := originals.first_mailbox(parts.fields.get("from", "")))
        and (names := text.local_names(lines, at.rpartition("@")[2]))
    ):
        found, rule = names, "local-names"
    elif not found and signs.returned_to_sender(parts, original):
        found = [text.Found(original.recipients[0], text.whole(lines), 1)]
        rule = "original"
    remote = codes.remote_host("\n".join(lines[:200]))
    people = [_recipient(one, action, remote) for one in found[:MAX_RECIPIENTS]]
    return Feedback(kind, rule, _judged(people, "\n".join(lines[:200])), original=original)


def _recipient(found: text.Found, action: Action, remote: str) -> Recipient:
    code = codes.reply_code(found.said)
    status = codes.status(found.said, code)
    return Recipient(
        found.address, dsn.UNJUDGED, "", action, status, code, found.said, codes.remote_host(found.said) or remote
    )
