"""Fields of a delivery status notification: RFC 3464, RFC 6533 (utf-8 addresses), RFC 3461 (xtext).

Also where they stand in the text for people, as some hosts and broken MIME have it.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple, cast

from postroad.bounces import Judgement, judge
from postroad.feedback import codes
from postroad.feedback.model import MAX_DIAGNOSTIC, MAX_RECIPIENTS, Action, Recipient
from postroad.feedback.phase import Phase
from postroad.reading import HEADER_MAX, header_fields

_log = logging.getLogger(__name__)

_EMPTY_LINES = re.compile(rb"\r?\n(?:[ \t]*\r?\n)+")
_FINAL = re.compile(rb"^(?=Final-Recipient[ \t]*:)", re.IGNORECASE | re.MULTILINE)
_TYPED = re.compile(r"\s*([\w.+-]{1,40})\s*;\s*(.*)", re.DOTALL)
_MAILBOX = re.compile(r"(?<![^\s<>;=:,\"'(])([^\s<>;=:,\"'()@]{1,128}@[^\s<>;=:,\"'()@]{1,255})")
_QUOTED = re.compile(r"(\"(?:[^\"\\]|\\.){1,128}\"@[\w.-]{1,255})")
_XTEXT = re.compile(r"\+([0-9A-F]{2})")
_UNITEXT = re.compile(r"\\x\{([0-9A-Fa-f]{1,6})\}")
_ACTIONS: Mapping[str, Action] = {
    "failed": "failed",
    "failure": "failed",
    "fail": "failed",
    "error": "failed",
    "expired": "failed",
    "hard bounce": "failed",
    "delayed": "delayed",
    "deferred": "delayed",
    "delivered": "delivered",
    "deliverable": "delivered",
    "relayed": "relayed",
    "expanded": "expanded",
}
_STATUS = re.compile(r"\s*\(?([245]\.\d{1,3}\.\d{1,3})")
DELIVERED = Judgement("undetermined", "delivered", "action", 1.0)


class Block(NamedTuple):
    """What the fields say: hosts and ids of the message as a whole, and its recipients."""

    recipients: list[Recipient]
    reporting_mta: str
    sender: str  # X-Postfix-Sender and its like


def parse(body: bytes) -> Block:
    """The fields of one message/delivery-status part, recipients without addresses left out."""
    groups = _EMPTY_LINES.split(body.strip(b"\r\n \t"), 4 * MAX_RECIPIENTS)[: 4 * MAX_RECIPIENTS]
    if any(len(_FINAL.findall(group[:HEADER_MAX])) > 1 for group in groups):  # no empty lines between recipients
        groups = [part for group in groups for part in _FINAL.split(group, 4 * MAX_RECIPIENTS)][: 4 * MAX_RECIPIENTS]
    fields = [header_fields(group[:HEADER_MAX])[0] for group in groups]
    found: list[Recipient] = []
    for number, group in enumerate(fields):
        if (
            "final-recipient" not in group
            and number
            and _is_continuation(group)
            and "final-recipient" in fields[number - 1]
        ):
            continue  # an empty line inside a group; its fields were taken by the group before
        if len(found) < MAX_RECIPIENTS and _names_recipient(group):
            following = fields[number + 1] if number + 1 < len(fields) else {}
            if _is_continuation(following):
                group = {**following, **group}
            found.append(_recipient(group))
    mta = next((after_type(group["reporting-mta"])[1] for group in fields if "reporting-mta" in group), "")
    sender = next(
        (group[name] for group in fields for name in group if name.endswith("-sender") and "@" in group[name]), ""
    )
    return Block(found, mta, after_type(sender)[1])


def judged(recipient: Recipient, phase: Phase = "", by_fields: bool = False) -> Recipient:
    """The recipient with its judgement. Where the status says no more than its class, the diagnostic's own is judged.

    `phase`: the command that the diagnostic answers, where the report tells; `by_fields`: whether fields, not words, say what the
    action is. A judge that fails says nothing of the recipient: a fault of ours (a rule, the model's file) must not turn reports
    into dead letters, nor suppress anybody.
    """
    if recipient.action in ("delivered", "relayed", "expanded"):
        return replace(recipient, judgement=DELIVERED)
    status, code, said = recipient.status, recipient.reply_code, recipient.diagnostic
    if codes.is_general(status):
        status = codes.status(said, code) or status
    try:
        action = recipient.action if by_fields or recipient.action == "delayed" else ""
        judgement = judge(code, status, said, action=action, phase=phase)
    except Exception:
        _log.exception(
            "the judge of bounces failed, so the recipient counts as undetermined: mend the rules or the model"
        )
        judgement = JUDGE_FAILED
    return replace(recipient, judgement=judgement)


UNJUDGED = Judgement("undetermined", "undetermined", "", 0.0)
JUDGE_FAILED = Judgement("undetermined", "undetermined", "judge-failed", 0.0)


def _recipient(group: Mapping[str, str]) -> Recipient:
    original = address(group.get("original-recipient", ""))
    final = address(group.get("final-recipient", "") or group.get("x-final-recipient", ""))
    if "@" not in final:
        actual = address(group.get("x-actual-recipient", ""))
        final = next((one for one in (original, actual) if "@" in one), final or original or actual)
    if original and "@" in final and (_domain(final) == _domain(original) or "." not in _domain(final)):
        # a name inside of the receiving site, which the sender does not know; another domain is where it was forwarded to
        final = original
    kind, diagnostic = after_type(group.get("diagnostic-code", "") or group.get("x-display-diagnostic-code", ""))
    if kind == "x-unix":  # what a program behind the mailbox said, or its status
        diagnostic = "" if diagnostic.isdigit() else f"x-unix; {diagnostic}"  # of a bare status the text says more
    code = codes.reply_code(diagnostic[: 2 * MAX_DIAGNOSTIC])
    given = _STATUS.match(group.get("status", ""))
    status = given[1] if given else ""
    word = group.get("action", "").strip().lower().partition(" ")[0].rstrip(".;,")
    action = _ACTIONS.get(word) or _ACTIONS.get(group.get("action", "").strip().lower()) or _by_class(status)
    return Recipient(
        final,
        UNJUDGED,
        original,
        action,
        status,
        code,
        codes.tidy(diagnostic, code)[:MAX_DIAGNOSTIC],
        after_type(group.get("remote-mta", ""))[1].partition(" ")[0][:255],
    )


def _domain(address: str) -> str:
    return address.rpartition("@")[2].lower()


def _by_class(status: str) -> Action:
    return cast(Action, {"5": "failed", "4": "delayed", "2": "delivered"}.get(status[:1], "failed"))


def _names_recipient(group: Mapping[str, str]) -> bool:
    names = ("final-recipient", "original-recipient", "x-actual-recipient", "x-final-recipient")
    return any(address(group.get(name, "")) for name in names)


def _is_continuation(group: Mapping[str, str]) -> bool:
    return (
        bool(group)
        and not _names_recipient(group)
        and "reporting-mta" not in group
        and ("status" in group or "action" in group)
    )


def after_type(value: str) -> tuple[str, str]:
    """Type (lower case, may be empty) and text of a typed field: "rfc822; a@b" is ("rfc822", "a@b")."""
    found = _TYPED.match(value)
    if not found or " " in found[1]:
        return "", " ".join(value.split())
    return found[1].lower(), " ".join(found[2].split())


def address(value: str) -> str:
    """The address in a recipient field, its escapes undone; what is no mailbox (X.400, a local name) as it stands."""
    kind, text = after_type(value[:2_000])
    if kind == "utf-8" or "\\x{" in text:
        text = _UNITEXT.sub(_character, text)
    text = text.strip().strip("<>'").strip()
    if "@" not in text and "+40" in text:
        text = _XTEXT.sub(lambda match: chr(int(match[1], 16)), text)
    if text.startswith("@"):  # a source route (RFC 5321 appendix C), or the rest of one
        text = text.partition(":")[2].strip("<> ")
    if "@" in text:
        found = _QUOTED.search(text) or _MAILBOX.search(text)
        text = found[1].strip(".") if found else text
        return "" if text.rpartition("@")[0].endswith("...") else text  # redacted, not an address
    return "" if text.lower() in ("unknown", "undisclosed", "n/a") else text


def _character(match: re.Match[str]) -> str:
    number = int(match[1], 16)
    return chr(number) if 0x20 < number < 0xD800 or 0xDFFF < number < 0x110000 else match[0]
