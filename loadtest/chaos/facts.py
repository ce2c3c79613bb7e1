"""What the topics say of every message, for the tables to be held against: `Facts`, and how they are read.

Outputs of a stage are told where a table tells of them; told once more, nothing changes. Inputs are told where a table is a fold
of them, in their order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from analytics.reading import Reader
from avro.records import Attempt, Decision, Ending, Event, Message, Scheduled, Submission, Suppression, Tenant
from loadtest.chaos import reading
from loadtest.chaos.reading import Letters
from postroad import addresses, suppression
from postroad.events import ENDS
from postroad.ids import message_id
from postroad.intake import distinct, written
from tables import deliveries
from topics.catalogue import (
    ACCEPTED,
    ATTEMPTS,
    CANCELLATIONS,
    CLEARED,
    DECISIONS,
    ENDINGS,
    EVENTS,
    SCHEDULED,
    SCORED,
    SUBMISSIONS,
    SUPPRESSIONS,
    TENANTS,
    VALIDATED,
    Topic,
)  # fmt: skip
from topics.installation import Installation

SEND_PARKS = frozenset({"rate-limit", "connection-limit", "content"})  # reasons, of what returns to scored


class Submitted(NamedTuple):
    """A submission in the log: its place and time (ms), its ids, and (message id, recipient) of its messages."""

    partition: int
    offset: int
    at: int
    tenant: str
    submission_id: str
    dedupe_id: str | None
    messages: list[tuple[str, str]]


class Try(NamedTuple):
    """The last round that send has written about; `outcomes`: what it may have kept of it. `until`: at least so long (ms)."""

    round: int
    outcomes: frozenset[bool]
    until: int


@dataclass
class Facts:
    """What the topics tell, by message id where nothing else is said. `ends`: (kind, round) and its time; `cleared`: highest
    round; `stopped`: ends that suppress found; both with the message's expires_at; `admitted`: tenant; `scheduled`: highest round
    that came to schedule, `released` that it gave back, `over`: ends that it found; `entries`: of lists, in order."""

    submitted: list[Submitted] = field(default_factory=list)
    tenants: dict[str, Tenant] = field(default_factory=dict)
    admitted: dict[str, str] = field(default_factory=dict)
    over_quota: set[str] = field(default_factory=set)
    ends: dict[str, dict[tuple[str, int], int]] = field(default_factory=dict)
    cleared: dict[str, tuple[int, int]] = field(default_factory=dict)
    stopped: dict[str, int] = field(default_factory=dict)
    tries: dict[str, Try] = field(default_factory=dict)
    scheduled: dict[str, int] = field(default_factory=dict)
    released: dict[str, int] = field(default_factory=dict)
    over: set[str] = field(default_factory=set)
    entries: list[Suppression] = field(default_factory=list)
    cancellations: dict[str, Decision] = field(default_factory=dict)
    decisions: dict[str, Decision] = field(default_factory=dict)

    def tenant(self, name: str) -> Tenant:
        """Its settings; of one that there is not, the defaults."""
        return self.tenants.get(name) or {"tenant": name}

    # of outputs
    def cleared_one(self, message: Message) -> None:
        id, round = message["message_id"], message["round"]
        if (before := self.cleared.get(id)) is None or before[0] < round:
            self.cleared[id] = round, message["expires_at"]

    def ended_one(self, event: Event) -> None:
        if event["kind"] in ENDS:
            self.ends.setdefault(event["message_id"], {})[event["kind"], event["round"]] = event["at"]

    def ending(self, ending: Ending) -> None:
        id, message = ending["message"]["message_id"], ending["message"]
        if ending["reason"] == "dead-letter":
            return  # an operator's, whatever stage it names
        if ending["stage"] == "suppress":
            self.stopped[id] = message["expires_at"]
        elif ending["stage"] == "send":
            self.tried_one(message, False)
        elif ending["stage"] == "schedule":
            self.over.add(id)
        elif ending["reason"] == "quota":
            self.over_quota.add(id)

    def attempt(self, attempt: Attempt) -> None:
        self.tried_one(attempt["message"], attempt["phase"] == "done")

    def tried_one(self, message: Message, delivered: bool) -> None:
        id, round, before = message["message_id"], message["round"], self.tries.get(message["message_id"])
        if before is None or before.round < round:
            self.tries[id] = Try(round, frozenset({delivered}), message["expires_at"] + deliveries.KEPT_MS)
        elif before.round == round:
            self.tries[id] = before._replace(outcomes=before.outcomes | {delivered})

    def parked(self, entry: Scheduled) -> None:
        """mail.scheduled as an output: of ingest or send."""
        message = entry["message"]
        if entry["reason"] == "quota":
            self.admitted[message["message_id"]] = message["tenant"]
        elif entry["reason"] in SEND_PARKS and entry["return_to"] == "scored":
            self.tried_one(message, False)

    def accepted(self, message: Message) -> None:
        """mail.accepted: of ingest, or of schedule."""
        self.admitted[message["message_id"]] = message["tenant"]
        self.back(message)

    def back(self, message: Message) -> None:
        id = message["message_id"]
        self.released[id] = max(self.released.get(id, 0), message["round"])

    # of inputs
    def came_to_schedule(self, entry: Scheduled) -> None:
        id = entry["message"]["message_id"]
        self.scheduled[id] = max(self.scheduled.get(id, 0), entry["message"]["round"])

    def submission(self, record: Any, one: Submission) -> None:
        place, messages = f"{record.partition}:{record.offset}", []
        for recipient in distinct(one["recipients"]):
            id = message_id(record.timestamp, one["tenant"], one["submission_id"], place, recipient["address"])
            messages.append((id, written(recipient["address"])))
        self.submitted.append(Submitted(record.partition, record.offset, record.timestamp, one["tenant"],
                                        one["submission_id"], one["dedupe_id"], messages))  # fmt: skip

    def listed(self, record: Any, entry: Suppression) -> None:
        if record.key == addresses.key(entry["recipient"]).encode():  # else it was sent on to the partition of its mail
            self.entries.append(suppression.dated(entry, record.timestamp))


async def read(installation: Installation, letters: Letters) -> Facts:
    """Read all topics that tables tell of. A stage's dead letters are no inputs of it; refused outputs count as written."""
    found = Facts()

    def cancelled_here(record: Any, decision: Decision) -> None:
        found.cancellations[decision["message_id"]] = decision

    def decided(record: Any, decision: Decision) -> None:
        if decision["action"] == "cancel":
            found.decisions[decision["message_id"]] = decision

    def configured(record: Any, value: Tenant) -> None:
        found.tenants[value["tenant"]] = value

    outputs: dict[Topic[Any], Any] = {
        ACCEPTED: found.accepted, VALIDATED: found.back, SCORED: found.back, CLEARED: found.cleared_one,
        ATTEMPTS: found.attempt, ENDINGS: found.ending, SCHEDULED: found.parked, EVENTS: found.ended_one,
    }  # fmt: skip
    inputs: dict[Topic[Any], tuple[str, Any]] = {
        TENANTS: ("", configured), SUBMISSIONS: ("ingest", found.submission), SUPPRESSIONS: ("suppress", found.listed),
        CANCELLATIONS: ("suppress", cancelled_here), DECISIONS: ("schedule", decided),
        SCHEDULED: ("schedule", lambda record, entry: found.came_to_schedule(entry)),
    }  # fmt: skip
    async with Reader(installation) as reader:
        for topic in outputs.keys() | inputs.keys():
            tell, (stage, fold) = outputs.get(topic), inputs.get(topic, ("", None))
            async for record, value in reader.read(topic):
                if tell is not None:
                    tell(value)
                if fold is not None and (stage, reading.place(record)) not in letters.inputs:
                    fold(record, value)
    codecs = installation.codecs(tuple(outputs))
    for topic, tell in outputs.items():
        for raw in letters.outputs.get(installation.name(topic), ()):
            tell(codecs[topic].decode(raw))
    return found
