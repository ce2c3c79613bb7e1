"""Why mail is not delivered: the reasons, what each means for the recipient's address, and how to react.

docs/reasons.md shows this table as `table()` writes it; a test compares them.
"""

from typing import Literal, NamedTuple

BounceClass = Literal["hard", "soft", "undetermined"]
"""Of the recipient's address. hard: bad for good. soft: refused this time. undetermined: nobody can tell."""

Action = Literal["suppress", "count", "retry", "none"]
"""suppress: stop mail to the address. count: so many of them over so many days stop it. retry: a permanent reply is
tried again all the same, as another time or another address of ours may do. none: an end that says nothing of the address."""


class Reason(NamedTuple):
    """One reason. `sisimai`: what Sisimai (5 and 4) calls it, each of its names in one row only."""

    name: str
    bounce_class: BounceClass
    action: Action
    meaning: str
    advice: str
    sisimai: tuple[str, ...] = ()


_TABLE = (
    Reason("user-unknown", "hard", "suppress", "no such mailbox", "take the address off every list", ("userunknown",)),
    Reason("host-unknown", "hard", "suppress", "the domain does not exist or has no mail host",
           "take the address off; look for a typing error in the domain", ("hostunknown",)),
    Reason("moved", "hard", "suppress", "the recipient has another address now", "ask for the new address; never follow it unasked", ("hasmoved",)),
    Reason("null-mx", "hard", "suppress", "the domain takes no mail at all (RFC 7504, 7505)", "take the address off", ("notaccept",)),
    Reason("suspended", "soft", "count", "the mailbox is disabled, suspended or inactive",
           "stop after a few: long unused mailboxes become spam traps", ("suspend",)),
    Reason("mailbox-full", "soft", "count", "the recipient's quota is used up",
           "try later; full for weeks means that nobody reads it", ("mailboxfull",)),
    Reason("filtered", "soft", "count", "the recipient's own settings refuse the mail after the address was taken",
           "ask the recipient to allow your address", ("filtered",)),
    Reason("bad-sender", "soft", "none", "the envelope sender or From address is refused",
           "check that the sender's domain exists, takes mail and is yours", ("rejected",)),
    Reason("message-too-big", "soft", "none", "the message or an attachment is too large", "send a link instead",
           ("mesgtoobig", "exceedlimit", "emailtoolarge")),
    Reason("system-full", "soft", "count", "the receiving host has no disk space", "try later", ("systemfull",)),
    Reason("spam-detected", "soft", "none", "the content is taken for spam", "look at content, links and consent of this campaign", ("spamdetected",)),
    Reason("virus", "soft", "none", "a virus was found in the message", "stop the campaign and look at its attachments", ("virusdetected",)),
    Reason("content", "soft", "none", "something in the message is malformed or not allowed", "mend headers, MIME structure or attachments", ("contenterror",)),
    Reason("not-rfc-compliant", "soft", "none", "headers break RFC 5322", "mend the header that the reply names", ("notcompliantrfc",)),
    Reason("policy", "soft", "none", "a rule of the receiving site", "read the reply: it names the rule or a page", ("policyviolation",)),
    Reason("security", "soft", "none", "refused for security: access denied, credentials, forbidden attachment",
           "read the reply: access, credentials or attachment", ("securityerror",)),
    Reason("auth-failure", "soft", "none", "SPF, DKIM or DMARC did not pass", "mend the domain's DNS records and alignment", ("authfailure",)),
    Reason("relay-denied", "soft", "none", "the host does not take mail for that domain",
           "look at the domain's MX: it may have moved", ("norelaying",)),
    Reason("blocked", "soft", "retry", "our address or host is refused or listed", "look for the source on the named list and ask for removal", ("blocked",)),
    Reason("bad-reputation", "soft", "retry", "the reputation of our address or domain is too low",
           "send less, only to those who read; ask the provider's postmaster page", ("badreputation",)),
    Reason("missing-ptr", "soft", "retry", "our address has no valid reverse DNS or HELO name", "set PTR and HELO of the source", ("requireptr",)),
    Reason("rate-limited", "soft", "retry", "too much mail in too little time", "slow down at this site", ("ratelimited", "speeding")),
    Reason("too-many-connections", "soft", "retry", "too many connections at once", "fewer connections to this site", ("toomanyconn",)),
    Reason("greylisted", "soft", "retry", "first contact: come back in some minutes", "nothing: the next try gets through"),
    Reason("tls-required", "soft", "retry", "TLS is wanted and did not come about", "look at STARTTLS of the source", ("failedstarttls",)),
    Reason("network", "soft", "retry", "the network or DNS between the hosts failed", "nothing, unless it lasts", ("networkerror",)),
    Reason("expired", "soft", "none", "no host took it in the time it had", "look whether the domain is still in use", ("expired",)),
    Reason("system-error", "soft", "none", "the receiving system has a fault", "nothing, unless it lasts", ("systemerror",)),
    Reason("mailer-error", "soft", "none", "a program behind the mailbox failed", "tell the recipient by another way", ("mailererror",)),
    Reason("syntax-error", "soft", "none", "the host did not understand a command", "tell the operators: a fault of one of the hosts", ("syntaxerror",)),
    Reason("smtputf8", "soft", "none", "the address needs SMTPUTF8 and the host has none", "use the recipient's ASCII address"),
    Reason("suppressed", "soft", "none", "a provider on the way has the address on its own list", "ask that provider", ("suppressed",)),
    Reason("feedback", "soft", "none", "a complaint, not a bounce", "never write to that recipient again", ("feedback",)),
    Reason("vacation", "soft", "none", "an automatic reply, not a bounce", "nothing", ("vacation",)),
    Reason("delivered", "undetermined", "none", "delivered, relayed or read", "nothing", ("delivered",)),
    Reason("refused-us", "soft", "retry", "a refusal before any message was named", "look at the source's address, HELO and PTR"),
    Reason("undetermined", "undetermined", "none", "refused, and nobody can tell why", "look at a few of the replies", ("undefined", "onhold")),
)  # fmt: skip

REASONS: dict[str, Reason] = {reason.name: reason for reason in _TABLE}
FROM_SISIMAI: dict[str, str] = {theirs: reason.name for reason in _TABLE for theirs in reason.sisimai}


def table() -> str:
    """The table of docs/reasons.md."""
    head = (
        "| reason | class | action | what it means | what a sender should do | Sisimai |\n|---|---|---|---|---|---|\n"
    )
    return head + "".join(
        f"| {one.name} | {one.bounce_class} | {one.action} | {one.meaning} | {one.advice} | {', '.join(one.sisimai) or '-'} |\n"
        for one in _TABLE
    )
