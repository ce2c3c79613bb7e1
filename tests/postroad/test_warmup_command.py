"""`postroad warmup`: the plan beside what was sent, and what rests, and why."""

import datetime
import json
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from postroad import cli, settings
from postroad.commands.warmup import progress
from postroad.shaping.warmup import EPOCH, Plan

TODAY = datetime.datetime.now(datetime.UTC).date()
DAY = (TODAY - EPOCH).days


def row(source="a", site="big", used=0, bounced=0, sent=0, complained=0):
    return {"source": source, "site": site, "used": used, "bounced": bounced, "sent": sent, "complained": complained}


def states(rows, **plans):
    return [each["state"] for each in progress(plans, rows, DAY)]


def test_the_day_and_what_it_allows():
    (found,) = progress({"a": Plan(TODAY - datetime.timedelta(2), (5, 9, 200))}, [row(used=120, bounced=3)], DAY)
    assert found == {**row(used=120, bounced=3), "day": 3, "days": 3, "allowance": 200, "state": ""}


def test_a_source_that_has_sent_nothing_is_there():
    (found,) = progress({"a": Plan(TODAY)}, [], DAY)
    assert (found["source"], found["site"], found["day"], found["used"], found["allowance"]) == ("a", "", 1, 0, 50)


@pytest.mark.parametrize(
    ("start", "counted", "state"),
    [
        (1, {}, "not begun"),
        (0, {"used": 50}, "full"),
        (-60, {"used": 9_999, "bounced": 9_999}, "warm"),
        (-2, {"used": 200, "bounced": 20}, "paused: 10.00% bounced, above 5.00%"),
        (-2, {"used": 10, "sent": 1000, "complained": 4}, "paused: 0.40% complained, above 0.30%"),
    ],
)
def test_states(start, counted, state):
    assert states([row(**counted)], a=Plan(TODAY + datetime.timedelta(start))) == [state]


def test_complaints_of_one_site_rest_the_source_at_all_of_them():
    rows = [row(sent=500, complained=4), row(site="small", sent=500)]
    assert states(rows, a=Plan(TODAY)) == ["paused: 0.40% complained, above 0.30%"] * 2


@pytest.fixture
def warmup(monkeypatch, tmp_path):
    """The command, with two sources in shaping.toml; `asked` is what ClickHouse was asked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POSTROAD_CONFIG", raising=False)
    (tmp_path / "s.toml").write_text(f'[warmup."a"]\nstart = {TODAY}\n[warmup."b"]\nstart = {TODAY}\n')
    monkeypatch.setenv("POSTROAD_SHAPING", "s.toml")
    settings.load.cache_clear()
    asked = []

    def query(sql, values):
        asked.append(values)
        return SimpleNamespace(dicts=lambda: [row(site="\x1b[31mred", used=7)])

    monkeypatch.setattr(cli, "_warehouse", lambda: SimpleNamespace(query=query))
    yield lambda *arguments: CliRunner().invoke(cli.app, ["warmup", *arguments]), asked
    settings.load.cache_clear()


def test_what_is_printed(warmup):
    run, asked = warmup
    done = run()
    assert done.exit_code == 0, done.output
    assert "\x1b" not in done.output and "1 of 40" in done.output and " 50 " in done.output
    assert asked[0]["sources"] == ["a", "b"] and "user-unknown" in asked[0]["hard"]
    assert (asked[0]["today"] - asked[0]["since"]).days == 7
    rows = [json.loads(line) for line in run("--json", "--source", "a").output.splitlines()]
    assert [(each["source"], each["used"], each["allowance"]) for each in rows] == [("a", 7, 50)]


def test_no_such_plan_is_said(warmup, tmp_path):
    run, _ = warmup
    assert "no source 'c' warms up" in str(run("--source", "c").exception)
    (tmp_path / "s.toml").write_text("")
    assert "no source warms up" in str(run().exception)
