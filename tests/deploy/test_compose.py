"""compose.yaml as Docker's own program reads it: settings that the program takes, files that there are, every stage and door."""

from __future__ import annotations

import os
import re
import subprocess
from functools import cache
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from agents.worker import STAGES
from deploy.local import ROOT
from postroad.cli import app
from tests.deploy.rendered import read, tool

FOLDER = ROOT / "deploy/compose"
FILLED = {"EHLO": "mail.example.com", "RETURN_PATH_SECRET": "0123456789abcdef0123456789abcdef", "CLICKHOUSE_PASSWORD": "letters",
          "GRAFANA_CLICKHOUSE_PASSWORD": "others", "GRAFANA_PASSWORD": "more"}  # fmt: skip
GATEWAYS = ("api", "smtp", "inbound")
BACKING = {"kafka-1", "kafka-2", "kafka-3", "clickhouse", "prometheus", "alertmanager", "grafana", "topics"}


def config(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """`docker compose config` with these variables alone."""
    variables = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment}
    command = [
        tool("docker-compose"),
        "--file",
        str(FOLDER / "compose.yaml"),
        "--env-file",
        os.devnull,
        "config",
        *arguments,
    ]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)


@cache
def composed() -> dict[str, Any]:
    done = config(FILLED)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr  # a warning: a variable that nobody sets
    found: dict[str, Any] = yaml.safe_load(done.stdout)
    return found


def name(stage: str) -> str:
    return stage.replace("_", "-")


def test_every_stage_and_door_is_there_and_all_they_stand_on():
    assert set(composed()["services"]) == {*map(name, STAGES), *GATEWAYS, *BACKING}


@pytest.mark.parametrize("missing", FILLED)
def test_what_has_no_default_is_asked_for(missing):
    done = config({key: value for key, value in FILLED.items() if key != missing}, "--quiet")
    assert done.returncode != 0
    assert f"set {missing} in .env" in done.stderr


def test_the_example_has_every_variable_and_its_default():
    text = (FOLDER / "compose.yaml").read_text("utf-8")
    used = {match[1]: match[2] for match in re.finditer(r"\$\{([A-Z_]+)(?::-([^}]*)|:\?[^}]*)?\}", text)}
    lines = (FOLDER / ".env.example").read_text("utf-8").splitlines()
    example = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert set(example) == set(used)
    assert {key: value for key, value in example.items() if value} == {
        key: value for key, value in used.items() if value
    }
    assert {key for key in example if key in FILLED and not example[key]} == set(FILLED)


def ours() -> list[tuple[str, dict[str, Any]]]:
    return [(key, one) for key, one in composed()["services"].items() if one["image"].startswith("postroad")]


def test_the_program_takes_every_setting(monkeypatch, tmp_path):
    instances = set()
    for key, one in ours():
        found = read({"POSTROAD_DATA_DIR": "/var/lib/postroad", **one["environment"]}, monkeypatch, tmp_path)
        assert found.kafka.count(",") == 2 and found.replication_factor == 3
        assert found.content == "file:///var/lib/postroad-content"
        assert bool(found.clickhouse) == (key in ("events-sink", "api"))
        seconds = re.fullmatch(r"(\d+)s", one["stop_grace_period"])
        assert seconds and int(seconds[1]) >= found.grace_s + 10
        if found.instance_id:
            instances.add(found.instance_id)
        if key in GATEWAYS:
            inside = {str(port["target"]) for port in one["ports"]}
            assert inside == {
                a.rpartition(":")[2] for a in (found.api, found.submission, found.submission_tls, found.inbound) if a
            }
    assert len(instances) == len(STAGES)


def test_every_service_runs_a_command_that_there_is():
    for command in {tuple(one["command"]) for _, one in ours()} - {("worker", stage) for stage in STAGES[1:]}:
        done = CliRunner().invoke(app, [*command, "--help"])
        assert done.exit_code == 0, f"{command}: {done.output}"
    workers = {tuple(one["command"]) for _, one in ours() if one["command"][0] == "worker"}
    assert workers == {("worker", stage) for stage in STAGES}


def test_ours_have_a_root_that_is_read_only_and_a_volume_of_their_own():
    owners: dict[str, list[str]] = {}
    for key, one in ours():
        assert one["read_only"] and one["cap_drop"] == ["ALL"] and "no-new-privileges:true" in one["security_opt"], key
        targets = {volume["target"]: volume["source"] for volume in one["volumes"]}
        assert targets["/var/lib/postroad-content"] == "content"
        if "/var/lib/postroad" in targets:
            owners.setdefault(targets["/var/lib/postroad"], []).append(key)
    assert all(len(of) == 1 for of in owners.values())
    assert set(owners) == {*map(name, STAGES), *GATEWAYS}


def test_every_service_is_looked_after():
    for key, one in composed()["services"].items():
        assert one.get("restart") in ("unless-stopped", "on-failure"), key
        assert "mem_limit" in one and "max-size" in one["logging"]["options"], key
        if key != "topics":
            assert one["healthcheck"]["test"][0] == "CMD", key


def test_what_is_mounted_is_in_the_repository_and_volumes_are_declared():
    found = composed()
    for key, one in found["services"].items():
        for volume in one.get("volumes", ()):
            if volume["type"] == "bind":
                assert os.path.exists(volume["source"]), f"{key} mounts {volume['source']}"
                assert volume["read_only"], f"{key} could write {volume['source']}"
            else:
                assert volume["source"] in found["volumes"]
    named = {
        volume["source"]
        for one in found["services"].values()
        for volume in one.get("volumes", ())
        if volume["type"] == "volume"
    }
    assert named == set(found["volumes"])


def test_prometheus_asks_every_process_of_ours():
    scrape = yaml.safe_load((FOLDER / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
    targets = {target for job in scrape for static in job["static_configs"] for target in static["targets"]}
    expected = {
        f"{key}:{one['environment']['POSTROAD_METRICS'].rpartition(':')[2]}" for key, one in ours() if key != "topics"
    }
    assert expected <= targets


def test_grafana_has_our_dashboards_and_what_its_sources_ask_for():
    grafana = composed()["services"]["grafana"]
    provisioning = ROOT / "deploy/grafana/provisioning"
    asked = {
        match
        for file in provisioning.rglob("*.yaml")
        for match in re.findall(r"\$(POSTROAD_[A-Z_]+)", file.read_text("utf-8"))
    }
    assert asked <= set(grafana["environment"])
    mounts = {volume["target"]: volume["source"] for volume in grafana["volumes"]}
    for variable in ("POSTROAD_DASHBOARDS", "POSTROAD_METRICS_DASHBOARDS"):
        assert [file for file in os.listdir(mounts[grafana["environment"][variable]]) if file.endswith(".json")]
    folder, _, home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].rpartition("/")
    assert os.path.exists(os.path.join(mounts[folder], home))


def test_three_brokers_agree():
    brokers = [composed()["services"][f"kafka-{n}"] for n in (1, 2, 3)]
    assert len({broker["environment"]["KAFKA_NODE_ID"] for broker in brokers}) == 3
    shared = [
        {k: v for k, v in b["environment"].items() if k not in ("KAFKA_NODE_ID", "KAFKA_ADVERTISED_LISTENERS")}
        for b in brokers
    ]
    assert shared[0] == shared[1] == shared[2]
    voters = shared[0]["KAFKA_CONTROLLER_QUORUM_VOTERS"].split(",")
    assert voters == [f"{b['environment']['KAFKA_NODE_ID']}@kafka-{n}:9093" for n, b in enumerate(brokers, 1)]
