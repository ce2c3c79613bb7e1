"""Make the month: one INSERT ... SELECT an hour of it, so the engine writes its own rows and Python only says what is true then."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from analytics.clickhouse import Warehouse
from analytics.demo.world import CAUSES, NEW_SOURCE, SITES, SOURCES, TENANTS, Incident, Month, incidents
from analytics.rollups import rebuild
from analytics.sql import statements

HOUR = timedelta(hours=1)
PARTITION = 65_000  # k_partition of demo rows: no topic has so many
MILLION = 1_000_000
_STEPS_OF_DAY = 12  # a day's rollup takes about as long as the events of so many hours
_SCALE = 65_536  # of the bounds by which a hash chooses
_NUMBER = {name: number for number, name in enumerate(("delivered", *CAUSES), 1)}


class UsedDatabase(Exception):
    """There are events of real mail in the database; the text says what to do."""


class Loaded(NamedTuple):
    """What was made, and the truth that is to be found in it."""

    messages: int
    events: int
    month: Month


def load(
    warehouse: Warehouse,
    *,
    days: int = 30,
    messages: int = 5_000_000,
    seed: int = 1,
    end: datetime | None = None,
    into_used: bool = False,
    note: Callable[[float], object] = lambda share: None,
) -> Loaded:
    """Fill `events` of a migrated database with about so many `messages`, accepted in the days before `end` (now), and from it the
    other tables. The same arguments make the same rows on every engine; `note` is told the share that is done.

    Raises UsedDatabase where there are other events, unless `into_used`; ValueError; WarehouseError.
    """
    if days < 1 or messages < days * 24:
        raise ValueError(f"demo data needs a day at least, and a message an hour: not {messages} in {days} days")
    foreign = warehouse.query(f"SELECT count() FROM events WHERE k_partition != {PARTITION}").rows[0][0]
    if foreign and not into_used:
        raise UsedDatabase(
            f"database {warehouse.database} holds {foreign:,} events of mail: demo data would mix with them. "
            "Name another database, or say --into-used"
        )
    if warehouse.query("SELECT count() FROM events").rows[0][0] != foreign:
        raise UsedDatabase(f"database {warehouse.database} has demo data already: drop it to make it anew")
    month = incidents(end or datetime.now(UTC), days)
    (statement,) = statements((Path(__file__).parent / "hour.sql").read_text(encoding="utf-8"))
    of_events = [
        month.first.date() + timedelta(days=number)
        for number in range((month.end.date() - month.first.date()).days + 1)
    ]
    made, steps = 0, month.hours + len(of_events) * _STEPS_OF_DAY
    for number, (hour, count) in enumerate(_hours(month, messages)):
        if count:
            warehouse.command(statement, _parameters(month, hour, made, count, seed))
        made += count
        note((number + 1) / steps)
    for number, day in enumerate(of_events):
        rebuild(warehouse, day)
        note((month.hours + (number + 1) * _STEPS_OF_DAY) / steps)
    events = warehouse.query(f"SELECT count() FROM events WHERE k_partition = {PARTITION}").rows[0][0]
    return Loaded(made, events, month)


def _hours(month: Month, messages: int) -> Iterator[tuple[datetime, int]]:
    """Each hour and how many messages are accepted in it."""
    hours = [month.first + HOUR * n for n in range(month.hours)]
    weights = [month.weight(hour) * _more(month, hour) for hour in hours]
    ends = [round(messages * reached / sum(weights)) for reached in accumulate(weights)]
    return zip(hours, (end - begin for begin, end in zip([0, *ends], ends, strict=False)), strict=True)


def _more(month: Month, hour: datetime) -> float:
    weights = _tenant_weights(month, hour)
    return sum(weights) / sum(tenant.weight for tenant in TENANTS)


def _now(month: Month, hour: datetime) -> list[Incident]:
    return [incident for incident in month.incidents if incident.is_at(hour)]


def _tenant_weights(month: Month, hour: datetime) -> list[float]:
    more = {incident.tenant: incident.more for incident in _now(month, hour) if incident.tenant}
    return [tenant.weight * more.get(tenant.name, 1.0) for tenant in TENANTS]


def _source_weights(month: Month, hour: datetime) -> list[float]:
    """The new source takes 0.1 % on its first day and 30 % more every day, to its full share."""
    warming = next((one for one in _now(month, hour) if one.source == NEW_SOURCE), None)
    share = 0.0 if warming is None else min(0.2, 0.001 * 1.3 ** ((hour - warming.begins).days))
    return [(1 - share) / len(SOURCES)] * len(SOURCES) + [share]


def _bounds(weights: Sequence[float]) -> list[int]:
    """Where a hash of 16 bits begins to choose the next one; nothing lies above the last."""
    total = sum(weights)
    return [round(_SCALE * reached / total) for reached in accumulate(weights)]


def _millionths(share: float) -> int:
    return min(MILLION, round(share * MILLION))


def _parameters(month: Month, hour: datetime, first: int, messages: int, seed: int) -> dict[str, Any]:
    """What is true in an hour, as hour.sql takes it."""
    now = _now(month, hour)
    sources = (*SOURCES, NEW_SOURCE)
    list_of = {one.tenant: one for one in now if one.tenant}
    slow = {one.site: one.latency_ms for one in now if one.latency_ms}
    deferred, put_off = [], []
    for site in SITES:
        for source in sources:
            found = next((i for i in now if i.deferred and i.site == site.name and i.source in ("", source)), None)
            deferred.append(_millionths(found.deferred if found else site.deferred))
            put_off.append(_NUMBER[found.cause if found else "greylisted" if site.deferred > 0.025 else "full"])
    counts = [len(site.domains) for site in SITES]
    return {
        "first": first, "messages": messages, "seed": seed, "hour_ms": int(hour.timestamp() * 1000),
        "end_ms": int(month.end.timestamp() * 1000), "week": hour.isocalendar().week,
        "sites": len(SITES), "sources": len(sources),
        "tenant_bounds": _bounds(_tenant_weights(month, hour)), "site_bounds": _bounds([site.weight for site in SITES]),
        "source_bounds": _bounds(_source_weights(month, hour)),
        "tenant_names": [tenant.name for tenant in TENANTS], "streams": [tenant.stream for tenant in TENANTS],
        "site_names": [site.name for site in SITES], "site_tls": [site.tls for site in SITES], "source_names": list(sources),
        "domains": [domain for site in SITES for domain in site.domains], "domain_count": counts,
        "domain_first": [end - count for end, count in zip(accumulate(counts), counts, strict=True)],
        "latency_ms": [slow.get(site.name, site.latency_ms) for site in SITES],
        "rejected": [_millionths(tenant.rejected) for tenant in TENANTS],
        "suppressed": [_millionths(tenant.rejected + tenant.suppressed) for tenant in TENANTS],
        "complained": [
            _millionths(list_of[t.name].complained if t.name in list_of else t.complained) for t in TENANTS
        ],
        "unknown": [
            _millionths(list_of[t.name].unknown if t.name in list_of else t.unknown * site.unknown)
            for t in TENANTS for site in SITES
        ],
        "refused": [_millionths(1 - site.policy) for site in SITES], "deferred": deferred, "put_off": put_off,
        "reasons": ["", *(cause.reason for cause in CAUSES.values())], "rules": ["", *(c.rule for c in CAUSES.values())],
        "codes": [0, *(cause.code for cause in CAUSES.values())], "enhanced": ["", *(c.enhanced for c in CAUSES.values())],
        "replies": ["", *(cause.reply for cause in CAUSES.values())],
    }  # fmt: skip
