"""`postroad audit`: what it shows, and its exit status."""

import json

import pytest
import typer
from typer.testing import CliRunner

from analytics import audit as sources
from analytics import clickhouse
from postroad import cli, settings
from postroad.commands.audit import since_ms
from postroad.ledger import Count, Finding, Report

runner = CliRunner()
NOW = 1_700_000_000_000
LOST = Finding("06aaa", "shop", "broadcast", "routed", NOW)


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POSTROAD_CONFIG", raising=False)
    settings.load.cache_clear()
    yield
    settings.load.cache_clear()


@pytest.fixture
def reports(monkeypatch):
    """What the two sources say; a test changes it. Keeps how they were asked."""
    found = {}
    for name in ("topics", "clickhouse"):
        found[name] = Report(name, NOW, {("shop", "broadcast"): Count(3, 2, 1)}, {("shop", "broadcast"): (2, 2)})
    found["asked"] = []

    async def from_topics(installation, *given):
        found["asked"].append(given)
        return found["topics"]

    def from_clickhouse(warehouse, *given):
        found["asked"].append(given)
        return found["clickhouse"]

    monkeypatch.setattr(sources, "from_topics", from_topics)
    monkeypatch.setattr(sources, "from_clickhouse", from_clickhouse)
    monkeypatch.setattr(clickhouse, "connect", lambda url: None)
    return found


def audit(*arguments):
    return runner.invoke(cli.app, ["audit", *arguments])


def test_in_order_is_status_0_and_shows_the_sum(reports):
    done = audit("--tenant", "shop", "--since", "2h")
    assert done.exit_code == 0, done.output
    assert "accepted = ended + in flight" in done.output and done.output.endswith("in order\n")
    (since, tenant, now, allowed), other = reports["asked"]
    assert tenant == "shop" and now - since == 2 * 3_600_000 and allowed.transit_ms == 600_000
    assert other == (since, tenant, now, allowed)
    for line in ("(all)", "shop"):
        assert any(row.startswith(line) and row.split()[-3:] == ["3", "2", "1"] for row in done.output.splitlines())


@pytest.mark.parametrize("kind", ["orphans", "two_ends", "strays"])
@pytest.mark.parametrize("source", ["topics", "clickhouse"])
def test_any_finding_of_any_source_is_status_1_with_what_to_do(reports, source, kind):
    getattr(reports[source], kind).append(LOST)
    done = audit()
    assert done.exit_code == 1
    assert "06aaa" in done.output and "postroad timeline ID" in done.output and "NOT in order" in done.output
    assert audit("--source", source).exit_code == 1
    assert audit("--source", {"topics": "clickhouse", "clickhouse": "topics"}[source]).exit_code == 0


def test_a_difference_is_status_1(reports):
    reports["clickhouse"].settled["shop", "broadcast"] = (2, 1)
    done = audit()
    assert (
        done.exit_code == 1
        and "topics has 2 accepted and 2 ended, clickhouse has 2 accepted and 1 ended" in done.output
    )
    assert audit("--source", "topics").exit_code == 0


def test_what_waits_in_a_dead_letter_is_shown_and_no_error(reports):
    reports["topics"].explained.append(LOST._replace(letter="mail.outbound[1]@7"))
    reports["clickhouse"].orphans.append(LOST)
    done = audit()
    assert done.exit_code == 0 and "mail.outbound[1]@7" in done.output and "dead-letters show" in done.output


def test_json(reports):
    reports["topics"].orphans.append(LOST)
    done = audit("--json")
    found = json.loads(done.output)
    assert (
        done.exit_code == 1
        and found["ok"] is False
        and [one["source"] for one in found["sources"]] == ["topics", "clickhouse"]
    )
    assert found["sources"][0]["orphans"] == [LOST._asdict()]
    assert found["sources"][0]["counts"] == [
        {"tenant": "shop", "stream": "broadcast", "accepted": 3, "ended": 2, "in_flight": 1}
    ]


def test_no_clickhouse_is_an_error_that_says_what_to_do(reports, monkeypatch):
    monkeypatch.setenv("POSTROAD_CLICKHOUSE_HTTP", "")
    done = audit()
    assert isinstance(done.exception, cli.CommandError) and "--source topics" in str(done.exception)


def test_a_time_that_no_calendar_has_and_a_hostile_name_are_shown(reports):
    evil = "[bold]\x1b[2J\x1b]0;owned\x07\r\x9b2J\u202e"
    reports["topics"].strays.append(Finding("[bold]x", evil, "broadcast", evil, 1 << 62, evil))
    for name in ("topics", "clickhouse"):
        reports[name].counts[evil, "broadcast"] = Count(1, 1, 0)
        reports[name].settled[evil, "broadcast"] = (1, name == "topics")
    done = audit()
    assert done.exit_code == 1 and "sources differ: [bold]" in done.output and "\\u001b[2J" in done.output
    assert all(c.isprintable() or c == "\n" for c in done.output), "nothing that a terminal obeys"


@pytest.mark.parametrize(
    ("text", "ms"),
    [("90s", NOW - 90_000), ("2h", NOW - 7_200_000), ("7d", NOW - 604_800_000), ("2023-11-14", 1_699_920_000_000),
     ("2023-11-14T01:00:00+01:00", 1_699_920_000_000), ("1900-01-01", 0), ("999999d", 0)],
)  # fmt: skip
def test_since(text, ms):
    assert since_ms(text, NOW) == ms


@pytest.mark.parametrize("text", ["", "yesterday", "2w", "-2h", "2023-11-14T01:00:00", "1e9d"])
def test_since_that_is_no_time(text):
    with pytest.raises(typer.BadParameter):
        since_ms(text, NOW)
