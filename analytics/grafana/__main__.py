"""Writes the dashboards' JSON anew."""

from analytics.grafana import DASHBOARDS, FOLDER, written

for dashboard in DASHBOARDS:
    (FOLDER / f"{dashboard.name}.json").write_text(written(dashboard), "utf-8")
