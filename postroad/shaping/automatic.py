"""Automatic shaping: what replies of a site change about the way mail goes there, and how that wears off.

A rule counts the replies that its pattern fits; `threshold` of them within its window set off its action. Reductions multiply
(a factor of the file's limit), are held for the rule's time, then recover by addition: a tenth of the limit every ten
minutes (AIMD, Chiu and Jain 1989: the one that comes to a fair share). Never above the limit of the file.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple, get_args

from avro.records import SmtpPhase
from postroad.reply import Reply
from postroad.shaping.limits import Limits
from postroad.shaping.patterns import Pattern

ActionName = Literal["reduce-rate", "reduce-connections", "suspend-source", "suspend-tenant"]
ACTIONS: Final[tuple[ActionName, ...]] = get_args(ActionName)  # each graver than those before
THRESHOLD_MAX = 100  # the times of so many replies are kept in a Standing
FOR_MAX_S = 7 * 86_400  # longest effect of an action; one that lies further ahead was written under a wrong clock
FACTOR_MIN = 0.001  # a site that still answers is asked now and then
RECOVERY_PER_MS = 0.1 / 600_000
# Replies to mail that was under way when a rule acted say nothing about what its action did.
SETTLE_MS = 10_000


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `patterns`: any of them, on "code enhanced text"; `phases`, `sites`: empty for all; `for_s`: how long."""

    name: str
    patterns: tuple[Pattern, ...]
    action: ActionName
    phases: frozenset[SmtpPhase] = frozenset()
    sites: frozenset[str] = frozenset()
    threshold: int = 1
    window_s: float = 3600
    factor: float = 0.5
    for_s: float = 1800

    @property
    def key(self) -> bytes:
        """Its name in a Standing."""
        return hashlib.blake2b(self.name.encode(), digest_size=8, person=b"rule").digest()

    @property
    def about(self) -> Literal["source", "tenant"]:
        """Whose Standing counts: that of the source at the site, or of the tenant."""
        return "tenant" if self.action == "suspend-tenant" else "source"

    def fits(self, phase: SmtpPhase, text: str) -> bool:
        """Whether a reply, as text with its codes, is one that it counts."""
        return (not self.phases or phase in self.phases) and any(pattern.matches(text) for pattern in self.patterns)


class Action(NamedTuple):
    """What a rule has done. `until`: when a suspension ends or a recovery begins, ms."""

    rule: str
    action: ActionName
    until: int
    factor: float  # of the limit, after it; 0 where suspended

    def __str__(self) -> str:
        return self.action if self.action.startswith("suspend") else f"{self.action} to {self.factor:.3g}"


class Count(NamedTuple):
    """What a rule has counted: when it acted last, and replies since (ms, rising)."""

    acted_at: int
    times: tuple[int, ...]


_HEAD = struct.Struct(">dqdqqH")  # a release may add fields behind the counts
_COUNT = struct.Struct(">8sqH")


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a source (or a tenant) stands with a site. `..._from`: since when a factor recovers, ms; may lie ahead."""

    rate_factor: float = 1.0
    rate_from: int = 0
    connections_factor: float = 1.0
    connections_from: int = 0
    suspended_until: int = 0
    counts: tuple[tuple[bytes, Count], ...] = ()

    def is_suspended(self, now_ms: int) -> bool:
        """Whether nothing may go at all."""
        return now_ms < _believed(self.suspended_until, now_ms)

    def pack(self) -> bytes:
        """For a table."""
        parts = [
            _HEAD.pack(
                self.rate_factor, self.rate_from, self.connections_factor, self.connections_from, self.suspended_until,
                len(self.counts),
            )
        ]  # fmt: skip
        for key, count in self.counts:
            parts.append(_COUNT.pack(key, count.acted_at, len(count.times)))
            parts.append(struct.pack(f">{len(count.times)}q", *count.times))
        return b"".join(parts)

    @classmethod
    def unpack(cls, raw: bytes) -> Standing:
        """Back from `pack`; what is behind belongs to a newer release."""
        rate, rate_from, connections, connections_from, suspended_until, size = _HEAD.unpack_from(raw)
        counts, at = [], _HEAD.size
        for _ in range(size):
            key, acted_at, number = _COUNT.unpack_from(raw, at)
            at += _COUNT.size
            counts.append((key, Count(acted_at, struct.unpack_from(f">{number}q", raw, at))))
            at += 8 * number
        return cls(rate, rate_from, connections, connections_from, suspended_until, tuple(counts))


NEUTRAL = Standing()


def judge(
    rules: Iterable[Rule],
    standing: Standing,
    phase: SmtpPhase,
    reply: Reply,
    now_ms: int,
    about: Literal["source", "tenant"] = "source",
) -> tuple[Standing, Action | None]:
    """Count a reply; the standing after it and what was done. Of several rules due at once the gravest acts.

    `rules`: those of the site (`Policy.rules_of`); `about`: whose standing it is, other rules are passed over.
    """
    if reply.positive:
        return standing, None
    text = " ".join(str(reply).split())  # a sentence may be broken into lines
    counts = dict(standing.counts)
    due: list[Rule] = []
    for rule in rules:
        if rule.about != about or not rule.fits(phase, text):
            continue
        count = counts.get(rule.key, Count(0, ()))
        if 0 <= now_ms - count.acted_at < SETTLE_MS:
            continue
        since = now_ms - round(rule.window_s * 1000)
        times = (*(time for time in count.times if since < time <= now_ms), now_ms)[-rule.threshold :]
        is_due = len(times) == rule.threshold
        if is_due:
            due.append(rule)
        counts[rule.key] = Count(now_ms, ()) if is_due else Count(count.acted_at, times)
    standing = replace(recovered(standing, now_ms), counts=_fresh(counts, now_ms))
    if not due:
        return standing, None
    return _act(max(due, key=lambda rule: ACTIONS.index(rule.action)), standing, now_ms)


def _act(rule: Rule, standing: Standing, now_ms: int) -> tuple[Standing, Action]:
    until = now_ms + round(rule.for_s * 1000)
    if rule.action == "reduce-rate":
        factor = max(standing.rate_factor * rule.factor, FACTOR_MIN)
        standing = replace(standing, rate_factor=factor, rate_from=max(until, standing.rate_from))
    elif rule.action == "reduce-connections":
        factor = max(standing.connections_factor * rule.factor, FACTOR_MIN)
        standing = replace(standing, connections_factor=factor, connections_from=max(until, standing.connections_from))
    else:
        factor, until = 0.0, max(until, standing.suspended_until)
        standing = replace(standing, suspended_until=until)
    return standing, Action(rule.name, rule.action, until, factor)


def recovered(standing: Standing, now_ms: int) -> Standing:
    """The standing at a later time: factors grow by addition from the time that they are held to, and end at 1."""
    rate, rate_from = _grown(standing.rate_factor, standing.rate_from, now_ms)
    connections, connections_from = _grown(standing.connections_factor, standing.connections_from, now_ms)
    suspended_until = _believed(standing.suspended_until, now_ms)
    return Standing(rate, rate_from, connections, connections_from, suspended_until, standing.counts)


def effective(limits: Limits, standing: Standing, now_ms: int) -> Limits:
    """What is left of (a share of) the file's limits. A suspension is not in it: `Standing.is_suspended`."""
    now = recovered(standing, now_ms)
    if now.rate_factor >= 1 and now.connections_factor >= 1:
        return limits
    return replace(
        limits,
        per_second=limits.per_second * now.rate_factor,
        connections=_part(limits.connections, now.connections_factor),
        new_per_minute=_part(limits.new_per_minute, now.connections_factor),
    )


def is_neutral(standing: Standing, now_ms: int) -> bool:
    """Whether a table may forget it: nothing is reduced, suspended or counted."""
    now = recovered(standing, now_ms)
    whole = now.rate_factor >= 1 and now.connections_factor >= 1
    return whole and not now.is_suspended(now_ms) and not _fresh(dict(now.counts), now_ms)


def rules_about(rules: Sequence[Rule], site: str) -> tuple[Rule, ...]:
    """Those that look at replies of a site."""
    return tuple(rule for rule in rules if not rule.sites or site in rule.sites)


def _part(whole: int, factor: float) -> int:
    return max(int(whole * factor), min(whole, 1))


def _believed(until: int, now_ms: int) -> int:
    """A time; one further ahead than any action reaches was written under a clock that was wrong, and says nothing."""
    return until if until <= now_ms + FOR_MAX_S * 1000 else 0


def _grown(factor: float, since: int, now_ms: int) -> tuple[float, int]:
    if factor >= 1 or since != _believed(since, now_ms):
        return 1.0, 0
    if now_ms <= since:
        return factor, since
    factor += (now_ms - since) * RECOVERY_PER_MS
    return (factor, now_ms) if factor < 1 else (1.0, 0)


def _fresh(counts: dict[bytes, Count], now_ms: int) -> tuple[tuple[bytes, Count], ...]:
    """Without those that no rule can be waiting for any more: rules come and go with the file, a standing stays."""
    oldest = now_ms - FOR_MAX_S * 1000

    def is_fresh(count: Count) -> bool:
        return now_ms - count.acted_at < SETTLE_MS or (bool(count.times) and count.times[-1] > oldest)

    return tuple((key, count) for key, count in counts.items() if is_fresh(count))
