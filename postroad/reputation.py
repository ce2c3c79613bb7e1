"""Reputation: how mail of a tenant, a sender domain, a source, a source at a site fares, and which step follows from it.

Counts lie in buckets: hours of the last two days, UTC days of the 30 before. A rate is decayed (what is a half-life old counts half)
and is the lower bound of Wilson's interval (1927): what it is at least, so that three complaints of a hundred mails say less than
three hundred of ten thousand. Counts of several partitions add up, bucket by bucket.

| of | bounces are | on warn | on hold |
|---|---|---|---|
| tenant, domain (of the sender) | hard ones, as SES counts | half the rate | broadcast waits, the rest goes by the pool of the setting reputation_pool |
| source, source-site ("a@there.test") | hard and soft ones: a block is soft | half the rate | other sources of its pool first, else that pool, else a tenth of the rate |

A step up is taken at once. A step down takes a rate that is clearly below (`EASE`) and an hour on the step. Who is on hold sends little
that could show better: after `hold_ms` he is on warn, and judged by what has come since.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, get_args

from avro.records import Bucket, Grade, GradeLevel, Message
from postroad.egress import Pool, Source

Kind = Literal["tenant", "domain", "source", "source-site"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
What = Literal["sent", "delivered", "deferred", "hard", "soft", "complained"]
WHATS: Final[tuple[What, ...]] = get_args(What)
LEVELS: Final[tuple[GradeLevel, ...]] = get_args(GradeLevel)  # ok, warn, hold: each graver than those before

HOUR_MS, DAY_HOURS, DAY_MS = 3_600_000, 24, 86_400_000
HOURS, DAYS = 48, 30  # kept of each
NAME_MAX = 200  # characters of a subject's name
COUNT_BITS = 40  # of one count in a packed number
COUNT_MAX = (1 << COUNT_BITS) - 1
PACKED_BYTES = len(WHATS) * COUNT_BITS // 8
ONE: Final[dict[What, int]] = {what: 1 << (COUNT_BITS * number) for number, what in enumerate(WHATS)}

Z = 1.96  # of Wilson's interval: 95 %
BAD_MIN = 3  # bounces or complaints that say something of a rate, whatever it is
EASE = 0.75  # of a threshold, below which a step is left
DWELL_MS = HOUR_MS  # on a step before a lower one
WAIT_MS = 900_000  # a broadcast on hold asks again after a quarter of an hour, a fifth earlier or later
SLOW = 0.5  # of a tenant's rate, on warn
SOURCE_RATES: Final[dict[GradeLevel, float]] = {"ok": 1.0, "warn": 0.5, "hold": 0.1}


class Counts(NamedTuple):
    """`sent`: taken or refused for good by an MX; `hard`, `soft`: bounces, late ones too. Decayed, where they are not whole."""

    sent: float = 0.0
    delivered: float = 0.0
    deferred: float = 0.0
    hard: float = 0.0
    soft: float = 0.0
    complained: float = 0.0

    def bounced(self, kind: str) -> float:
        """Those that count against a subject of a kind."""
        return self.hard if kind in ("tenant", "domain") else self.hard + self.soft


class History(NamedTuple):
    """Packed counts by hour and by day since 1970. Never changed in place; what is in a day is in none of its hours."""

    hours: dict[int, int]
    days: dict[int, int]

    def pack(self) -> bytes:
        """For a table."""
        rows = [
            *((hour, 1, n) for hour, n in self.hours.items()),
            *((day, DAY_HOURS, n) for day, n in self.days.items()),
        ]
        return b"".join([
            place.to_bytes(4, "big") + bytes((span,)) + n.to_bytes(PACKED_BYTES, "big") for place, span, n in rows
        ])  # fmt: skip

    @classmethod
    def unpack(cls, raw: bytes) -> History:
        """Back from `pack`."""
        found, size = cls({}, {}), 5 + PACKED_BYTES
        for at in range(0, len(raw) - size + 1, size):
            buckets = found.hours if raw[at + 4] == 1 else found.days
            buckets[int.from_bytes(raw[at : at + 4], "big")] = int.from_bytes(raw[at + 5 : at + size], "big")
        return found


EMPTY = History({}, {})


class Thresholds(NamedTuple):
    """Settings. Rates from 0 to 1, and 1 is never reached; `sample`: mails that say something; times in ms."""

    complaint_warn: float = 0.001  # Google's and Yahoo's sender requirements of 2024: below 0.1 %, never 0.3 %
    complaint_hold: float = 0.003
    bounce_warn: float = 0.05  # SES puts accounts under review at 5 %, and may pause them at 10 %
    bounce_hold: float = 0.10
    sample: int = 100
    half_life_ms: int = DAY_MS
    hold_ms: int = DAY_MS


class Step(NamedTuple):
    """Where a subject stands since `since` (ms), judged by what has come since the hour of `judged_from` (ms; 0: all)."""

    level: GradeLevel = "ok"
    since: int = 0
    judged_from: int = 0


# -- counts ------------------------------------------------------------------------------------------------------------


def subject(kind: Kind, name: str, site: str = "") -> str:
    """The key of a subject: "tenant:acme", "source-site:a@there.test"."""
    whole = f"{name}@{site}" if kind == "source-site" else name
    return f"{kind}:{whole[:NAME_MAX]}".replace("\0", "")


def named(text: str) -> str:
    """A subject as somebody has written it. Raises ValueError."""
    kind, _, name = text.partition(":")
    if kind not in KINDS or not 0 < len(name) <= NAME_MAX or not name.isprintable():
        raise ValueError(
            f"{text[:80]!r} is no subject: write {', '.join(f'{kind}:NAME' for kind in KINDS)}; NAME is source@site there"
        )
    if kind == "source-site" and "@" not in name.strip("@"):
        raise ValueError(f"{text[:80]!r} names no source at a site: write source-site:SOURCE@SITE")
    return text


def subjects(tenant: str, source: str, site: str, sender: str) -> list[str]:
    """All that a message counts for; what is empty has no reputation. `sender`: an address."""
    domain = sender.rpartition("@")[2].lower()
    found = [subject("tenant", tenant)] if tenant else []
    found += [subject("domain", domain)] if domain else []
    if source:
        found.append(subject("source", source))
        found += [subject("source-site", source, site)] if site else []
    return found


def add(history: History, hour: int, packed: int, now_ms: int) -> History:
    """With counts of one more hour; what has become old is in days, or gone."""
    hours = dict(history.hours)
    hours[hour] = hours.get(hour, 0) + packed
    return _rolled(hours, dict(history.days), now_ms)


def merged(histories: Iterable[History], now_ms: int) -> History:
    """The sum, as of now."""
    hours: dict[int, int] = {}
    days: dict[int, int] = {}
    for history in histories:
        for buckets, own in ((hours, history.hours), (days, history.days)):
            for place, packed in own.items():
                buckets[place] = buckets.get(place, 0) + packed
    return _rolled(hours, days, now_ms)


def _rolled(hours: dict[int, int], days: dict[int, int], now_ms: int) -> History:
    now_hour = now_ms // HOUR_MS
    for hour in [hour for hour in hours if hour <= now_hour - HOURS]:
        day = hour // DAY_HOURS
        days[day] = days.get(day, 0) + hours.pop(hour)
    for day in [day for day in days if day < now_hour // DAY_HOURS - DAYS]:
        del days[day]
    return History(hours, days)


def unpacked(packed: int) -> Counts:
    """The counts of a packed number."""
    return Counts(*(float(packed >> (COUNT_BITS * number) & COUNT_MAX) for number in range(len(WHATS))))


def decayed(history: History, now_ms: int, half_life_ms: int, since_ms: int = 0) -> Counts:
    """Counts by the age of the middle of their buckets. `since_ms`: older buckets do not count."""
    totals = [0.0] * len(WHATS)
    first = since_ms // HOUR_MS
    places = [(hour, 1, packed) for hour, packed in history.hours.items() if hour >= first]
    places += [(day * DAY_HOURS, DAY_HOURS, n) for day, n in history.days.items() if day * DAY_HOURS >= first]
    for begins, hours, packed in places:
        age = max(0, now_ms - begins * HOUR_MS - hours * HOUR_MS // 2)
        weight = 0.5 ** (age / half_life_ms)
        for number, count in enumerate(unpacked(packed)):
            totals[number] += weight * count
    return Counts(*totals)


def today(history: History, now_ms: int) -> Counts:
    """Counts of this UTC day."""
    midnight = now_ms // DAY_MS * DAY_HOURS
    return unpacked(sum(packed for hour, packed in history.hours.items() if hour >= midnight))


def to_buckets(history: History) -> list[Bucket]:
    """As mail.reputation has them, the oldest first."""
    rows = [
        *((day * DAY_HOURS, DAY_HOURS, n) for day, n in history.days.items()),
        *((hour, 1, n) for hour, n in history.hours.items()),
    ]
    return [_bucket(hour, span, packed) for hour, span, packed in sorted(rows)]


def _bucket(hour: int, span: int, packed: int) -> Bucket:
    sent, delivered, deferred, hard, soft, complained = map(int, unpacked(packed))
    return {"at": hour * HOUR_MS, "hours": span, "sent": sent, "delivered": delivered, "deferred": deferred, "hard": hard,
            "soft": soft, "complained": complained}  # fmt: skip


def from_buckets(buckets: list[Bucket]) -> History:
    """Raises ValueError for what no worker writes."""
    if len(buckets) > HOURS + DAYS + 10:
        raise ValueError(f"{len(buckets)} buckets: a history has at most {HOURS} hours and {DAYS} days")
    found = History({}, {})
    for bucket in buckets:
        hour, rest = divmod(bucket["at"], HOUR_MS)
        counts = [bucket[what] for what in WHATS]
        if rest or bucket["hours"] not in (1, DAY_HOURS) or hour % bucket["hours"] or not 0 <= hour < 1 << 32:
            raise ValueError(f"a bucket of {bucket['hours']} hours from {bucket['at']} is no hour and no day")
        if min(counts) < 0 or max(counts) > COUNT_MAX:
            raise ValueError(f"counts lie between 0 and {COUNT_MAX}, these do not: {counts}")
        places, place = (found.hours, hour) if bucket["hours"] == 1 else (found.days, hour // DAY_HOURS)
        places[place] = places.get(place, 0) + sum(n << (COUNT_BITS * i) for i, n in enumerate(counts))
    return found


# -- steps -------------------------------------------------------------------------------------------------------------


def at_least(bad: float, of: float) -> float:
    """Lower bound of the rate `bad / of` (Wilson 1927), 0 where nothing is known."""
    if of <= 0 or bad <= 0:
        return 0.0
    rate, z2 = min(1.0, bad / of), Z * Z / of
    return max(0.0, (rate + z2 / 2 - Z * math.sqrt(rate * (1 - rate) / of + z2 / of / 4)) / (1 + z2))


def level_of(kind: str, counts: Counts, limits: Thresholds, ease: float = 1.0) -> GradeLevel:
    """The step that counts ask for; `ease`: factor of the thresholds."""
    found: GradeLevel = "ok"
    for bad, of, warn, hold in (
        (counts.bounced(kind), counts.sent, limits.bounce_warn, limits.bounce_hold),
        (counts.complained, counts.delivered, limits.complaint_warn, limits.complaint_hold),
    ):
        if of < limits.sample or bad < BAD_MIN:
            continue
        rate = at_least(bad, of)
        if warn < 1 and rate >= warn * ease:
            found = graver(found, "warn")
        if hold < 1 and rate >= hold * ease:
            found = graver(found, "hold")
    return found


def graver(one: GradeLevel, other: GradeLevel) -> GradeLevel:
    """Of two steps."""
    return max(one, other, key=LEVELS.index)


def decide(kind: str, history: History, before: Step, limits: Thresholds, now_ms: int) -> Step:
    """The step after `before`; `before` itself where nothing changes."""
    counts = decayed(history, now_ms, limits.half_life_ms, before.judged_from)
    rank, stood = LEVELS.index(before.level), now_ms - before.since
    if stood < 0:  # of a clock that was wrong
        stood = limits.hold_ms
    asked = level_of(kind, counts, limits)
    if LEVELS.index(asked) > rank:
        return Step(asked, now_ms, before.judged_from)
    if rank == 0:
        return before
    if LEVELS.index(level_of(kind, counts, limits, EASE)) < rank and stood >= DWELL_MS:
        return Step(LEVELS[rank - 1], now_ms, before.judged_from)
    if before.level == "hold" and stood >= limits.hold_ms:
        return Step("warn", now_ms, now_ms // HOUR_MS * HOUR_MS)
    return before


def shown(kind: str, counts: Counts) -> str:
    """The numbers of a step, for people."""
    bounced = counts.bounced(kind)
    return (f"bounced {_rate(bounced, counts.sent)} of {counts.sent:.0f} sent, complained "
            f"{_rate(counts.complained, counts.delivered)} of {counts.delivered:.0f} delivered")  # fmt: skip


def _rate(bad: float, of: float) -> str:
    return f"{bad:.0f} ({bad / of if of else 0:.2%}, at least {at_least(bad, of):.2%})"


# -- what follows ------------------------------------------------------------------------------------------------------


def pin_key(subject: str) -> str:
    """Of an operator's word in control.standings, which goes before the subject's own."""
    return f"pin {subject}"


class Standings:
    """Questions about the steps in force. `mapping`: key -> Grade, as control.standings has them at the moment."""

    def __init__(self, mapping: Mapping[str, Grade]):
        self._mapping = mapping

    def level(self, subject: str, now_ms: int) -> GradeLevel:
        """The step of a subject: an operator's pin while it lasts, else what its counts ask for."""
        pin = self._mapping.get(pin_key(subject))
        if pin is not None and ((until := pin.get("until")) is None or until > now_ms):
            return pin["level"]
        own = self._mapping.get(subject)
        return own["level"] if own is not None else "ok"

    def of_sender(self, tenant: str, sender: str, now_ms: int) -> GradeLevel:
        """The graver of the tenant's and its domain's; `sender`: an address, or empty."""
        return self._gravest(subjects(tenant, "", "", sender), now_ms) if self._mapping else "ok"

    def of_source(self, source: str, site: str, now_ms: int) -> GradeLevel:
        """The graver of the source's and that of it at the site."""
        return self._gravest(subjects("", source, site, ""), now_ms) if self._mapping else "ok"

    def ordered(self, sources: list[Source], site: str, now_ms: int) -> list[Source]:
        """Sources in their order, those on hold last."""
        if not self._mapping:
            return sources
        return sorted(sources, key=lambda one: self.of_source(one.name, site, now_ms) == "hold")

    def rests(self, pool: Pool, site: str, now_ms: int) -> bool:
        """Whether all sources of a pool are on hold."""
        usable = (source.name for source in pool.sources if source.weight > 0)
        return bool(self._mapping) and all(self.of_source(name, site, now_ms) == "hold" for name in usable)

    def _gravest(self, subjects: Iterable[str], now_ms: int) -> GradeLevel:
        return max((self.level(subject, now_ms) for subject in subjects), key=LEVELS.index, default="ok")


def pool_of(
    message: Message, pool: Pool, pools: Mapping[str, Pool], other: str, site: str, standings: Standings, now_ms: int
) -> Pool:
    """The pool that a message leaves from: `other` (a name; empty: none) where its sender or all of its own sources are on hold."""
    found = pools.get(other)
    if found is None or not standings._mapping:
        return pool
    held = standings.of_sender(message["tenant"], message["sender"], now_ms) == "hold"
    return found if held or standings.rests(pool, site, now_ms) else pool


def held(message: Message, standings: Standings, now_ms: int) -> bool:
    """Whether a message waits for its sender's reputation: broadcast only."""
    return (
        message["stream"] == "broadcast" and standings.of_sender(message["tenant"], message["sender"], now_ms) == "hold"
    )


def again_at(message: Message, now_ms: int) -> int:
    """When a broadcast on hold asks again (ms); by its id and round, so a replay says the same."""
    text = f"{message['message_id']}:{message['round']}".encode(errors="surrogatepass")
    share = int.from_bytes(hashlib.blake2b(text, digest_size=4, person=b"reputation").digest(), "big") / (1 << 32)
    return min(now_ms + round(WAIT_MS * (0.8 + 0.4 * share)), message["expires_at"])


def rate_of_sender(standings: Mapping[str, Grade], message: Message, now_ms: int) -> float:
    """What is left of a tenant's rate, from 0 to 1; on hold it is the mail that goes on."""
    return (
        1.0
        if not standings or Standings(standings).of_sender(message["tenant"], message["sender"], now_ms) == "ok"
        else SLOW
    )


def rate_of_source(standings: Mapping[str, Grade], source: str, site: str, now_ms: int) -> float:
    """What is left of the rate of a source at a site, from 0 to 1."""
    return SOURCE_RATES[Standings(standings).of_source(source, site, now_ms)] if standings else 1.0


def counts_of_today(standings: Mapping[str, Grade], source: str, now_ms: int) -> tuple[int, int]:
    """What a source has sent on this UTC day, and what of it was complained of; zeros where nobody complained."""
    known = standings.get(subject("source", source))
    if known is None or known.get("day") != now_ms // DAY_MS:
        return 0, 0
    return known.get("sent_today", 0), known.get("complained_today", 0)


@dataclass(frozen=True, slots=True)
class Shown:
    """A subject as people see it. `step`: of its counts; `pin`: an operator's word, if any; `counts`: decayed; `day`: today's."""

    subject: str
    level: GradeLevel
    counts: Counts
    day: Counts
    pin: Grade | None


def overview(
    parts: Mapping[str, list[History]], standings: Mapping[str, Grade], half_life_ms: int, now_ms: int
) -> Iterator[Shown]:
    """Every subject that has counts or an operator's word, by name. `parts`: the histories of its partitions."""
    pinned = {key.removeprefix("pin ") for key in standings if key.startswith("pin ")}
    known = Standings(standings)
    for each in sorted({*parts, *pinned}):
        history = merged(parts.get(each, []), now_ms)
        yield Shown(each, known.level(each, now_ms), decayed(history, now_ms, half_life_ms), today(history, now_ms),
                    standings.get(pin_key(each)))  # fmt: skip
