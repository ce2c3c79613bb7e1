"""`postroad report`: the window that is asked for, the file that is written, and what it says when it cannot."""

import sys
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from analytics.sql import Rows
from postroad import cli, settings

runner = CliRunner()


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch, tmp_path):
    monkeypatch.delenv("POSTROAD_CLICKHOUSE", raising=False)
    monkeypatch.chdir(tmp_path)
    settings.load.cache_clear()
    yield
    settings.load.cache_clear()


@pytest.fixture
def asked(monkeypatch):
    """What each query is asked; the warehouse is empty."""
    found = {}

    def answer(_, name, **params):
        found[name] = params
        return Rows([], [])

    monkeypatch.setattr("analytics.queries.run", answer)
    monkeypatch.setattr(cli, "_warehouse", lambda: None)
    return found


def test_it_writes_one_page(asked, tmp_path):
    done = runner.invoke(
        cli.app,
        ["report", "--since", "2026-01-31", "--until", "2026-01-31T10:30:00Z", "--tenant", "shop", "--out", "r.html"],
    )
    assert done.exit_code == 0, done.output
    assert done.stdout == "r.html: 0 messages that ended from 2026-01-31 00:00 to 2026-01-31 11:00 UTC\n"
    assert (tmp_path / "r.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    window = {
        "tenant": "shop",
        "since": datetime(2026, 1, 31, tzinfo=UTC),
        "until": datetime(2026, 1, 31, 11, tzinfo=UTC),
    }
    assert len(asked) == 11 and all(params == window for params in asked.values())


def test_a_day_up_to_now_is_the_default(asked, tmp_path):
    assert runner.invoke(cli.app, ["report"]).exit_code == 0
    window = asked["volumes_by_hour"]
    assert timedelta(hours=24) <= window["until"] - window["since"] <= timedelta(hours=25) and window[
        "until"
    ] > datetime.now(UTC)
    assert (tmp_path / "report.html").exists()


def test_what_cannot_be_done_is_told(asked, monkeypatch):
    assert "is no time: write 2h" in runner.invoke(cli.app, ["report", "--since", "yesterday"]).output
    turned = runner.invoke(cli.app, ["report", "--since", "2026-01-31", "--until", "2026-01-30"])
    assert "a report is over at least an hour" in str(turned.exception)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in [name for name in sys.modules if name.startswith("analytics.report")]:
        monkeypatch.delitem(sys.modules, name)
    assert "pip install 'postroad[analysts]'" in str(runner.invoke(cli.app, ["report"]).exception)
