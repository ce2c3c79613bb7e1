"""Bounces: what an MX's reply, or what a DSN says of a recipient, means for the message and for the recipient's address.

RFC 3463 and the IANA registry of enhanced status codes; RFC 5321 4.2; RFC 3464. Rules decide, in their order, and a small
text model where no rule does; it says "undetermined" when unsure. Replies before MAIL and anything about our address or
our pace are about us: a deferral, never a bounce of the recipient.
"""

from postroad.bounces.index import RULES
from postroad.bounces.judge import ABOUT_US, REFUSED_US, BounceOutcome, Judgement, Verdict, classify, judge, matching
from postroad.bounces.reasons import REASONS, BounceClass, Reason
from postroad.bounces.rules import Rule

__all__ = [
    "ABOUT_US",
    "REASONS",
    "REFUSED_US",
    "RULES",
    "BounceClass",
    "BounceOutcome",
    "Judgement",
    "Reason",
    "Rule",
    "Verdict",
    "classify",
    "judge",
    "matching",
]
