"""Every topic of the road: name, key, schema, partitions, retention, compaction. No topic name is spelled anywhere else.

A key is what a limit or a list is about, so that one worker owns its state. Topics that one stage reads together, and the
changelog of its state, have the same number of partitions, for life: faust.md 9.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from avro.records import (
    ApiKey,
    Attempt,
    DeadLetter,
    Decision,
    DomainClaim,
    Ending,
    Event,
    Grade,
    IdempotentUse,
    Job,
    KeyUse,
    Message,
    Notification,
    Order,
    RateUse,
    Report,
    Reputation,
    Reschedule,
    Scheduled,
    Submission,
    Suppression,
    SuppressionEntry,
    Tenant,
    Webhook,
    WriterSchema,
)

T = TypeVar("T")

DAY_MS = 86_400_000
MIB = 1 << 20


class Output(NamedTuple):
    """One record that a stage wants written: `value` as decoded, None for a tombstone."""

    topic: Topic[Any]
    key: bytes
    value: Any
    headers: tuple[tuple[str, bytes], ...] = ()


_new = tuple.__new__  # half the time of Output(...)


@dataclass(frozen=True, eq=False)
class Topic(Generic[T]):
    """One topic. `name` is without the prefix of an installation; `schema` a name in avro/, or the schema itself.

    `partitions`: a fixed number, or None for the installation's setting (all keyed topics of the road).
    `max_bytes`: max.message.bytes, the limit of one record batch. The broker's clock stamps the records: retention goes by it,
    and a writer's clock may be a week behind.
    """

    name: str
    schema: str | dict[str, Any]
    key: Callable[[T], str]
    partitions: int | None = None
    retention_ms: int = 7 * DAY_MS
    compacted: bool = False
    max_bytes: int = MIB
    config: dict[str, str] = field(default_factory=dict)

    def send(self, value: T, *, headers: tuple[tuple[str, bytes], ...] = ()) -> Output:
        """The output of a handler: `value` under the key that this topic's records have."""
        return _new(Output, (self, self.key(value).encode(), value, headers))

    def configuration(self) -> dict[str, str]:
        """Topic settings as Kafka names them."""
        return {
            "cleanup.policy": "compact" if self.compacted else "delete",
            "retention.ms": str(-1 if self.compacted else self.retention_ms),
            "max.message.bytes": str(self.max_bytes),
            "message.timestamp.type": "LogAppendTime",
            # the broker unpacks what a producer compressed, and holds it against max.message.bytes as we would see it
            "compression.type": "uncompressed",
            **self.config,
        }


def _recipient(message: Message) -> str:
    return message["recipient"].lower()


def _site(message: Message) -> str:
    route = message.get("route")
    if route is None:
        raise ValueError(f"message {message['message_id']} has no route: only route writes to mail.outbound")
    return f"{route['site']}#{route['shard']}"


def _message_of(return_path: str) -> str:
    """The message id that a return path names: b-<message id>-<tag>@<domain>, in any case; classify looks at the tag."""
    local = return_path.rpartition("@")[0].lower()
    return local[2:].partition("-")[0] if local.startswith("b-") else ""  # as postroad.returnpath.named


def _letter(letter: DeadLetter) -> str:
    """The id of a dead letter: the place of the record; of a refused output, that of its input and what it is."""
    return letter.get("source") or f"{letter['topic']}[{letter['partition']}]@{letter['offset']}"


# A submission with its attachments is one record of up to 8 MiB; larger files go by reference (postroad/content.py).
SUBMISSIONS: Topic[Submission] = Topic("mail.submissions", "Submission", lambda s: s["tenant"], max_bytes=8 * MIB)
# Broadcast submissions have a topic of their own: ingest leaves them there while the road behind it is long.
BROADCASTS: Topic[Submission] = Topic("mail.broadcasts", "Submission", lambda s: s["tenant"], max_bytes=8 * MIB)
ACCEPTED: Topic[Message] = Topic("mail.accepted", "Message", _recipient)
VALIDATED: Topic[Message] = Topic("mail.validated", "Message", _recipient)
SCORED: Topic[Message] = Topic("mail.scored", "Message", _recipient)
SUPPRESSIONS: Topic[Suppression] = Topic("mail.suppressions", "Suppression", lambda s: s["recipient"].lower())
# What the lists hold now: what the road reads is suppress's own table, this is for everybody else.
IN_FORCE: Topic[SuppressionEntry] = Topic(
    "mail.suppressed", "SuppressionEntry", lambda s: f"{s['tenant']}\0{s['recipient']}", compacted=True
)
CANCELLATIONS: Topic[Decision] = Topic("mail.cancellations", "Decision", lambda d: d["recipient"].lower())
CLEARED: Topic[Message] = Topic("mail.cleared", "Message", lambda m: m.get("recipient_domain", ""))
OUTBOUND: Topic[Message] = Topic("mail.outbound", "Message", _site)
# The lane of broadcasts. Same key, so one worker of send has both lanes of a site, and its limits have one writer.
OUTBOUND_BROADCAST: Topic[Message] = Topic("mail.outbound-broadcast", "Message", _site)
ATTEMPTS: Topic[Attempt] = Topic("mail.attempts", "Attempt", lambda a: a["message"]["message_id"])
REPORTS: Topic[Report] = Topic("mail.reports", "Report", lambda r: r.get("message_id") or _message_of(r["rcpt_to"]))
# An event about no message (kind noted) has its own id, so that they do not all lie in one partition.
EVENTS: Topic[Event] = Topic(
    "mail.events", "Event", lambda e: e["message_id"] or e["event_id"], retention_ms=30 * DAY_MS)  # fmt: skip
SCHEDULED: Topic[Scheduled] = Topic("mail.scheduled", "Scheduled", lambda s: s["message"]["message_id"])
ENDINGS: Topic[Ending] = Topic("mail.endings", "Ending", lambda e: e["message"]["message_id"])
RESCHEDULES: Topic[Reschedule] = Topic("mail.reschedules", "Reschedule", lambda r: r["message_id"])
DECISIONS: Topic[Decision] = Topic("mail.decisions", "Decision", lambda d: d["message_id"])
# Whatever could not be processed, byte for byte, so it takes the largest record of any topic and what we say about it.
DEAD_LETTERS: Topic[DeadLetter] = Topic(
    "mail.dead-letters", "DeadLetter", _letter,
    partitions=1, retention_ms=30 * DAY_MS, max_bytes=9 * MIB)  # fmt: skip
TENANTS: Topic[Tenant] = Topic("control.tenants", "Tenant", lambda t: t["tenant"], partitions=1, compacted=True)
# What classify has counted, by subject and partition; what was not told again for a month is over.
REPUTATION: Topic[Reputation] = Topic(
    "mail.reputation", "Reputation", lambda r: f"{r['subject']}\0{r['partition']}", partitions=1, compacted=True,
    config={"cleanup.policy": "compact,delete", "retention.ms": str(32 * DAY_MS)})  # fmt: skip
# The steps that follow, and operators' pins.
STANDINGS: Topic[Grade] = Topic(
    "control.standings",
    "Grade",
    lambda g: f"pin {g['subject']}" if g.get("pinned") else g["subject"],
    partitions=1,
    compacted=True,
)
ORDERS: Topic[Order] = Topic("control.orders", "Order", lambda o: o["order_id"], partitions=1, compacted=True)
WEBHOOKS: Topic[Webhook] = Topic("control.webhooks", "Webhook", lambda w: w["webhook_id"], partitions=1, compacted=True)
# Read together with mail.events by notify: one worker owns an endpoint, its queue, its circuit breaker.
NOTIFICATIONS: Topic[Notification] = Topic("mail.notifications", "Notification", lambda n: n["webhook_id"])
# What came of each try; the dead with their bodies, for a redrive.
NOTIFIED: Topic[Notification] = Topic(
    "mail.notified", "Notification", lambda n: n["webhook_id"], retention_ms=30 * DAY_MS)  # fmt: skip
# Keys of the front doors, and when each was used last: another topic, so that a use never undoes a revocation.
KEYS: Topic[ApiKey] = Topic("control.keys", "ApiKey", lambda k: k["key_id"], partitions=1, compacted=True)
KEY_USES: Topic[KeyUse] = Topic("control.key-uses", "KeyUse", lambda u: u["key_id"], partitions=1, compacted=True)
# What replicas of a front door tell each other: requests under an Idempotency-Key for a day, rates for as long as they matter.
IDEMPOTENT_USES: Topic[IdempotentUse] = Topic(
    "control.idempotent-uses", "IdempotentUse", lambda u: u["digest"], retention_ms=25 * DAY_MS // 24)  # fmt: skip
RATE_USES: Topic[RateUse] = Topic(
    "control.rate-uses", "RateUse", lambda u: u["replica"], partitions=1, retention_ms=DAY_MS // 24)  # fmt: skip
DOMAIN_CLAIMS: Topic[DomainClaim] = Topic(
    "control.domain-claims", "DomainClaim", lambda c: f"{c['tenant']}\0{c['own']['domain']}", partitions=1, compacted=True)  # fmt: skip
# Not compacted: which process runs a job follows from the order of all its steps.
JOBS: Topic[Job] = Topic("control.jobs", "Job", lambda j: j["job_id"], partitions=1, retention_ms=30 * DAY_MS)
SCHEMAS: Topic[WriterSchema] = Topic(
    "control.schemas", "WriterSchema", lambda s: s["fingerprint"], partitions=1, compacted=True
)

ALL: tuple[Topic[Any], ...] = (
    SUBMISSIONS, BROADCASTS, ACCEPTED, VALIDATED, SCORED, SUPPRESSIONS, IN_FORCE, CANCELLATIONS, CLEARED, OUTBOUND, OUTBOUND_BROADCAST, ATTEMPTS,
    REPORTS, EVENTS, SCHEDULED, ENDINGS, DECISIONS, RESCHEDULES, DEAD_LETTERS, TENANTS, ORDERS, SCHEMAS,
    REPUTATION, STANDINGS,
    WEBHOOKS, NOTIFICATIONS, NOTIFIED,
    KEYS, KEY_USES, IDEMPOTENT_USES, RATE_USES, DOMAIN_CLAIMS, JOBS,
)  # fmt: skip


def place_of(topic: str, partition: int, offset: int) -> str:
    """The place of a submission, as the ids of its messages have it: "partition:offset", of a broadcast with a "b" in front.
    `topic`: its full name, of an installation or without its prefix."""
    return f"{'b' if topic.endswith(BROADCASTS.name) else ''}{partition}:{offset}"


ORIGIN = "postroad-origin"  # header of a submission that comes from the copies or the log of a lost region: "time place what"
AGAIN, KNOWN = "again", "known"


class Origin(NamedTuple):
    """Where and when (ms) a submission was accepted first, which its ids are made of. `again`: that was in another region, and its mail
    may have left there; `known`: its messages are here already, it only belongs in the log."""

    place: str
    at: int
    again: bool = False
    known: bool = False


def origin(headers: Iterable[tuple[str, bytes]], place: str, at: int) -> Origin:
    """Of a record with these headers; `place`, `at`: its own. Raises ValueError for a header that does not say what it is to."""
    for name, value in headers:
        if name == ORIGIN:
            first_at, first, what = value.decode().split(" ")
            if what not in (AGAIN, KNOWN):
                raise ValueError(f"header {ORIGIN}: {what!r} is neither {AGAIN} nor {KNOWN}")
            return Origin(first, int(first_at), what == AGAIN, what == KNOWN)
    return Origin(place, at)
