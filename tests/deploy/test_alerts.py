"""Alerts by the real promtool and amtool: each fires where it should, is silent where it should be, and leads to a page that is there."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from typing import Any

import pytest
import yaml

from deploy.local import ROOT
from tests.deploy import promql
from tests.deploy.known import AWAITED, TOLD, faults, source
from tests.deploy.rendered import tool

FOLDER = ROOT / "deploy/prometheus"
RULES = FOLDER / "postroad.rules.yml"
TESTS = sorted(FOLDER.glob("*.test.yml"))
COMPOSE = ROOT / "deploy/compose"
WANTED = {
    "PostroadTargetDown", "PostroadStageGone", "PostroadComplaintsHigh", "PostroadBouncesHigh", "PostroadSourceBlocked", "PostroadBacklogGrows",
    "PostroadOldestRecordOld", "PostroadStageStalled", "PostroadDeadLetters", "PostroadSinkBehind", "PostroadOrphanFound",
    "PostroadCertificateEnds", "PostroadKeyEnds", "PostroadDiskFills", "PostroadWarmupPaused",
}  # fmt: skip


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}


@cache
def cases() -> list[tuple[str, set[str], list[Any]]]:
    """(alert, metrics that the case has series of, what is expected to fire) of every test."""
    return [
        (case["alertname"], {re.split(r"[{ ]", one["series"])[0] for one in test["input_series"]}, case["exp_alerts"])
        for file in TESTS
        for test in yaml.safe_load(file.read_text("utf-8"))["tests"]
        for case in test["alert_rule_test"]
    ]


def run(name: str, *arguments: object) -> str:
    done = subprocess.run([tool(name), *map(str, arguments)], cwd=FOLDER, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_everything_that_is_to_be_told_has_an_alert():
    assert set(ALERTS) >= WANTED
    assert len(ALERTS) == len([rule for rule in rules() if "alert" in rule]), "two alerts of one name"


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_it_is_and_what_to_do(name):
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert (ROOT / rule["annotations"]["runbook_url"]).is_file()
    assert rule["annotations"]["runbook_url"].startswith("docs/runbooks/")


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_asks_for_what_there_is(name):
    assert promql.metrics(ALERTS[name]["expr"])
    assert not faults(ALERTS[name]["expr"])


def test_what_is_called_told_is_told_and_what_is_awaited_is_not():
    """A counter's name is made of what somebody counts (agents/exporter.py)."""
    code = source()
    for name in TOLD:
        counted = name.removeprefix("postroad_").removesuffix("_total")
        assert f'"{name}"' in code or re.search(rf"""count(s\[|\()"{counted}"|: "{counted}"[,}}]""", code), (
            f"nobody tells {name}"
        )
    for name in AWAITED:
        assert f'"{name}"' not in code, f"{name} is told: it belongs to TOLD"


@pytest.mark.parametrize(
    "expr",
    ["sum(postroad_nothing)", 'postroad_lag{site="a"}', "sum by (site) (postroad_lag)", "up offset 1h > postroad_x"],
)
def test_the_check_finds_what_is_wrong(expr):
    assert faults(expr)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_a_case_that_fires_and_one_that_is_silent_though_there_is_something_to_look_at(name):
    own = [(given, fires) for alert, given, fires in cases() if alert == name]
    assert any(fires for _, fires in own), "none fires it"
    asked = promql.metrics(ALERTS[name]["expr"])
    assert any(not fires and given & asked for given, fires in own), "none is silent"


def test_cases_are_of_alerts_that_there_are():
    assert {alert for alert, _, _ in cases()} == set(ALERTS)


def test_prometheus_takes_rules_and_configuration():
    assert f"SUCCESS: {len(rules())} rules found" in run(
        "promtool", "check", "rules", "--lint=all", "--lint-fatal", RULES
    )
    run("promtool", "check", "config", COMPOSE / "prometheus.yml")


def test_every_case_comes_out():
    run("promtool", "test", "rules", *TESTS)


def test_alertmanager_takes_its_configuration_and_names_alerts_that_there_are():
    run("amtool", "check-config", COMPOSE / "alertmanager.yml")
    named = re.findall(r"Postroad\w+", (COMPOSE / "alertmanager.yml").read_text("utf-8"))
    assert named and set(named) <= set(ALERTS)


def test_prometheus_reads_the_rules_that_are_there():
    (pattern,) = yaml.safe_load((COMPOSE / "prometheus.yml").read_text("utf-8"))["rule_files"]
    assert list(FOLDER.glob(pattern.rpartition("/")[2])) == [RULES]


def test_the_page_lists_every_alert_and_says_which_cannot_fire_yet():
    text = (ROOT / "deploy/README.md").read_text("utf-8")
    assert set(re.findall(r"^\| (Postroad\w+) \|", text, re.M)) == set(ALERTS)
    asleep = re.search(r"\*\*Asleep\.\*\*.*?\n\n", text, re.S)
    named = set(re.findall(r"Postroad[A-Z]\w+", asleep[0])) if asleep else set()
    assert named == {name for name, rule in ALERTS.items() if promql.metrics(rule["expr"]) & AWAITED.keys()}
