"""What an MX's reply means for the message and for its recipient.

RFC 3463 and the IANA registry of enhanced status codes; RFC 5321 4.2. Rules are data, the first that matches decides,
each with a sample reply that a test classifies. Replies before MAIL and anything about our address or our pace are
about us: a deferral, never a bounce of the recipient.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from avro.records import SmtpPhase
from postroad.reply import MAX_TEXT, Reply

# hard: the recipient is bad for good, and becomes a suppression. soft: refused for good this time, an end without
# suppression. deferral: to be tried again.
BounceOutcome = Literal["delivered", "hard", "soft", "deferral"]

ABOUT_US: frozenset[SmtpPhase] = frozenset({"dns", "connect", "banner", "ehlo", "starttls"})

REFUSED_US = "refused-us"  # reason of a permanent reply before MAIL that no rule about us knows


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of an attempt, why, and the name of the rule that says so."""

    outcome: BounceOutcome
    reason: str
    rule: str


@dataclass(frozen=True, slots=True)
class Rule:
    """Matches where every pattern that is given does: `code` and `enhanced` from their start, `text` anywhere."""

    name: str
    outcome: BounceOutcome  # of a permanent reply; a temporary one is a deferral whatever it says
    reason: str
    sample: str
    text: str = ""
    enhanced: str = ""
    code: str = ""


# Order: what is about us (addresses, pace, authentication) comes before what is about the recipient, since block
# replies often name the recipient or carry a recipient's enhanced code. Words of the text come before enhanced codes:
# hosts choose codes loosely (552 5.1.1 for a full mailbox), but write the words for people.
RULES: Sequence[Rule] = (
    Rule(
        "greylisted",
        "deferral",
        "greylisted",
        "451 4.7.1 Greylisting in action, please come back later",
        text=r"gr[ae]y-?\s?list|postgrey|first[- ]time sender|try again in \d+ (?:seconds|minutes)",
    ),
    Rule(
        "greylisted-briefly",  # rspamd says "4.7.1 Try again later", Exim and OpenBSD's spamd no more than that without a code
        "deferral",
        "greylisted",
        "451 4.7.1 Try again later",
        text=r"^(?:temporar(?:y failure|ily (?:deferred|rejected))\W+)?(?:please )?(?:try again|retry|come back) later\W*$",
        enhanced=r"5(?:\.7\.[01])?$",
        code="45[01]",
    ),
    Rule(
        "too-many-connections",
        "deferral",
        "too-many-connections",
        "421 4.7.0 Too many concurrent SMTP connections",
        text=r"too many (?:concurrent |simultaneous |smtp |open |parallel )*(?:connections|sessions)"
        r"|(?:connection|session) (?:limit|count)|trop de connexions|maximum (?:number of )?connections",
    ),
    Rule(
        "rate-limited",
        "deferral",
        "rate-limited",
        "450 4.2.1 The user you are trying to contact is receiving mail at a rate that prevents delivery",
        text=r"rate[- ]?limit|\btoo (?:fast|many (?:messages|e?mails|invalid|unknown|bad|errors|recipients this))|throttl"
        r"|slow down|at a rate that|sending (?:rate|limit|quota)|(?:hourly|daily|message) (?:limit|quota) (?:reached|exceeded)"
        r"|(?:exceeded|over) .{0,40}(?:rate|messages per)|unusual rate|excessive (?:rate|volume|connections)",
    ),
    Rule(
        "tls-required",
        "deferral",  # we speak TLS; it failed this time
        "tls-required",
        "530 5.7.0 Must issue a STARTTLS command first",
        text=r"(?:must|please|required? to|to) (?:issue|use|start|send) (?:a )?(?:start)?tls"
        r"|(?:start)?tls (?:is )?(?:required|needed|mandatory)|encryption (?:is )?(?:required|needed)",
    ),
    Rule(
        "virus",
        "soft",
        "virus",
        "554 5.7.1 Message contains a virus: Eicar-Test-Signature",
        text=r"\bvirus(?:es)?\b|malware|\binfected\b|\btrojan\b",
    ),
    Rule(
        "domain-listed",
        "soft",
        "spam-detected",
        "554 5.7.1 Service unavailable; Sender address [user@example.com] blocked using dbl.spamhaus.org",
        # a list of domains or links: about what is in the mail, the same from any address of ours
        text=r"\b(?:dbl\.spamhaus|multi\.(?:uribl|surbl)|surbl|uribl|dbl|rhsbl)\b"
        r"|(?:url|link|uri|domain)s?\b.{0,40}(?:black|block)[- ]?list",
    ),
    Rule(
        "auth-failure",
        "soft",
        "auth-failure",
        "550 5.7.26 This mail is unauthenticated: SPF and DKIM did not pass",
        text=r"\bdmarc\b|\bdkim\b|\bspf\b|anti-?spoof|sender policy framework|unauthenticated (?:e?mail|sender)"
        r"|not authenticated|fails? authentication|authentication[- ](?:failed|checks? fail)",
    ),
    Rule(
        "auth-failure-code",
        "soft",
        "auth-failure",
        "550 5.7.23 Message refused",
        enhanced=r"5\.7\.(?:2[0-46-9]|30)$",
    ),
    Rule(
        "rdns",
        "deferral",
        "blocked",
        "550 5.7.25 The IP address sending this message does not have a PTR record",
        text=r"\bptr\b|reverse[- ](?:dns|lookup|hostname|name)|\brdns\b|helo.{0,30}(?:invalid|reject|not)"
        r"|cannot find your (?:host|reverse)",
    ),
    Rule(
        "blocked-list",
        "deferral",
        "blocked",
        "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org",
        text=r"spamhaus|spamcop|sorbs\b|barracuda|cloudmark|\bcsi\.|invaluement|hostkarma|spamrl|proofpoint\.com|uceprotect"
        r"|senderscore|mimecast.{0,40}reputation|symantec|\b(?:d?ns)?[rd]?bls?\b|dnsbls?|block[- ]?list|block list"
        r"|black[- ]?list|\bblack list|deny[- ]?list|listed (?:at|in|on|by)|mail-abuse|\(BL\)|s3150",
    ),
    Rule(
        "blocked-address",
        "deferral",
        "blocked",
        "550 5.7.606 Access denied, banned sending IP [192.0.2.1]",
        text=r"\bbanned\b|(?:poor|bad|low) (?:sender )?reputation|reputation (?:is )?(?:poor|bad|low)|bad ip\b|not allowed to connect"
        r"|your (?:ip|host|server|access|network|domain)\b.{0,60}(?:block|reject|den|refus|spam|bann)"
        r"|(?:\bip|\bhost|\bclient|\bconnection|(?<!relay )\baccess)\b.{0,40}\b(?:block|blocked|denied|banned|refused)\b"
        r"|:blocked\)|rejected by this user|access to .{0,60}has been (?:rejected|denied)|blocked by geoip",
    ),
    Rule(
        "mailbox-full",
        "soft",
        "mailbox-full",
        "552 5.2.2 The email account that you tried to reach is over quota",
        text=r"(?:mailbox|mail ?box|inbox|quota|account|storage|bo[iî]te).{0,50}(?:\bfull\b|exceed|over|pleine|limit|insufficient)"
        r"|(?:over|exceed\w*|out of|insufficient).{0,30}(?:quota|storage|disk)|\boverquota|over the maximum allowed",
    ),
    Rule(
        "message-too-big",
        "soft",
        "message-too-big",
        "552 5.3.4 Message size exceeds fixed maximum message size",
        text=r"(?:message|mail|size|attachment|content).{0,40}(?:too (?:big|large|long)|exceed.{0,30}(?:size|limit|maximum))"
        r"|(?:maximum|max) (?:message )?size",
    ),
    Rule(
        "spam-detected",
        "soft",
        "spam-detected",
        "554 5.7.1 Message rejected as spam",
        text=r"\b(?:junk|bulk)[- ]?(?:e?-?mail)?\b|\bspam|\bunsolicited|\bphish|content (?:was )?(?:rejected|blocked|filter)"
        r"|(?:rejected|refused|blocked).{0,30}content|suspicious",
    ),
    Rule(
        "suspended",
        "hard",
        "suspended",
        "550 5.2.1 The email account that you tried to reach is disabled",
        text=r"(?:account|mailbox|user|recipient|address)\b.{0,60}\b(?:disabled|inactive|suspended|deactivated|locked|expired|closed|frozen"
        r"|not active|no longer (?:active|available|valid|in use|used))|(?:inactive|disabled|suspended) (?:account|mailbox|user|recipient)",
    ),
    Rule(
        "relay-denied",
        "soft",
        "relay-denied",
        "554 5.7.1 <user@example.com>: Relay access denied",
        # soft: a domain moved to a new host with an old MX record says so for every recipient
        text=r"relay(?:ing)? (?:access )?(?:is )?(?:denied|prohibited|not (?:permitted|allowed)|not accepted)|(?:unable|cannot|not permitted) to relay"
        r"|(?:do(?:es)? not|don't) relay|rcpthosts|not (?:a )?(?:local|gateway)|we do not relay",
    ),
    Rule(
        "dns-error",
        "deferral",
        "network",
        "550 DNS error when resolving MX server for example.com",
        text=r"\b(?:dns|mx)\b.{0,20}(?:error|fail|timeout|timed out)|temporary lookup failure",
    ),
    Rule(
        "bad-sender",
        "soft",
        "bad-sender",
        "550 5.1.0 <b-1@bounce.example.com>: Sender address rejected: Domain not found",
        text=r"sender (?:address|domain|e-?mail)\b.{0,60}(?:reject|invalid|unknown|not |does|refused|unverif)|sender (?:rejected|denied|verify failed)"
        r"|(?:sender|mail from|return path|envelope from)\b.{0,30}(?:invalid|rejected|refused|not accept|unknown)",
    ),
    Rule(
        "host-unknown",
        "hard",
        "host-unknown",
        "550 5.1.2 Bad destination host: no such domain",
        text=r"(?:host|domain)(?: name)? (?:is )?(?:unknown|not found|does(?: not|n't) exist|invalid)"
        r"|(?:unknown|no such|invalid|bad)(?: destination)? (?:host|domain)",
    ),
    Rule(
        "user-unknown",
        "hard",
        "user-unknown",
        "550 5.1.1 <nobody@example.com>: Recipient address rejected: User unknown in virtual mailbox table",
        text=r"(?:user|recipient|mailbox|address|account|alias|addressee|person|destinataire)s?\b.{0,60}\b(?:unknown|unavailable|not (?:found|exist|valid|known|listed|local|here)"
        r"|does(?: not|n't) exist|doesn't have|invalid|undeliverable|inconnu)"
        r"|(?:no such|unknown|invalid|not a valid|bad|nonexistent|non-existent|no) (?:local )?(?:user|recipient|mailbox|address|account|person|destination)\b"
        r"|(?:not|n't) have an? .{0,40}account|recipient rejected|no mailbox here|not our customer|unrouteable address|adresse.{0,60}invalide",
    ),
    Rule(
        "policy",
        "soft",
        "policy",
        "550 5.7.1 Message rejected due to local policy",
        text=r"\bpolic(?:y|ies)\b|not (?:authori[sz]ed|allowed|permitted) to send|administrative(?:ly)? (?:prohibit|denied)|prohibited",
    ),
    Rule("moved", "hard", "moved", "551 5.1.6 Gone away", enhanced=r"5\.1\.6$"),
    Rule("user-unknown-code", "hard", "user-unknown", "550 5.1.1 Nope", enhanced=r"5\.1\.(?:0|1|3|10)$"),
    Rule("host-unknown-code", "hard", "host-unknown", "550 5.1.2 Nope", enhanced=r"5\.1\.2$"),
    Rule("suspended-code", "hard", "suspended", "550 5.2.1 Nope", enhanced=r"5\.2\.1$"),
    Rule("mailbox-full-code", "soft", "mailbox-full", "552 5.2.2 Nope", enhanced=r"5\.2\.2$"),
    Rule("too-big-code", "soft", "message-too-big", "552 5.3.4 Nope", enhanced=r"5\.(?:2\.3|3\.4)$"),
    Rule("sender-refused-code", "soft", "bad-sender", "550 5.1.8 Nope", enhanced=r"5\.1\.[78]$"),
    Rule("smtputf8-code", "soft", "smtputf8", "553 5.6.7 Nope", enhanced=r"5\.6\.7$"),
    Rule("content-code", "soft", "content", "554 5.6.0 Nope", enhanced=r"5\.6\."),
    Rule("tls-required-code", "deferral", "tls-required", "550 5.7.10 Nope", enhanced=r"5\.7\.1[01]$"),
    Rule("policy-code", "soft", "policy", "550 5.7.1 Nope", enhanced=r"5\.7\."),
    Rule("routing-code", "soft", "network", "554 5.4.6 Routing loop detected", enhanced=r"5\.4\."),
    Rule("system-code", "soft", "system-error", "554 5.3.0 Nope", enhanced=r"5\.[35]\."),
    Rule("mailbox-full-552", "soft", "mailbox-full", "552 Requested mail action aborted", code="552"),
    Rule("no-mail-host", "hard", "host-unknown", "556 Domain does not accept mail", code="556|521"),  # RFC 7504
)


def _compiled(pattern: str) -> re.Pattern[str] | None:
    return re.compile(pattern, re.IGNORECASE) if pattern else None


_COMPILED = tuple((rule, _compiled(rule.code), _compiled(rule.enhanced), _compiled(rule.text)) for rule in RULES)


@lru_cache(maxsize=4096)  # a host says the same of many recipients; the rules take 0.1 ms
def matching(reply: Reply) -> Rule | None:
    """The first rule that knows the reply, if any does."""
    # "4.2.2" means what "5.2.2" does, as far as the reason goes (RFC 3463 2)
    enhanced = f"5{reply.enhanced[1:]}"
    for rule, code, detail, text in _COMPILED:
        if (
            (code is None or code.match(str(reply.code)))
            and (detail is None or detail.match(enhanced))
            and (text is None or text.search(reply.text))
        ):
            return rule
    return None


def classify(reply: Reply | None, phase: SmtpPhase) -> Verdict:
    """The verdict on an attempt that ended in `phase` with `reply` (None or code 0: the host did not reply)."""
    if phase == "done":
        return Verdict("delivered", "delivered", "accepted")
    if reply is None or reply.code == 0:
        return Verdict("deferral", "network", "no-reply")
    rule = matching(
        Reply(reply.code, reply.enhanced[:MAX_TEXT], reply.text[:MAX_TEXT])
    )  # 1 MB takes 3 s and stays in the cache
    reason = rule.reason if rule else "undetermined" if reply.permanent else "system-error"
    name = rule.name if rule else f"unknown-{str(reply.code)[0]}xx"
    if phase in ABOUT_US and reply.permanent and (rule is None or rule.outcome != "deferral"):
        return Verdict("deferral", REFUSED_US, name)  # whatever it says: it knows no message yet
    if phase in ABOUT_US or not reply.permanent:
        return Verdict("deferral", reason, name)
    outcome = rule.outcome if rule else "soft"
    # Before RCPT nothing was said about the recipient, so its address is not at fault
    return Verdict("soft" if phase == "mail" and outcome == "hard" else outcome, reason, name)
