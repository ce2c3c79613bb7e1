"""The command that a host's reply answers, as mail systems tell it around the reply: in a sentence, or in a transcript.

What refuses a recipient after RCPT, MAIL, DATA or at once means different things. Names of commands are RFC 5321's.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from avro.records import SmtpPhase
from postroad.feedback.text import ADDRESS

Phase = SmtpPhase | Literal[""]

_COMMANDS: dict[str, Phase] = {
    "connect": "connect", "banner": "connect", "greeting": "connect", "initial": "connect", "opening": "connect",
    "helo": "ehlo", "ehlo": "ehlo", "lhlo": "ehlo", "starttls": "starttls", "auth": "ehlo",
    "mail": "mail", "rcpt": "rcpt", "recipient": "rcpt",
    "data": "body", "end": "body", "final": "body", "message": "body", "body": "body", "bdat": "body", ".": "body",
}  # fmt: skip
_TOLD = re.compile(
    # Postfix; Exim; Exchange, PowerMTA and others; KumoMTA, OpenSMTPD
    r"\bin\s+(?:reply|response|answer)\s+to\s+(?:the |an? )?(?P<reply>end\s+of\s+data|mail|rcpt|data|helo|ehlo|lhlo|starttls|auth|bdat|message)\b"
    r"|\b(?:remote|mail|smtp|error)[\w :]{0,40} (?:after|in response to) (?:pipelined |sending |the )?(?P<after>initial connection|end of data|mail from|rcpt to|rcpt command|mail command|data|helo|ehlo|starttls|auth|message)\b"
    r"|\b(?:during|while|in|at) (?:the )?(?:smtp )?(?P<during>banner|greeting|connect|helo|ehlo|starttls|mail(?: from)?|rcpt(?: to)?|data|message|body|opening) (?:phase|stage|command|wait|connection|transaction)\b"
    r"|\brefused to talk to me\b(?P<talk>)|\bdoes not like recipient\b(?P<like>)|\bfailed after i sent the message\b(?P<sent>)"
    # A heading for the command that failed, the command below or behind it
    r"|^[ \t]{0,8}[-=*#]{2,20}[ \t]*(?:last |failed |smtp |the )*command(?: (?:sent|line|used))?[ \t:*=#-]{0,20}\n[ \t]{0,8}(?P<headed>MAIL|RCPT|DATA|BDAT|HELO|EHLO|STARTTLS|AUTH)\b"
    # A transcript: a command, and the refusal below it
    r"|^[ \t>]{0,8}(?:>>>|->|-->|C:|Sent:?|SMTP command:)[ \t]*(?P<command>MAIL FROM|RCPT TO|DATA|BDAT|HELO|EHLO|LHLO|STARTTLS|AUTH|\.(?=\s|$))[^\n]{0,500}\n(?:[^\n<]{0,200}\n)?[ \t>]{0,8}(?:<<<|<-|<--|S:|Received:?|Response:)[ \t]*[45]\d\d(?P<next>[^\n]{0,600}(?:\n(?![ \t>]{0,8}>>>)[^\n]{0,600}){0,8})",
    re.IGNORECASE | re.MULTILINE,
)
_NO_RECIPIENT = re.compile(r"<<<[ \t]*50[0-5][ -][^\n]{0,40}(?:recipient|rcpt)", re.IGNORECASE)
_TEXT_MAX = 6_000


def phase_of(text: str) -> Phase:
    """The phase of the first refusal whose command a text names; empty where it names none."""
    found = _TOLD.search(text[:_TEXT_MAX])
    if not found:
        return ""
    if found["talk"] is not None:
        return "banner"
    if found["like"] is not None:
        return "rcpt"
    if found["sent"] is not None:
        return "body"
    name = found["reply"] or found["after"] or found["during"] or found["headed"] or found["command"] or ""
    phase = _COMMANDS.get(name.lower().split()[0], "")
    if phase == "body" and found["command"] and _NO_RECIPIENT.search(found["next"]):
        return "rcpt"  # commands were pipelined: what DATA seems to have met are the replies to RCPT
    return phase


def phases(addresses: Sequence[str], text: str) -> list[Phase]:
    """The phase of each of `addresses` that a report's text tells: of several, in the lines from one that names the address
    up to one that names another."""
    if len(addresses) == 1:
        return [phase_of(text)]
    text = text[: 4 * _TEXT_MAX]
    if not _TOLD.search(text):
        return [""] * len(addresses)
    names = {address.lower() for address in addresses}
    named = [
        (text.rfind("\n", 0, at.start()) + 1, name) for at in ADDRESS.finditer(text) if (name := at[0].lower()) in names
    ]
    told: dict[str, Phase] = {}
    for (begin, name), (end, _) in pairwise([*named, (len(text), "")]):
        if not told.get(name):
            told[name] = phase_of(text[begin:end])
    return [told.get(address.lower(), "") for address in addresses]
