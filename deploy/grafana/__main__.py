"""Writes the dashboards' JSON anew."""

from deploy.grafana import FOLDER, written
from deploy.grafana.panels import DASHBOARDS

for dashboard in DASHBOARDS:
    (FOLDER / f"{dashboard.name}.json").write_text(written(dashboard), "utf-8")
