"""Grafana's dashboards of metrics as code, for a Prometheus data source; those of ClickHouse are analytics/grafana.

    python -m deploy.grafana        # writes deploy/grafana/dashboards/*.json anew

What each panel asks stands in deploy/grafana/panels.py; the JSON is made of it, and a test has promtool read every expression.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent / "dashboards"
DATASOURCE = {"type": "prometheus", "uid": "postroad-metrics"}
WIDTH, HEIGHT = 24, 8  # of Grafana's grid; of a panel


class Panel(NamedTuple):
    """`asked`: legend and PromQL, several times; `unit`: as Grafana names it; `what`: shown at the title; `red`: from where a stat or a line
    is bad; `width`: of 24."""

    title: str
    kind: str
    asked: tuple[tuple[str, str], ...]
    unit: str = "short"
    what: str = ""
    red: float | None = None
    width: int = 8
    stacked: bool = False


class Row(NamedTuple):
    """A headline above the panels that follow it."""

    title: str


class Dashboard(NamedTuple):
    """`variables`: name and the query of its values (`label_values(metric, label)`)."""

    name: str
    title: str
    panels: tuple[Panel | Row, ...]
    variables: tuple[tuple[str, str], ...] = ()


def built(dashboard: Dashboard) -> dict[str, Any]:
    """As Grafana 10 and later take it."""
    return {
        "uid": f"postroad-{dashboard.name}", "title": dashboard.title, "tags": ["postroad"], "timezone": "utc", "schemaVersion": 39,
        "time": {"from": "now-3h", "to": "now"}, "refresh": "30s", "editable": False,
        "links": [{"type": "dashboards", "title": "Postroad", "tags": ["postroad"], "asDropdown": True, "keepTime": True, "includeVars": True}],
        "templating": {"list": [_variable(*variable) for variable in dashboard.variables]}, "panels": list(_placed(dashboard.panels)),
    }  # fmt: skip


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name, "label": name, "type": "query", "datasource": DATASOURCE, "query": {"query": query, "refId": name},
        "definition": query, "refresh": 2, "sort": 1, "includeAll": True, "multi": True, "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }  # fmt: skip


def _placed(panels: tuple[Panel | Row, ...]) -> Iterator[dict[str, Any]]:
    """From left to right; a row begins anew."""
    x = y = 0
    for number, panel in enumerate(panels, 1):
        width = WIDTH if isinstance(panel, Row) else panel.width
        if x and (isinstance(panel, Row) or x + width > WIDTH):
            x, y = 0, y + HEIGHT
        place = {"x": x, "y": y, "w": width, "h": HEIGHT}
        if isinstance(panel, Row):
            yield {
                "id": number,
                "title": panel.title,
                "type": "row",
                "collapsed": False,
                "panels": [],
                "gridPos": {**place, "h": 1},
            }
            y += 1
        else:
            yield _panel(panel, number, place)
            x += width


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    series = panel.kind == "timeseries"
    custom: dict[str, Any] = {"lineWidth": 1, "showPoints": "never"} if series else {}
    if panel.stacked:
        custom |= {"stacking": {"mode": "normal"}, "fillOpacity": 60}
    defaults: dict[str, Any] = {"unit": panel.unit, "custom": custom}
    if series:
        defaults["min"] = 0
    steps: list[dict[str, Any]] = [{"color": "text" if panel.red is None else "green", "value": None}]
    if panel.red is not None:
        steps.append({"color": "red", "value": panel.red})
        if series:
            custom["thresholdsStyle"] = {"mode": "dashed"}
    defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    return {
        "id": number, "title": panel.title, "description": panel.what, "type": panel.kind, "gridPos": place, "datasource": DATASOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}} if series
        else {"reduceOptions": {"calcs": ["lastNotNull"]}, "textMode": "auto", "colorMode": "value" if panel.red is None else "background"}
        if panel.kind == "stat" else {},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": DATASOURCE, "expr": expr, "legendFormat": legend,
             "instant": panel.kind == "table", "range": panel.kind != "table", **({"format": "table"} if panel.kind == "table" else {})}
            for index, (legend, expr) in enumerate(panel.asked)
        ],
    }  # fmt: skip


def written(dashboard: Dashboard) -> str:
    """The text of its file."""
    return json.dumps(built(dashboard), indent=1) + "\n"
