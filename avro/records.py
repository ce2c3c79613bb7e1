"""The records of the road as decoded: dictionaries with these keys. Times are UTC in milliseconds since 1970.

Written by `python -m avro.generate` from the schemas; change those. A field with a default may be left out when writing.
"""

from typing import Literal, NotRequired, TypedDict


class ApiKey(TypedDict):
    """A key that a tenant's programs use at the front doors. Its secret is shown once and stored hashed. Key: its
    id; compacted."""

    key_id: str
    tenant: str
    hash: str
    scopes: list[str]
    streams: NotRequired[list[str]]
    created_at: int
    expires_at: NotRequired[int | None]
    revoked_at: NotRequired[int | None]
    test_mode: NotRequired[bool]
    name: NotRequired[str]
    rate_per_second: NotRequired[float]

MessageStream = Literal["transactional", "broadcast"]


class Content(TypedDict):
    """A whole mail, or a built one without the header lines of one recipient alone, referred to by its hash."""

    hash: str
    size: int
    inline: NotRequired[bytes | None]
    blob: NotRequired[str | None]


class Score(TypedDict):
    """What score found in the content."""

    value: float
    rules: list[str]
    model: NotRequired[str]


class Route(TypedDict):
    """Where a message goes next, and from where."""

    site: str
    shard: int
    hosts: list[str]
    pool: str
    source: str


class Message(TypedDict):
    """One recipient of a submission on its way. Stages add their part and pass it on."""

    message_id: str
    tenant: str
    submission_id: str
    stream: MessageStream
    accepted_at: int
    recipient: str
    recipient_domain: NotRequired[str]
    sender: str
    return_path: str
    top: NotRequired[bytes]
    content: Content
    tags: NotRequired[list[str]]
    metadata: NotRequired[dict[str, str]]
    send_at: NotRequired[int | None]
    expires_at: int
    egress_pool: NotRequired[str]
    attempt: NotRequired[int]
    round: NotRequired[int]
    possible_duplicate: NotRequired[bool]
    cleared: NotRequired[bool]
    released: NotRequired[bool]
    score: NotRequired[Score | None]
    route: NotRequired[Route | None]
    test: NotRequired[bool]

SmtpPhase = Literal["dns", "connect", "banner", "ehlo", "starttls", "mail", "rcpt", "data", "body", "done"]


class Attempt(TypedDict):
    """The result of one delivery attempt, written by send and judged by classify."""

    message: Message
    at: int
    duration_ms: int
    phase: SmtpPhase
    reply_code: NotRequired[int]
    enhanced_code: NotRequired[str]
    reply: NotRequired[str]
    mx_host: NotRequired[str]
    mx_address: NotRequired[str]
    tls: NotRequired[str]
    possible_duplicate: NotRequired[bool]
    source: NotRequired[str]
    shaping: NotRequired[str]
    phases: NotRequired[dict[str, int]]
    decision: NotRequired[str]


class RecordHeader(TypedDict):
    """A header of a Kafka record."""

    name: str
    value: bytes


class Resolution(TypedDict):
    """What an operator did with a dead letter. It comes as a second record of the same key, without value."""

    action: str
    by: str
    why: str
    at: int
    place: NotRequired[str]


class DeadLetter(TypedDict):
    """A record that a stage could not process, kept whole."""

    stage: str
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: NotRequired[list[RecordHeader]]
    error: str
    text: str
    at: int
    source: NotRequired[str]
    resolution: NotRequired[Resolution | None]

DecisionAction = Literal["release", "drop", "cancel"]


class Decision(TypedDict):
    """What was decided about one message on its way: by an operator, or by ingest when a submission replaces an
    older one."""

    message_id: str
    recipient: str
    action: DecisionAction
    by: str
    at: int
    reason: NotRequired[str]

DkimAlgorithm = Literal["rsa", "ed25519"]


class DkimKey(TypedDict):
    """A DKIM key (RFC 6376)."""

    selector: str
    algorithm: DkimAlgorithm
    private_key: str
    active: NotRequired[bool]


class SenderDomain(TypedDict):
    """A domain that the tenant may send from."""

    domain: str
    return_path: NotRequired[str]
    dkim: NotRequired[list[DkimKey]]


class DomainClaim(TypedDict):
    """A domain that a tenant says is its own and that DNS has not confirmed yet: nothing is sent from it. Key:
    tenant, NUL, domain; compacted, a tombstone where it was confirmed or given up."""

    tenant: str
    own: SenderDomain
    claimed_at: int

EndKind = Literal["dropped", "rejected", "expired", "cancelled"]


class Ending(TypedDict):
    """What a stage found to be the end of a message. classify writes the event of the first one, and of no other:
    one writer per message."""

    message: Message
    kind: EndKind
    at: int
    stage: str
    reason: str
    rule: NotRequired[str]
    detail: NotRequired[str]

EventKind = Literal["accepted", "validated", "scored", "held", "released", "cleared", "routed", "scheduled", "deferred", "delivered", "bounced", "dropped", "rejected", "expired", "cancelled", "reported", "complained", "late_bounce", "noted"]


class Event(TypedDict):
    """One step of one message, or feedback on it. Every event of a message has the message id as key; an event
    noted is about no message."""

    event_id: str
    message_id: str
    tenant: str
    submission_id: str
    stream: MessageStream
    kind: EventKind
    at: int
    accepted_at: int
    round: NotRequired[int]
    attempt: NotRequired[int]
    recipient: str
    recipient_domain: NotRequired[str]
    stage: str
    reason: NotRequired[str]
    rule: NotRequired[str]
    detail: NotRequired[str]
    site: NotRequired[str]
    pool: NotRequired[str]
    source: NotRequired[str]
    mx_host: NotRequired[str]
    mx_address: NotRequired[str]
    reply_code: NotRequired[int]
    enhanced_code: NotRequired[str]
    reply: NotRequired[str]
    tls: NotRequired[str]
    duration_ms: NotRequired[int]
    possible_duplicate: NotRequired[bool]
    size: NotRequired[int]
    due_at: NotRequired[int | None]
    tags: NotRequired[list[str]]
    metadata: NotRequired[dict[str, str]]
    shaping: NotRequired[str]
    phases: NotRequired[dict[str, int]]
    bounce_class: NotRequired[str]
    evidence: NotRequired[str]

GradeLevel = Literal["ok", "warn", "hold"]


class Grade(TypedDict):
    """Where a subject of reputation stands: by its counts (key: the subject), or by an operator's word, which goes
    first (key: pin, space, the subject). A subject without one is ok."""

    subject: str
    level: GradeLevel
    since: int
    pinned: NotRequired[bool]
    until: NotRequired[int | None]
    by: NotRequired[str]
    reason: NotRequired[str]
    day: NotRequired[int]
    sent_today: NotRequired[int]
    bounced_today: NotRequired[int]
    complained_today: NotRequired[int]

IdempotentStep = Literal["claim", "answer", "release"]


class IdempotentUse(TypedDict):
    """One step of a request that was sent with an Idempotency-Key: what replicas of a front door know of each
    other. The order of the topic decides."""

    digest: str
    step: IdempotentStep
    tenant: str
    claimant: str
    body: NotRequired[str]
    submission_id: str
    partition: NotRequired[int]
    offset: NotRequired[int]
    accepted_at: NotRequired[int | None]

JobStep = Literal["created", "claimed", "progressed", "cancelled", "ended"]


class Job(TypedDict):
    """One step of a job: a file of mails that a front door was given. The order of the topic decides which process
    runs it."""

    job_id: str
    tenant: str
    step: JobStep
    by: NotRequired[str]
    input: NotRequired[str]
    format: NotRequired[str]
    message: NotRequired[str]
    test: NotRequired[bool]
    streams: NotRequired[list[str]]
    lines: NotRequired[int]
    accepted: NotRequired[int]
    refused: NotRequired[int]
    refusals: NotRequired[list[str]]
    outcome: NotRequired[str]
    error: NotRequired[str]


class KeyUse(TypedDict):
    """When a key was used last, to within a minute. Key: the key's id; compacted."""

    key_id: str
    tenant: str
    used_at: int
    door: NotRequired[str]


class Notification(TypedDict):
    """One event for one endpoint: to be delivered (mail.notifications), or what came of a try (mail.notified). Key:
    id of the endpoint."""

    notification_id: str
    webhook_id: str
    tenant: str
    type: str
    at: int
    body: NotRequired[str]
    attempt: NotRequired[int]
    outcome: NotRequired[str]
    tried_at: NotRequired[int | None]
    status: NotRequired[int]
    error: NotRequired[str]
    duration_ms: NotRequired[int]

OrderAction = Literal["suspend", "flush", "bounce"]


class Order(TypedDict):
    """What an operator has ordered about all mail of a site, a tenant, a source, or of several of them together. A
    suspension is in force until its time or its tombstone."""

    order_id: str
    action: OrderAction
    site: NotRequired[str]
    tenant: NotRequired[str]
    source: NotRequired[str]
    by: str
    at: int
    until: NotRequired[int | None]
    reason: NotRequired[str]


class RateUse(TypedDict):
    """How many requests a replica of a front door has let pass since it last said so."""

    replica: str
    uses: dict[str, int]


class Report(TypedDict):
    """A mail that came back to a return path or to a feedback address: a DSN (RFC 3464), a complaint (RFC 5965) or
    anything else, as the inbound MX took it."""

    report_id: str
    received_at: int
    mail_from: str
    rcpt_to: str
    content: Content
    peer: NotRequired[str]
    helo: NotRequired[str]
    tls: NotRequired[str]
    message_id: NotRequired[str]


class Bucket(TypedDict):
    """Counts of an hour, or of a UTC day. What is in a day is in none of its hours."""

    at: int
    hours: int
    sent: NotRequired[int]
    delivered: NotRequired[int]
    deferred: NotRequired[int]
    hard: NotRequired[int]
    soft: NotRequired[int]
    complained: NotRequired[int]


class Reputation(TypedDict):
    """What one partition of classify has counted of a subject (a tenant, a sender domain, a source, a source at a
    site). The sum over the partitions is the subject's."""

    subject: str
    partition: int
    at: int
    buckets: NotRequired[list[Bucket]]


class Reschedule(TypedDict):
    """Another send_at for a message that waits for its own. Key: the message id."""

    message_id: str
    tenant: str
    send_at: int
    by: str
    at: int

ReturnTo = Literal["accepted", "validated", "scored"]


class Scheduled(TypedDict):
    """A message that waits: for its time, for a place at its site, for the next try, or for an operator."""

    message: Message
    at: int
    due_at: NotRequired[int | None]
    reason: str
    return_to: NotRequired[ReturnTo]


class Mailbox(TypedDict):
    """A mail address and the name shown with it."""

    address: str
    name: NotRequired[str]

RecipientKind = Literal["to", "cc", "bcc"]


class Recipient(TypedDict):
    """One recipient of a submission."""

    address: str
    name: NotRequired[str]
    kind: NotRequired[RecipientKind]
    variables: NotRequired[dict[str, str]]


class Header(TypedDict):
    """A header field."""

    name: str
    value: str


class Attachment(TypedDict):
    """A file that travels with the mail."""

    filename: str
    content_type: NotRequired[str]
    content: bytes | str
    content_id: NotRequired[str]

DedupePolicy = Literal["reject", "replace"]


class Submission(TypedDict):
    """What a producer asks Postroad to send: one mail to up to 1,000 recipients. Written to mail.submissions with
    the tenant id (UTF-8) as key."""

    tenant: str
    submission_id: str
    stream: NotRequired[MessageStream]
    sender: Mailbox
    reply_to: NotRequired[list[Mailbox]]
    recipients: list[Recipient]
    subject: NotRequired[str]
    text: NotRequired[str | None]
    html: NotRequired[str | None]
    raw: NotRequired[bytes | None]
    headers: NotRequired[list[Header]]
    attachments: NotRequired[list[Attachment]]
    tags: NotRequired[list[str]]
    metadata: NotRequired[dict[str, str]]
    send_at: NotRequired[int | None]
    expires_at: NotRequired[int | None]
    dedupe_id: NotRequired[str | None]
    dedupe_policy: NotRequired[DedupePolicy]
    egress_pool: NotRequired[str | None]
    raw_blob: NotRequired[str | None]
    test: NotRequired[bool]

SuppressionAction = Literal["add", "remove"]

SuppressionReason = Literal["hard_bounce", "complaint", "unsubscribe", "manual", "soft_bounces"]


class Suppression(TypedDict):
    """What is said of an address and a suppression list: a reason to stop mail to it, or that it is taken off. Key:
    the recipient. mail.suppressed has what follows."""

    recipient: str
    tenant: NotRequired[str]
    action: NotRequired[SuppressionAction]
    reason: SuppressionReason
    at: int
    evidence: str
    detail: NotRequired[str]
    expires_at: NotRequired[int | None]
    source: NotRequired[str]
    by: NotRequired[str]
    cause: NotRequired[str]
    message_id: NotRequired[str]


class SuppressionEvidence(TypedDict):
    """One thing that the entry rests on."""

    evidence: str
    reason: SuppressionReason
    at: int
    source: NotRequired[str]
    message_id: NotRequired[str]


class SuppressionEntry(TypedDict):
    """An address on a suppression list, as it is in force now. Key: tenant, NUL, address; compacted, a tombstone
    where it was taken off. One whose time is over stays until then."""

    recipient: str
    tenant: NotRequired[str]
    reason: SuppressionReason
    since: int
    at: int
    expires_at: NotRequired[int | None]
    source: NotRequired[str]
    by: NotRequired[str]
    cause: NotRequired[str]
    detail: NotRequired[str]
    evidence: NotRequired[list[SuppressionEvidence]]


class Tenant(TypedDict):
    """A customer of the platform and what it may do. Key: its id; compacted."""

    tenant: str
    name: NotRequired[str]
    contact: NotRequired[str]
    active: NotRequired[bool]
    domains: NotRequired[list[SenderDomain]]
    egress_pool: NotRequired[str]
    hold_score: NotRequired[float]
    reject_score: NotRequired[float]
    quota_per_second: NotRequired[float]
    quota_per_day: NotRequired[int]
    quota_waiting_max_s: NotRequired[int]
    dedupe_window_s: NotRequired[int]
    suppress_after: NotRequired[int]
    soft_bounces_after: NotRequired[int]
    soft_bounces_days: NotRequired[int]

WebhookKind = Literal["hmac", "ed25519"]


class WebhookSecret(TypedDict):
    """A secret that signs; every one in force adds a signature."""

    secret: str
    until: NotRequired[int | None]


class Webhook(TypedDict):
    """An endpoint of a tenant that is told of events by HTTP (Standard Webhooks). Key: its id; compacted."""

    webhook_id: str
    tenant: str
    url: str
    types: NotRequired[list[str]]
    kind: WebhookKind
    secrets: list[WebhookSecret]
    created_at: int
    updated_at: int
    concurrency: NotRequired[int]
    description: NotRequired[str]
    disabled_at: NotRequired[int | None]
    disabled_reason: NotRequired[str]


class WriterSchema(TypedDict):
    """A schema that somebody writes with, published before the first record of it, so that workers of an older
    release can read that. Key: its fingerprint; compacted. This record itself never changes: it is what all
    releases have in common."""

    fingerprint: str
    name: str
    schema: str
