"""What a report says, as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from postroad.addresses import key
from postroad.bounces import Judgement

# bounce: at least one recipient failed. delay: the host still tries. vacation: an automatic reply or a challenge.
# other: anything else, such as notices of success, read receipts, list traffic and spam.
Kind = Literal["bounce", "complaint", "delay", "vacation", "other"]
FeedbackType = Literal["abuse", "fraud", "not-spam", "auth-failure", "virus", "opt-out", "other"]
Action = Literal["failed", "delayed", "delivered", "relayed", "expanded", ""]

MAX_RECIPIENTS = 100  # of one report; a report of ours has one
MAX_DIAGNOSTIC = 1_000  # characters


@dataclass(frozen=True, slots=True)
class Recipient:
    """One recipient of a report. `address`: the final one, as the report writes it; `original`: as the sender named it, where
    the report says so; `status`: RFC 3463, empty where unknown; `reply_code`: 0 where unknown."""

    address: str
    judgement: Judgement
    original: str = ""
    action: Action = ""
    status: str = ""
    reply_code: int = 0
    diagnostic: str = ""
    remote_mta: str = ""

    def is_about(self, recipient: str) -> bool:
        """Whether it speaks of `recipient`: who knows a return path can send a report there, about anyone."""
        return key(recipient) in (key(self.address), key(self.original))


@dataclass(frozen=True, slots=True)
class Complaint:
    """What an ARF report or a provider's own form says of the message. Empty where it does not; providers redact recipients."""

    feedback_type: FeedbackType
    user_agent: str = ""
    source_ip: str = ""
    original_mail_from: str = ""
    original_rcpt_to: tuple[str, ...] = ()
    reported_domain: str = ""
    arrival: str = ""


@dataclass(frozen=True, slots=True)
class Original:
    """What the returned or reported message says of itself, empty where it was not found. `mark`: our own header; `fields`:
    first value of each header field by lower-case name."""

    message_id: str = ""
    feedback_id: str = ""
    mark: str = ""
    return_path: str = ""
    sender: str = ""
    recipients: tuple[str, ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Feedback:
    """A report. `recipients`: of a bounce or delay those it names, of a complaint those that complained, as far as it says.
    `rule`: what told the kind: dsn, dsn-in-text, failed-recipients, text, original, ses, arf, fbl-form..."""

    kind: Kind
    rule: str
    recipients: tuple[Recipient, ...] = ()
    complaint: Complaint | None = None
    original: Original = field(default_factory=Original)
