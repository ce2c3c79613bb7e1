"""What goes into and comes out of one SMTP transaction, as values.

RFC 5321 4.2 (replies), RFC 2034 and RFC 3463 (enhanced status codes), RFC 6531 (SMTPUTF8).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from avro.records import SmtpPhase

MAX_TEXT = 1_000  # characters of a reply that are kept; it travels in events and logs

# How an attempt ended: the host replied, or the name of what went wrong before it could.
Outcome = Literal[
    "replied",
    "no-address",  # no MX host has an address that the source can reach
    "connect-failed",
    "connection-limit",  # no connection of the site came free, or might be opened, in time
    "connection-lost",
    "timeout",
    "tls-failed",  # STARTTLS is required, and the host does not offer it, refused it, or the handshake failed
    "protocol-error",  # the host does not speak SMTP
    # Not sent, as the host cannot take it; the reply is our own:
    "no-smtputf8",
    "no-8bitmime",
    "too-large",
    "local",  # no host could: the address does not fit into a command
]

BEFORE_MAIL: frozenset[SmtpPhase] = frozenset({"connect", "banner", "ehlo", "starttls"})
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]+")
_ENHANCED = re.compile(r"\s*#?([245]\.\d{1,3}\.\d{1,3})(?:[\s:,;]+|$)")


@dataclass(frozen=True, slots=True)
class Reply:
    """An SMTP reply: code (0: there was none), enhanced code (may be empty), text (lines joined by newlines)."""

    code: int
    enhanced: str
    text: str

    @classmethod
    def parse(cls, code: int, text: str) -> "Reply":
        """From a reply's code and text; takes the enhanced code off the text where it agrees with the code."""
        if not text.isascii():  # surrogates, which nothing else can encode
            text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        text = _CONTROL.sub("\ufffd", text)  # NUL, escape sequences: not for logs and terminals
        found = _ENHANCED.match(text)
        if found is None or found[1][0] != str(code)[0]:
            return cls(code, "", text[:MAX_TEXT])
        enhanced = found[1]
        lines = text[found.end() :].split("\n")
        # RFC 2034 4: every line of a multi-line reply repeats the code
        return cls(code, enhanced, "\n".join(line.removeprefix(enhanced).strip() for line in lines)[:MAX_TEXT])

    @property
    def positive(self) -> bool:
        """2xx: done."""
        return 200 <= self.code < 300

    @property
    def temporary(self) -> bool:
        """4xx, or no reply at all: may work later."""
        return self.code == 0 or 400 <= self.code < 500

    @property
    def permanent(self) -> bool:
        """5xx: will not work this way."""
        return 500 <= self.code < 600

    def __str__(self) -> str:
        return " ".join(part for part in (str(self.code) if self.code else "", self.enhanced, self.text) if part)


@dataclass(frozen=True, slots=True)
class Envelope:
    """MAIL FROM and RCPT TO, domains as A-labels; `smtputf8` where headers or a local part need RFC 6531."""

    mail_from: str
    rcpt_to: str
    smtputf8: bool = False

    @property
    def needs_smtputf8(self) -> bool:
        """Whether a host without SMTPUTF8 cannot take it."""
        return self.smtputf8 or not (self.mail_from.isascii() and self.rcpt_to.isascii())


@dataclass(frozen=True, slots=True)
class Step:
    """Where a connection or a transaction ended (the phase of the last command, or done), how, and the reply."""

    phase: SmtpPhase
    outcome: Outcome
    reply: Reply


def failed(phase: SmtpPhase, outcome: Outcome, text: str) -> Step:
    """A step without a reply: its code is 0, its text names the outcome."""
    return Step(phase, outcome, Reply(0, "", f"{outcome}: {text}"[:MAX_TEXT]))


@dataclass(frozen=True, slots=True)
class Result:
    """One delivery attempt of one message.

    phase "done" is the only success. phase "body" with outcome other than "replied" means that the host may have the
    message: trying again may deliver it twice. `phases`: ms in each phase that was gone through, of all hosts tried.
    """

    phase: SmtpPhase
    outcome: Outcome
    reply: Reply
    mx_host: str = ""
    mx_address: str = ""
    tls: str = ""
    duration_ms: int = 0
    reused: bool = False
    phases: Mapping[str, int] = field(default_factory=dict)

    @property
    def about_us(self) -> bool:
        """The host refused the connection, before it knew of any message: the source is not welcome at the site."""
        return self.outcome == "replied" and self.phase in BEFORE_MAIL

    @property
    def delivered(self) -> bool:
        """The host took the message."""
        return self.phase == "done"

    @property
    def possible_duplicate(self) -> bool:
        """The connection broke where the host may have taken the message already."""
        return self.phase == "body" and self.outcome != "replied"
