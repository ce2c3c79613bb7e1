"""The account: what was sent, what the ledger says became of it, what lies at the farm. Pure, no broker and no files."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from loadtest.demo.ledger import Life
from loadtest.demo.plan import Planned
from loadtest.mxfarm import DkimResult, Receipt
from postroad.ids import message_id
from postroad.intake import distinct
from postroad.returnpath import named

SHOWN = 5  # examples of each kind of difference
SIGNATURES = 2  # each tenant signs with RSA and Ed25519


class Acknowledged(TypedDict):
    """A line of the producer: the place in the plan, and what Kafka answered."""

    index: int
    partition: int
    offset: int
    timestamp: int


@dataclass(frozen=True)
class Expected:
    """A message that must exist, since Kafka has acknowledged its submission."""

    kind: str
    recipient: str
    ends: frozenset[str]
    waits: bool


@dataclass
class Account:
    """Message ids. `lost`: without an end, or called delivered and not at the farm; `in_flight`: accepted, without an end;
    `twice`: more than one end; `second`: receipts beyond a message's first, `unflagged`: those that no event admits;
    `differs`: everything else that is not as planned, in words."""

    ends: Counter[str] = field(default_factory=Counter)
    accepted: int = 0
    in_flight: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    second: list[str] = field(default_factory=list)
    unflagged: list[str] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)

    @property
    def duplicates(self) -> int:
        """Mails or ends too many."""
        return len(self.unflagged) + len(self.twice)


def expected(plan: Sequence[Planned], acknowledged: Iterable[Acknowledged]) -> dict[str, Expected]:
    """The messages by their ids, which follow from what Kafka has answered."""
    found = {}
    for at in acknowledged:
        planned, place = plan[at["index"]], f"{at['partition']}:{at['offset']}"
        if planned.submission is None or not planned.ends:
            continue
        one = planned.submission
        for recipient in distinct(one["recipients"]):
            address = recipient["address"]
            id = message_id(at["timestamp"], one["tenant"], one["submission_id"], place, address)
            ends = planned.ends.get(address) or planned.ends["*"]
            found[id] = Expected(planned.kind, address, ends, planned.waits)
    return found


def account(
    wanted: Mapping[str, Expected], lives: Mapping[str, Life], receipts: Iterable[tuple[Receipt, Sequence[DkimResult]]]
) -> Account:
    """Compare the three. `receipts` with the results of their signatures."""
    found = Account(accepted=sum(life.accepted for life in lives.values()))
    mails: dict[str, list[tuple[Receipt, Sequence[DkimResult]]]] = defaultdict(list)
    for receipt, signatures in receipts:
        mails[named(receipt.mail_from)].append((receipt, signatures))

    for id, life in lives.items():
        found.ends.update([life.end] if life.accepted and life.end else [])
        if life.accepted and not life.ends:
            found.in_flight.append(id)
        if len(life.ends) > 1:
            found.twice.append(id)
    for id in wanted.keys() | {id for id, life in lives.items() if life.accepted}:
        life, taken = lives.get(id, Life()), [receipt for receipt, _ in mails[id] if receipt.answered]
        if not life.ends or (life.end == "delivered" and not taken):
            found.lost.append(id)
    for id, taken_all in mails.items():
        more = [id] * (len(taken_all) - 1)
        found.second += more
        found.unflagged += more if id not in lives or not lives[id].flagged else []

    _compare_plan(found, wanted, lives)
    _compare_farm(found, wanted, lives, mails)
    return found


def _compare_plan(found: Account, wanted: Mapping[str, Expected], lives: Mapping[str, Life]) -> None:
    missing = [one.kind for id, one in wanted.items() if id not in lives or not lives[id].accepted]
    _tell(found, "acknowledged by Kafka, but without an event `accepted`", missing)
    _tell(found, "messages that nobody sent", [id for id, life in lives.items() if life.accepted and id not in wanted])
    _tell(found, "messages that ended but were never accepted", [id for id, life in lives.items() if not life.accepted])
    others: dict[str, list[str]] = defaultdict(list)
    for id, one in wanted.items():
        for end in lives[id].ends if id in lives else ():
            if not one.ends & {end, end.partition("/")[0]}:
                others[f"{one.kind}: planned {' or '.join(sorted(one.ends))}, ended as {end}"].append(
                    f"{id} to {one.recipient}"
                )
    for what, which in sorted(others.items()):
        _tell(found, what, which)


def _compare_farm(
    found: Account, wanted: Mapping[str, Expected], lives: Mapping[str, Life],
    mails: Mapping[str, list[tuple[Receipt, Sequence[DkimResult]]]],
) -> None:  # fmt: skip
    strangers = [f"{id or '?'} to {taken[0][0].recipient}" for id, taken in mails.items() if taken and id not in lives]
    _tell(found, "mails at the farm that no event knows", strangers)
    undelivered = [id for id, taken in mails.items() if taken and id in lives and lives[id].end != "delivered"]
    _tell(found, "mails at the farm that the ledger does not call delivered", undelivered)
    unsigned = [
        f"{id} to {receipt.recipient}: {'; '.join(s.error or s.algorithm for s in signatures) or 'none'}"
        for id, taken in mails.items()
        for receipt, signatures in taken
        if len(signatures) < SIGNATURES or not all(signature.valid for signature in signatures)
    ]
    _tell(found, f"mails without {SIGNATURES} valid DKIM signatures", unsigned)


def _tell(found: Account, what: str, which: list[str]) -> None:
    if which:
        more = f", and {len(which) - SHOWN} more" if len(which) > SHOWN else ""
        found.differs.append(f"{what}: {len(which)} ({', '.join(which[:SHOWN])}{more})")


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` (0 to 1) of all do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
