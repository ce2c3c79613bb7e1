"""Grafana's dashboards: the files are what the code says. That every panel finds rows is in test_demo.py, where the data is."""

import json

import pytest
import yaml

from analytics import grafana
from deploy.local import ROOT

PROVISIONING = ROOT / "deploy" / "grafana" / "provisioning"


@pytest.mark.parametrize("dashboard", grafana.DASHBOARDS, ids=lambda each: each.name)
def test_a_file_is_what_the_code_says(dashboard):
    text = (grafana.FOLDER / f"{dashboard.name}.json").read_text("utf-8")
    assert text == grafana.written(dashboard), "run: python -m analytics.grafana"
    found = json.loads(text)
    places = [panel["gridPos"] for panel in found["panels"]]
    taken = [(x, place["y"]) for place in places for x in range(place["x"], place["x"] + place["w"])]
    assert len(taken) == len(set(taken)) and max(x for x, _ in taken) < grafana.WIDTH, "no panel lies on another"


def test_no_other_files_and_provisioning_names_the_datasource_of_the_panels():
    assert {path.stem for path in grafana.FOLDER.glob("*.json")} == {each.name for each in grafana.DASHBOARDS}
    (source,) = yaml.safe_load((PROVISIONING / "datasources" / "postroad.yaml").read_text())["datasources"]
    assert {"type": source["type"], "uid": source["uid"]} == grafana.DATASOURCE
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards" / "postroad.yaml").read_text())["providers"]
    assert provider["options"]["path"] == "$POSTROAD_DASHBOARDS"
