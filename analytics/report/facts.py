"""What the report tells: answers of named queries over one window of whole hours, added up to steps that a chart can show."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from analytics import queries
from analytics.clickhouse import Warehouse

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ENDS = ("delivered", "bounced", "dropped", "rejected", "expired", "cancelled")
VOLUMES = ("accepted", "deferred", *ENDS, "complained", "late_bounced")
LONGEST = timedelta(days=366)
RESOLUTION = timedelta(microseconds=1)
Row = Mapping[str, Any]


class Facts(NamedTuple):
    """Lists hold rows of the query of the same name. `volumes` has a row for each step, `deliverability` one for each step and site."""

    tenant: str  # empty: all
    since: datetime
    until: datetime
    step: timedelta
    volumes: list[dict[str, Any]]
    ends_by_site: list[dict[str, Any]]
    deliverability: list[dict[str, Any]]
    ends_by_reason: list[dict[str, Any]]
    bounce_reasons: list[dict[str, Any]]
    deferrals: list[dict[str, Any]]
    latency: list[dict[str, Any]]  # the first row is of all sites
    distribution: list[dict[str, Any]]
    sources: list[dict[str, Any]]
    conservation: list[dict[str, Any]]  # the first row is of all tenants
    anomalies: list[dict[str, Any]]

    def total(self, kind: str) -> int:
        """Messages of a column of `volumes` in the whole window."""
        return sum(row[kind] for row in self.volumes)

    @property
    def ended(self) -> int:
        return sum(map(self.total, ENDS))


def gather(
    warehouse: Warehouse, since: datetime, until: datetime, tenant: str = "", note: Callable[[str], object] = str
) -> Facts:
    """Ask all that the report tells; `note` is told the name of each query. The window is widened to whole hours, as the rollup has them.

    Raises ValueError for a window that is empty or too long, WarehouseError.
    """
    since, until = floor(since, HOUR), floor(until + HOUR - RESOLUTION, HOUR)
    if not since < until <= since + LONGEST:
        raise ValueError(f"a report is over at least an hour and at most {LONGEST.days} days: not {since} to {until}")

    def ask(name: str) -> list[dict[str, Any]]:
        note(name)
        return queries.run(warehouse, name, tenant=tenant, since=since, until=until).dicts()

    step = step_of(until - since)
    return Facts(
        tenant, since, until, step,
        _volumes(ask("volumes_by_hour"), since, until, step),
        ask("ends_by_site"), _deliverability(ask("deliverability_by_site"), step), ask("ends_by_reason"),
        ask("bounce_reasons_by_site"), ask("deferrals"), ask("latency"), ask("latency_distribution"), ask("source_reputation"),
        ask("conservation"), ask("anomalies"),
    )  # fmt: skip


def floor(moment: datetime, step: timedelta) -> datetime:
    """When the step begins in which a moment lies; steps divide a UTC day."""
    moment = moment.astimezone(UTC)
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + (moment - midnight) // step * step


def step_of(window: timedelta) -> timedelta:
    """How much of the window one bar is, so that there are at most 72 of them in up to 72 days."""
    return next((timedelta(hours=hours) for hours in (1, 6) if window <= 72 * timedelta(hours=hours)), DAY)


def _add(
    rows: Iterable[Row], step: timedelta, kinds: Iterable[str], *keys: str
) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Columns `kinds` of rows of hours, added up by step and `keys`."""
    kinds, found = tuple(kinds), dict[tuple[Any, ...], dict[str, Any]]()
    for row in rows:
        at = floor(_utc(row["hour"]), step)
        key = (at, *(row[name] for name in keys))
        into = found.setdefault(key, {"at": at} | {name: row[name] for name in keys} | dict.fromkeys(kinds, 0))
        for kind in kinds:
            into[kind] += row[kind]
    return found


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _volumes(rows: Iterable[Row], since: datetime, until: datetime, step: timedelta) -> list[dict[str, Any]]:
    """One row for each step, those without mail too: a gap is something to see."""
    found = _add(rows, step, VOLUMES)
    first = floor(since, step)
    steps = [first + step * number for number in range(-((first - until) // step))]
    return [found.get((at,)) or {"at": at} | dict.fromkeys(VOLUMES, 0) for at in steps]


def _deliverability(rows: Iterable[Row], step: timedelta) -> list[dict[str, Any]]:
    return list(_add(rows, step, ("delivered", "bounced", "expired"), "site").values())
