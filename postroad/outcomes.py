"""What becomes of a message that is to be sent: an attempt was made, or none, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from avro.records import Message
from postroad.bounces import classify
from postroad.departure import Leave, place_of, source_key, tenant_key
from postroad.reply import Reply, Result
from postroad.shaping.automatic import NEUTRAL, Action, Rule, Standing, judge
from postroad.shaping.policy import Policy

BUSY_MS = 3_000  # all connections of the site are in use; twice as long each round, as far as 16 times
REFUSED_MS = 60_000  # a site that turns a source away is not asked again for so long, where no rule says how long


class Sent(NamedTuple):
    """An attempt was made. `leave`: from where and by which limits; none where no host was asked. `before`: another source
    was turned away in the same attempt."""

    result: Result
    possible_duplicate: bool  # an earlier life of the worker may have sent it
    leave: Leave | None = None
    before: Sent | None = None

    @property
    def source(self) -> str:
        """Its name."""
        return self.leave.source.name if self.leave else ""

    @property
    def version(self) -> str:
        """Of the shaping policy."""
        return self.leave.version if self.leave else ""

    @property
    def bounced(self) -> bool:
        """The reply says that the recipient is not there."""
        return not self.result.delivered and classify(self.result.reply, self.result.phase).outcome == "hard"

    def each(self) -> Iterator[Sent]:
        """It and those before, the first one first."""
        if self.before is not None:
            yield from self.before.each()
        yield self


class Parked(NamedTuple):
    """Nothing was tried: not before `until` (ms)."""

    until: int
    reason: str
    possible_duplicate: bool


class Expired(NamedTuple):
    """Nothing was tried: its time is over."""

    possible_duplicate: bool


def told(outcome: Sent | Parked | Expired | None) -> tuple[dict[str, str | int], Mapping[str, int] | None]:
    """What a trace tells of it: where it was tried and how that ended, and ms in each phase of SMTP; None where nothing was tried. Replies
    stay out: they quote addresses."""
    if isinstance(outcome, Parked):
        return {"postroad.outcome": f"parked: {outcome.reason}"}, None
    if not isinstance(outcome, Sent):
        return {"postroad.outcome": "expired" if outcome else "was tried before"}, None
    result = outcome.result
    return {
        "postroad.outcome": "delivered" if result.delivered else result.outcome, "postroad.phase": result.phase,
        "postroad.source": outcome.source, "postroad.possible_duplicate": outcome.possible_duplicate, "server.address": result.mx_host,
        "network.peer.address": result.mx_address, "smtp.reply_code": result.reply.code, "smtp.enhanced_code": result.reply.enhanced,
        "tls.cipher": result.tls,
    }, result.phases  # fmt: skip


def local(reply: Reply) -> Result:
    """Our own word about the message, in the phase where the SMTP client has its own: a 5xx ends the message."""
    return Result("mail", "local", reply)


def busy(message: Message, now: int, possible_duplicate: bool) -> Parked:
    """No connection of the site is free: back later, and not all at the same time."""
    pause = BUSY_MS << min(message["round"], 4)
    return Parked(now + pause + int(message["message_id"][-4:], 32) % pause, "connection-limit", possible_duplicate)


def refused_until(rules: Iterable[Rule], result: Result, now: int) -> int:
    """How long (ms) a source stays away that was turned away just now."""
    standing, _ = judge(rules, NEUTRAL, result.phase, result.reply, now)
    return max(standing.suspended_until, now + REFUSED_MS)


def standings(
    message: Message, sent: Sent, policy: Policy, known: Any, now: int
) -> Iterator[tuple[Sent, str, Standing, Action | None]]:
    """What replies change about the standing of their source, and of the tenant: whose reply, key, new standing, what was done. `known`:
    those so far, by key."""
    route = message["route"]
    if route is None:
        return
    rules, place = policy.rules_of(route["site"]), place_of(message)
    for one in sent.each():
        if one.leave is None or one.result.reply.positive or one.result.outcome == "local":
            continue
        result = one.result
        about: tuple[tuple[str, Any], ...] = (
            (source_key(place, one.source), "source"),
            (tenant_key(place, message["tenant"]), "tenant"),
        )
        for key, whose in about:
            before = known.get(key) or NEUTRAL
            after, action = judge(rules, before, result.phase, result.reply, now, whose)
            if after != before:
                yield one, key, after, action
