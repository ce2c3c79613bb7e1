"""Dashboards of metrics: the files are what the code says, promtool reads every expression, and what they ask for is told by somebody."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from deploy import grafana
from deploy.grafana.panels import DASHBOARDS
from deploy.local import ROOT
from tests.deploy import promql
from tests.deploy.known import KNOWN, OF_EVERY_TARGET, faults
from tests.deploy.test_alerts import run

PROVISIONING = ROOT / "deploy/grafana/provisioning"
NAMES = {dashboard.name: dashboard for dashboard in DASHBOARDS}


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((grafana.FOLDER / f"{name}.json").read_text("utf-8"))
    return found


def asked(name: str) -> list[tuple[str, dict[str, Any]]]:
    """(title of the panel, its target) of every question of a dashboard."""
    return [(panel["title"], target) for panel in read(name)["panels"] for target in panel.get("targets", ())]


def filled(expr: str) -> str:
    """As Grafana would ask it."""
    return re.sub(r"\$\w+", ".*", re.sub(r"\$__(rate_interval|interval|range)", "5m", expr))


def test_the_files_are_those_of_the_code():
    assert {path.stem for path in grafana.FOLDER.glob("*.json")} == set(NAMES)
    for name, dashboard in NAMES.items():
        text = (grafana.FOLDER / f"{name}.json").read_text("utf-8")
        assert text == grafana.written(dashboard), "run: python -m deploy.grafana"


def test_no_dashboard_has_the_name_of_one_of_clickhouse():
    others = {json.loads(file.read_text("utf-8"))["uid"] for file in (ROOT / "analytics/grafana").glob("*.json")}
    own = [read(name)["uid"] for name in NAMES]
    assert len(set(own)) == len(own) and not others & set(own)


@pytest.mark.parametrize("name", NAMES)
def test_panels_do_not_lie_on_each_other(name):
    places = [panel["gridPos"] for panel in read(name)["panels"]]
    taken = [
        (x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])
    ]  # fmt: skip
    assert len(taken) == len(set(taken)) and max(x for x, _ in taken) < grafana.WIDTH


@pytest.mark.parametrize("name", NAMES)
def test_every_panel_asks_a_source_that_is_provisioned_for_what_somebody_tells(name):
    sources = [
        source
        for file in (PROVISIONING / "datasources").glob("*.yaml")
        for source in yaml.safe_load(file.read_text("utf-8"))["datasources"]
    ]
    own = {(source["type"], source["uid"]) for source in sources}
    variables = {one["name"] for one in read(name)["templating"]["list"]}
    assert asked(name)
    for title, target in asked(name):
        assert (target["datasource"]["type"], target["datasource"]["uid"]) in own
        expr = target["expr"]
        assert not faults(filled(expr)), f"{title}: {faults(filled(expr))}"
        used = set(re.findall(r"\$(\w+)", expr)) - {"__rate_interval"}
        assert used <= variables, f"{title}: no variable {used - variables}"
        shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        labels = OF_EVERY_TARGET.union(*(KNOWN[metric] for metric in promql.metrics(filled(expr))))
        assert shown <= labels, f"{title}: nothing has the label {shown - labels}"
    for one in read(name)["templating"]["list"]:
        metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", one["definition"]).groups()
        assert label in KNOWN[metric]


def test_promtool_reads_every_expression(tmp_path):
    recorded = [
        {"record": f"panel:{name}:{number}", "expr": filled(target["expr"])}
        for name in NAMES
        for number, (_, target) in enumerate(asked(name))
    ]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}), "utf-8")
    assert f"{len(recorded)} rules found" in run("promtool", "check", "rules", file)
