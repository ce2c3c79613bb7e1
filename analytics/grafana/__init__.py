"""Grafana's dashboards as code: platform, tenant, site and source, for the plug-in grafana-clickhouse-datasource.

    python -m analytics.grafana        # writes analytics/grafana/*.json anew

What each panel asks stands here; the JSON is made of it, and a test runs every panel's SQL. Times are Grafana's `$__fromTime` and
`$__toTime`; variables are quoted by Grafana (`:sqlstring`), so a tenant's name is never part of the SQL. Provisioning: deploy/grafana.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from analytics.rollups import BIN_MIDDLE

FOLDER = Path(__file__).parent
DATASOURCE = {"type": "grafana-clickhouse-datasource", "uid": "postroad"}
WIDTH, HEIGHT = 24, 8  # of Grafana's grid; of a panel
HOURS = "FROM hours FINAL WHERE hour >= toStartOfHour($__fromTime) AND hour <= $__toTime"
EVENTS = "FROM events WHERE ts >= $__fromTime AND ts <= $__toTime"
ENDS = ("delivered", "bounced", "dropped", "rejected", "expired", "cancelled")
COLOURS = {"delivered": "blue", "bounced": "red", "dropped": "gray", "rejected": "orange", "expired": "purple",
           "cancelled": "light-gray", "deferred": "yellow", "accepted": "text", "complained": "dark-red"}  # fmt: skip


class Panel(NamedTuple):
    """`kind`: timeseries (its first column is `time`; a text column names the series), stat or table; `unit`: as Grafana names it;
    `width`: of 24."""

    title: str
    kind: str
    sql: str
    unit: str = "short"
    width: int = 12
    stacked: bool = False


class Dashboard(NamedTuple):
    """`variable`: of its name in the SQL as ${name:sqlstring}, with the query of its values."""

    name: str
    title: str
    panels: tuple[Panel, ...]
    variable: tuple[str, str] | None = None


def _counts(kinds: tuple[str, ...], where: str = "", column: str = "messages") -> str:
    sums = ", ".join(f"sumIf(hours.{column}, kind = '{kind}') AS {kind}" for kind in kinds)
    listed = ", ".join(f"'{kind}'" for kind in kinds)
    return f"SELECT hour AS time, {sums} {HOURS} AND kind IN ({listed}){where} GROUP BY hour ORDER BY hour"


def _share(where: str, by: str) -> str:
    """Of what was tried to its end, by hour and series."""
    return (
        f"SELECT hour AS time, {by} AS series, sumIf(hours.messages, kind = 'delivered') / sum(hours.messages) AS share {HOURS}"
        f" AND kind IN ('delivered', 'bounced', 'expired'){where} GROUP BY hour, {by} HAVING sum(hours.messages) >= 5 ORDER BY hour, {by}"
    )


def _latency(where: str) -> str:
    quantiles = ", ".join(f"quantileExactWeighted(0.{q})(ms, n) / 1000 AS p{q}" for q in (50, 95, 99))
    return (
        f"SELECT time, {quantiles} FROM (SELECT time, toUInt64({BIN_MIDDLE}) AS ms, toUInt64(counted) AS n FROM"
        f" (SELECT hour AS time, latency_bins AS bins, latency_counts AS counts {HOURS} AND kind = 'delivered'{where})"
        " ARRAY JOIN bins AS bin, counts AS counted) GROUP BY time ORDER BY time"
    )


def _reasons(kind: str, where: str) -> str:
    return (
        f"SELECT site, reason, enhanced_code, uniqExact(message_id) AS messages, min(reply) AS example {EVENTS} AND kind = '{kind}'{where}"
        " GROUP BY site, reason, enhanced_code ORDER BY messages DESC, site, reason LIMIT 20"
    )


def _values(column: str) -> str:
    return f"SELECT DISTINCT {column} FROM hours WHERE hour >= $__fromTime AND hour <= $__toTime AND {column} != '' ORDER BY {column}"


_LAW = "SELECT count() - countIf(ended) AS in_flight FROM messages FINAL WHERE accepted_at >= $__fromTime AND accepted_at <= $__toTime"
_ENDED = (
    "SELECT sumIf(hours.messages, kind = 'delivered') / sum(hours.messages) AS delivered_share "
    f"{HOURS} AND kind IN ('delivered', 'bounced', 'expired')"
)
_WAITING = (
    "SELECT site, toString(state) AS waits_as, any(reason) AS one_reason, count() AS messages, min(accepted_at) AS oldest FROM messages FINAL"
    " WHERE accepted_at >= $__fromTime AND accepted_at <= $__toTime AND ended = 0 GROUP BY site, waits_as ORDER BY messages DESC LIMIT 20"
)
_T, _S, _Q = (f" AND {name} = ${{{name}:sqlstring}}" for name in ("tenant", "site", "source"))
_USAGE = (
    "SELECT toDate(hour) AS day, sumIf(hours.messages, kind = 'accepted') AS accepted, sumIf(hours.messages, kind = 'delivered') AS delivered,"
    " sumIf(hours.events, tried AND kind IN ('delivered', 'bounced', 'deferred')) AS attempts, sumIf(hours.bytes, kind = 'accepted') AS bytes"
    f" {HOURS}{_T} GROUP BY day ORDER BY day"
)
_WARM = (
    f"SELECT toStartOfDay(hour) AS time, site AS series, sumIf(hours.events, tried) AS sent {HOURS}{_Q}"
    " AND kind IN ('delivered', 'bounced', 'deferred') GROUP BY time, site ORDER BY time, site"
)
_BY_SITE = (
    "SELECT site, sumIf(hours.messages, kind = 'delivered') AS delivered, sumIf(hours.messages, kind = 'bounced') AS bounced,"
    " sumIf(hours.messages, kind = 'deferred') AS deferred, sumIf(hours.messages, kind = 'complained') AS complained,"
    f" bounced / greatest(delivered + bounced, 1) AS bounced_share {HOURS}{_Q} AND site != '' GROUP BY site ORDER BY delivered DESC LIMIT 20"
)
TRIED = ("delivered", "bounced", "deferred")

DASHBOARDS = (
    Dashboard("platform", "Postroad: platform", (
        Panel("Delivered, of what was tried to its end", "stat", _ENDED, "percentunit", 6),
        Panel("Accepted and not at its end", "stat", _LAW, "short", 6),
        Panel("Ends", "timeseries", _counts(ENDS), width=12, stacked=True),
        Panel("Accepted", "timeseries", _counts(("accepted",))),
        Panel("Accepted to delivered", "timeseries", _latency(""), "s"),
        Panel("Delivered share by site", "timeseries", _share(" AND site != ''", "site"), "percentunit"),
        Panel("Put off", "timeseries", _counts(("deferred",), column="events")),
        Panel("Why mail bounces", "table", _reasons("bounced", "")),
        Panel("What waits", "table", _WAITING),
    )),
    Dashboard("tenant", "Postroad: tenant", (
        Panel("Ends", "timeseries", _counts(ENDS, _T), stacked=True),
        Panel("Accepted", "timeseries", _counts(("accepted",), _T)),
        Panel("Delivered share by site", "timeseries", _share(f"{_T} AND site != ''", "site"), "percentunit"),
        Panel("Accepted to delivered", "timeseries", _latency(_T), "s"),
        Panel("Why its mail bounces", "table", _reasons("bounced", _T)),
        Panel("Usage by day", "table", _USAGE),
    ), ("tenant", _values("tenant"))),
    Dashboard("site", "Postroad: site", (
        Panel("How it answers", "timeseries", _counts(TRIED, _S, "events"), stacked=True),
        Panel("Delivered share by source", "timeseries", _share(f"{_S} AND source != ''", "source"), "percentunit"),
        Panel("Accepted to delivered", "timeseries", _latency(_S), "s"),
        Panel("Why it puts mail off", "table", _reasons("deferred", _S)),
        Panel("Why it bounces mail", "table", _reasons("bounced", _S), width=24),
    ), ("site", _values("site"))),
    Dashboard("source", "Postroad: source", (
        Panel("How sites answer it", "timeseries", _counts(TRIED, _Q, "events"), stacked=True),
        Panel("Delivered share by site", "timeseries", _share(f"{_Q} AND site != ''", "site"), "percentunit"),
        Panel("Attempts by day and site: its warm-up", "timeseries", _WARM),
        Panel("By site", "table", _BY_SITE),
    ), ("source", _values("source"))),
)  # fmt: skip


def built(dashboard: Dashboard) -> dict[str, Any]:
    """As Grafana 10 and later take it."""
    panels, x, y = list[dict[str, Any]](), 0, 0
    for number, panel in enumerate(dashboard.panels, 1):
        if x + panel.width > WIDTH:
            x, y = 0, y + HEIGHT
        panels.append(_panel(panel, number, {"x": x, "y": y, "w": panel.width, "h": HEIGHT}))
        x += panel.width
    variables = []
    if dashboard.variable is not None:
        name, query = dashboard.variable
        variables.append(
            {"name": name, "type": "query", "datasource": DATASOURCE, "query": query, "refresh": 2, "sort": 1}
        )
    return {
        "uid": f"postroad-{dashboard.name}", "title": dashboard.title, "tags": ["postroad"], "timezone": "utc", "schemaVersion": 39,
        "time": {"from": "now-24h", "to": "now"}, "refresh": "1m", "editable": False, "templating": {"list": variables}, "panels": panels,
    }  # fmt: skip


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    custom = {"stacking": {"mode": "normal"}, "fillOpacity": 60, "lineWidth": 1} if panel.stacked else {}
    overrides = [
        {"matcher": {"id": "byName", "options": name}, "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}]}
        for name, colour in COLOURS.items()
    ] if panel.kind == "timeseries" else []  # fmt: skip
    series = panel.kind == "timeseries"
    return {
        "id": number, "title": panel.title, "type": panel.kind, "gridPos": place, "datasource": DATASOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "custom": custom}, "overrides": overrides},
        "targets": [{
            "refId": "A", "datasource": DATASOURCE, "editorType": "sql", "rawSql": panel.sql,
            "queryType": "timeseries" if series else "table", "format": 0 if series else 1,
        }],
    }  # fmt: skip


def written(dashboard: Dashboard) -> str:
    """The text of its file."""
    return json.dumps(built(dashboard), indent=1) + "\n"
