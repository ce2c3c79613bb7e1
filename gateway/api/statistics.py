"""/v1/metrics and /v1/usage: what was sent, and what became of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec

from gateway.api.messages import Moment
from gateway.api.problems import of_field
from gateway.api.routes import Answer, Call, Routes

WINDOW = timedelta(days=7)
WINDOW_MAX = timedelta(days=90)
GROUPS_MAX = 10_000
KINDS = ("accepted", "delivered", "bounced", "deferred", "dropped", "rejected", "expired", "cancelled", "complained")
#: Expressions of ClickHouse by the name of a group; nothing of a request stands in them.
GROUPS = {
    "none": "''", "day": "toString(toDate(ts))", "hour": "formatDateTime(toStartOfHour(ts), '%Y-%m-%dT%H:00:00Z')",
    "stream": "toString(stream)", "tag": "arrayJoin(tags)", "recipient_domain": "recipient_domain", "site": "site", "reason": "reason",
}  # fmt: skip
_COUNTS = ", ".join(f"uniqExactIf(message_id, kind = '{kind}') AS n_{kind}" for kind in KINDS)
METRICS = f"""
SELECT {{expression}} AS m_group, {_COUNTS}
FROM events
WHERE tenant = {{tenant:String}} AND ts >= {{start:DateTime}} AND ts < {{end:DateTime}} AND message_id != ''
GROUP BY m_group ORDER BY m_group LIMIT {GROUPS_MAX}
"""
USAGE = """
SELECT toString(toDate(m_at)) AS day, uniqExactIf(message_id, kind = 'accepted') AS accepted,
       uniqExactIf(message_id, kind = 'delivered') AS delivered, uniqExactIf(message_id, kind = 'bounced') AS bounced, sum(m_bytes) AS bytes
FROM (
    SELECT message_id, kind, min(ts) AS m_at, if(kind = 'accepted', max(size), 0) AS m_bytes
    FROM events
    WHERE tenant = {tenant:String} AND ts >= {start:DateTime} AND ts < {end:DateTime} AND kind IN ('accepted', 'delivered', 'bounced')
    GROUP BY message_id, kind
)
GROUP BY day ORDER BY day
"""
Group = Literal["none", "day", "hour", "stream", "tag", "recipient_domain", "site", "reason"]

routes = Routes()


class MetricsQuery(msgspec.Struct, forbid_unknown_fields=True):
    """From when to when (default: the last seven days, at most 90), by what."""

    start: Moment | None = None
    end: Moment | None = None
    group_by: Annotated[Group, msgspec.Meta(description="One row for each")] = "day"


class UsageQuery(msgspec.Struct, forbid_unknown_fields=True):
    """From when to when; default: the last seven days, at most 90."""

    start: Moment | None = None
    end: Moment | None = None


class Counts(msgspec.Struct):
    """Distinct messages of a group by what happened to them in the time asked for."""

    group: str
    accepted: int
    delivered: int
    bounced: int
    deferred: int
    dropped: int
    rejected: int
    expired: int
    cancelled: int
    complained: int


class Metrics(msgspec.Struct):
    """In the order of groups."""

    start: datetime
    end: datetime
    group_by: str
    metrics: list[Counts]


class Day(msgspec.Struct):
    """A day (UTC). `bytes`: of what was accepted, each recipient counted."""

    day: str
    accepted: int
    delivered: int
    bounced: int
    bytes: int


class Usage(msgspec.Struct):
    """Day by day, and all together."""

    start: datetime
    end: datetime
    days: list[Day]
    accepted: int


@routes.add("GET", "/v1/metrics", "read", query=MetricsQuery, answer=Metrics)
async def metrics(call: Call) -> Answer:
    """What became of mail, by day, hour, stream, tag, domain, site or reason."""
    query: MetricsQuery = call.query
    start, end = _window(query.start, query.end)
    sql = METRICS.replace("{expression}", GROUPS[query.group_by])
    rows = await call.door.ask(sql, tenant=call.tenant, start=start, end=end)
    counted = [Counts(str(row["m_group"]), *(int(row[f"n_{kind}"]) for kind in KINDS)) for row in rows]
    return Answer(Metrics(start, end, query.group_by, counted))


@routes.add("GET", "/v1/usage", "read", query=UsageQuery, answer=Usage)
async def usage(call: Call) -> Answer:
    """What the tenant sent, by day."""
    start, end = _window(call.query.start, call.query.end)
    rows: list[dict[str, Any]] = await call.door.ask(USAGE, tenant=call.tenant, start=start, end=end)
    days = [
        Day(row["day"], int(row["accepted"]), int(row["delivered"]), int(row["bounced"]), int(row["bytes"]))
        for row in rows
    ]
    return Answer(Usage(start, end, days, sum(day.accepted for day in days)))


def _window(start: datetime | None, end: datetime | None) -> tuple[datetime, datetime]:
    end = end or datetime.now(UTC)
    try:
        start = start or end - WINDOW
        if not timedelta(0) < end - start <= WINDOW_MAX:
            raise of_field("/end", f"must be after start, and at most {WINDOW_MAX.days} days")
    except OverflowError:
        raise of_field("/end", "this is no time of our calendar") from None
    return start, end
