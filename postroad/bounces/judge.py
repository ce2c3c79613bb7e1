"""What an SMTP reply, or what a DSN says of a recipient, means for the message and for the recipient's address."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple

from avro.records import SmtpPhase
from postroad.bounces import doubts, model
from postroad.bounces.index import RULES, index
from postroad.bounces.reasons import REASONS, BounceClass
from postroad.bounces.rules import Rule
from postroad.bounces.words import words_of
from postroad.reply import BEFORE_MAIL, MAX_TEXT, Reply

# hard: the recipient is bad for good, and becomes a suppression. soft: refused for good this time, an end without
# suppression. deferral: to be tried again.
BounceOutcome = Literal["delivered", "hard", "soft", "deferral"]

ABOUT_US: frozenset[SmtpPhase] = frozenset({"dns", "connect", "banner", "ehlo", "starttls"})

REFUSED_US = "refused-us"  # reason of a permanent reply before MAIL that no rule about us knows

HARD_SURE = 0.9  # of the model: below it, nobody is suppressed on its word

# Codes that speak of the address (RFC 3463 3.2, and those of providers)
OF_ADDRESS = ("1.", "4.4", "4.310", "7.27")

_STATUS = re.compile(r"(?<![\d.])[245]\.(\d\.\d{1,3})(?![\d.])")
_CODE = re.compile(r"(?<![\d.:\[])([45][0-5]\d)(?=[ \-#:])")
# A reply inside what an MTA writes around it, and where the next one begins: sendmail appends what later commands met
_QUOTED = re.compile(r"(?:^|[\s:'\"(\[>])([45][0-5]\d)(?=[ \-:]+(?:#?[45]\.\d|[A-Z<\"\[(:]|[45]\d\d |[a-z]{2}))")
_NEXT = re.compile(r"\s(?:354|421|503|554)[ -](?=[45]\.\d\.\d|[A-Z]|need|RCPT|\S+ \(e?smtp\))")
_MEANS_RECIPIENT = re.compile(
    r"recipient|\brcpt\b(?! to)|destination|addressee|name server|<[^<>@\s]+@[^<>\s]+>\.\.\.", re.IGNORECASE
)
_STATED = re.compile(r"^\d\.\d\.\d - [A-Z][a-z ]+ '(.+)'")  # Amazon SES
_PHASES = (
    ("data", ("end of data", "final data", "after i sent the message", "to data command", "after data")),
    ("mail", ("to mail from", "after mail from", "our mail from", "mail from command")),
    ("rcpt", ("rcpt to", "rejected recipient", "does not like recipient")),
    ("connect", ("initial connection", "refused to talk to me", "after ehlo", "after helo", "my name was rejected")),
)


AT_CONNECT = frozenset(rule.name for rule in RULES if rule.phase == ("connect",))


class Judgement(NamedTuple):
    """Class and reason, the rule that says so ("model" or "unknown-5xx" where none does), and how sure that is (0 to 1)."""

    bounce_class: BounceClass
    reason: str
    rule: str
    confidence: float


class Verdict(NamedTuple):
    """The outcome of an attempt, why, the name of the rule that says so, and how sure that is (0 to 1)."""

    outcome: BounceOutcome
    reason: str
    rule: str
    confidence: float = 1.0


class _Found(NamedTuple):
    rule: Rule | None
    reason: str
    name: str
    confidence: float
    doubtful: bool


@lru_cache(maxsize=4096)  # a host says the same of many recipients
def _found(code: int, status: str, text: str, phase: str, site: str) -> _Found:
    if not code and (found := _CODE.search(text)):
        code = int(found[1])
    if not status and (found := _STATUS.search(text)):
        status = f"5.{found[1]}"
    detail = status[2:]
    if detail == "0.0":
        detail = ""  # says nothing (RFC 3463 3.1)
    phase = phase or _told(text)
    words = words_of(inner_of(text))
    line = f" {' '.join(words)} "
    for number in index().matching(words, line):
        rule = RULES[number]
        if rule.fits(code, detail, phase, site, text):
            confidence = 0.95 if rule.phrases else 0.8 if rule.status else 0.6
            doubtful = _is_doubtful(rule.reason, words, line, text, rule.sure)
            if not doubtful and code and not rule.sure and REASONS[rule.reason].bounce_class == "hard":
                # one witness, the words: then they must say nothing else
                doubtful = not detail.startswith(OF_ADDRESS) and doubts.says_more(inner_of(text))
            return _Found(rule, rule.reason, rule.name, confidence, doubtful)
    reason, confidence = model.guess(code, status, words)
    first = str(code)[0] if code else status[:1] or "?"
    name = "model" if reason != "undetermined" else f"unknown-{first}xx"
    return _Found(None, reason, name, confidence, _is_doubtful(reason, words, line, text))


def _is_doubtful(reason: str, words: list[str], line: str, text: str, sure: bool = False) -> bool:
    return REASONS[reason].bounce_class == "hard" and (
        (not sure and doubts.in_doubt(words, line)) or doubts.of_a_check(text)
    )


def _told(text: str) -> str:
    """The phase that an MTA names in its report."""
    lower = text.lower()
    for phase, names in _PHASES:
        for name in names:
            if name in lower:
                return phase
    return ""


def inner_of(text: str) -> str:
    """The host's reply in what an MTA tells of it; else the text itself."""
    if found := _STATED.match(text):
        return found[1]
    if found := _QUOTED.search(text):
        end = _NEXT.search(text, found.end() + 12)
        return text[found.start(1) : end.start() if end else len(text)]
    return text


def _phase(phase: SmtpPhase | str) -> str:
    return "connect" if phase in BEFORE_MAIL else "data" if phase == "body" else phase


def matching(reply: Reply) -> Rule | None:
    """The first rule that knows the reply, if any does."""
    return _found(reply.code, reply.enhanced[:16], reply.text[:MAX_TEXT], "", "").rule


def judge(
    code: int, status: str, text: str, *, action: str = "", phase: SmtpPhase | Literal[""] = "", site: str = ""
) -> Judgement:
    """What `text` (a reply's text, or a DSN's diagnostic) with reply code `code` (0: unknown) and enhanced status code
    `status` ("": unknown) says of the recipient.

    `phase`: the command that it answers, where known. `action`: RFC 3464 2.3.3, where a field says so. `site`: who runs the host.
    Nothing that is temporary, a delay or in doubt is hard; "failed" ends what was temporary: the host has heard of no such user
    as long as it tried.
    """
    found = _found(code, status[:16], text[:MAX_TEXT], _phase(phase), site)
    bounce_class = REASONS[found.reason].bounce_class
    temporary = action == "delayed" or 400 <= code < 500 or (not code and status.startswith("4"))
    if temporary and action == "failed" and found.reason == "user-unknown" and found.rule and found.rule.phrases:
        temporary = False
    guessed = found.rule is None and found.confidence < HARD_SURE
    other_domain = found.reason in ("host-unknown", "null-mx") and _is_another_domain(
        found, _phase(phase) or _told(text), status, text
    )
    if bounce_class == "hard" and (temporary or found.doubtful or guessed or other_domain):
        bounce_class = "soft"
    return Judgement(bounce_class, found.reason, found.name, found.confidence)


def _is_another_domain(found: _Found, phase: str, status: str, text: str) -> bool:
    """Whether a domain or host that is unknown may be the sender's, or one in the mail: so where RCPT was taken. Who answers RCPT is
    the recipient's host, so its domain is there, unless a code or a word says that it is meant."""
    if phase in ("mail", "data"):
        return True
    if phase != "rcpt" or found.reason != "host-unknown" or not (found.rule and found.rule.phrases):
        return False
    status = status or (f"5.{told[1]}" if (told := _STATUS.search(text)) else "")
    return not status[2:].startswith(("1.2", "1.10", "4.")) and _MEANS_RECIPIENT.search(text) is None


def classify(reply: Reply | None, phase: SmtpPhase, site: str = "") -> Verdict:
    """The verdict on an attempt that ended in `phase` with `reply` (None or code 0: the host did not reply)."""
    if phase == "done":
        return Verdict("delivered", "delivered", "accepted")
    if reply is None or reply.code == 0:
        return Verdict("deferral", "network", "no-reply")
    about_us = phase in ABOUT_US
    found = _found(reply.code, reply.enhanced[:16], reply.text[:MAX_TEXT], _phase(phase), site)
    tried_again = found.rule.tried_again if found.rule else REASONS[found.reason].action == "retry"
    reason, name = found.reason, found.name
    if about_us and reply.permanent and (not tried_again or found.name in AT_CONNECT):
        return Verdict("deferral", REFUSED_US, name, found.confidence)  # whatever it says: it knows no message yet
    if about_us or not reply.permanent or tried_again:
        if reason == "undetermined":
            reason = "system-error"
        return Verdict("deferral", reason, name, found.confidence)
    hard = judge(reply.code, reply.enhanced, reply.text, phase=phase, site=site).bounce_class == "hard"
    # Before RCPT nothing was said about the recipient, so its address is not at fault
    return Verdict("hard" if hard and phase != "mail" else "soft", reason, name, found.confidence)
