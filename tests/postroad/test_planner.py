"""`postroad plan`: the formulas by hand, more load never needs less, and what nobody can plan for."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from postroad import cli, planner
from postroad.planner import Load, PlanError
from postroad.settings import Settings
from topics import catalogue

ROOT = Path(__file__).parents[2]


def test_an_example_by_hand():
    found = planner.plan(planner.load("10M", "100k/min", "2k", "30d"))
    assert found.workers["send"] == 4  # 1,666.7/s x 1.32 ms = 2.2 cores, at 60 % 3.7
    assert found.workers["score"] == 2  # 0.54 of a core; never one alone
    assert (found.partitions, found.cells) == (8, 1)
    mail = 2048 + 6 * (1500 + 2048)
    assert found.kafka_bytes == pytest.approx(10e6 * 3 * (mail * 7 + 5 * 500 * 30))
    assert found.brokers == 3
    assert found.clickhouse_bytes == pytest.approx(184.2e9)  # 10M x 5 x 61.4 x 30 x 2
    assert found.sources == 8  # 666.7/s to the largest site, 89.7 each
    assert found.warm_up_days == 38  # 4M a day by 8 are 500,000 each: the plan allows 465,000 on day 37, 550,000 on 38
    assert found.smtp_bytes_month == pytest.approx(10e6 * 30.44 * 1.2 * 3048)
    assert found.limits[0].name == "rate of egress sources at the largest site"
    assert found.limits[0].headroom == pytest.approx(8 * 89.7 / 666.667, rel=1e-3)


@settings(max_examples=200, deadline=None)
@given(st.floats(1e4, 2e10), st.floats(1, 1000), st.floats(1, 50))
def test_more_load_never_needs_less_and_everything_suffices(per_day, more, factor):
    small, large = (
        planner.plan(Load(day, day / 86_400 * factor, 2048, 30)) for day in (per_day, min(per_day * more, 1e11))
    )
    for name in ("cells", "partitions", "doors", "brokers", "kafka_bytes", "rocksdb_bytes", "clickhouse_shards",
                 "clickhouse_bytes", "sources", "memory", "smtp_bytes_month", "kafka_bytes_month"):  # fmt: skip
        assert getattr(small, name) <= getattr(large, name), name
    assert all(small.workers[stage] <= large.workers[stage] for stage in small.workers)
    for each in (small, large):
        assert each.limits[0].headroom == min(limit.headroom for limit in each.limits) >= 1 - 1e-9
        assert max(each.workers.values()) <= each.cells * each.partitions


@pytest.mark.parametrize(
    ("per_day", "peak", "size", "retention", "said"),
    [
        ("-5", "", "2k", "30d", "positive number"),
        ("0", "", "2k", "30d", "from 1"),
        ("nan", "", "2k", "30d", "positive number"),
        ("1e400", "", "2k", "30d", "positive number"),
        ("9" * 400, "", "2k", "30d", "positive number"),
        ("999999B", "", "2k", "30d", "can be planned for"),
        ("10 M", "", "2k", "30d", "positive number"),
        ("١٠M", "", "2k", "30d", "positive number"),
        ("10M", "100k", "2k", "30d", "500/s"),
        ("10M", "100k/fortnight", "2k", "30d", "500/s"),
        ("10M", "-1/s", "2k", "30d", "positive number"),
        ("10M", "1/s", "2k", "30d", "less than the mean"),
        ("10M", "20M/s", "2k", "30d", "is the unit right"),
        ("10M", "", "0", "30d", "size_max"),
        ("10M", "", "2G", "30d", "--size"),
        ("10M", "", "30M", "30d", "size_max"),
        ("10M", "", "2k", "30", "12h"),
        ("10M", "", "2k", "0d", "from 1h"),
        ("10M", "", "2k", "9999w", "from 1h"),
    ],
)
def test_what_nobody_can_plan_for_is_said(per_day, peak, size, retention, said):
    with pytest.raises(PlanError, match=said):
        planner.load(per_day, peak, size, retention)


def test_units():
    assert planner.load("20B", "1M/s", "2KB", "1w") == Load(20e9, 1e6, 2048, 7)
    assert planner.load("10k", "", "1.5M", "12h") == Load(10e3, 40e3 / 86_400, 1.5 * 2**20, 0.5)


def test_every_figure_says_where_it_is_from():
    for name, figure in planner.figures().items():
        assert figure.value > 0 and figure.unit and figure.note, name
        assert (figure.basis == "measured") == bool(figure.date and figure.machine and figure.command), name
        assert figure.basis in {"measured", "design", "assumed"}
        if figure.basis == "measured":
            assert f"\n{figure.command.split()[1]}:" in "\n" + (ROOT / "Makefile").read_text(), figure.command


def test_what_the_design_says_is_so():
    f = {name: figure.value for name, figure in planner.figures().items()}
    assert f["mail_retention"] * catalogue.DAY_MS == catalogue.OUTBOUND.retention_ms
    assert f["events_retention"] * catalogue.DAY_MS == catalogue.EVENTS.retention_ms
    assert any(getattr(each, "le", 0) == f["partitions_max"] for each in Settings.model_fields["partitions"].metadata)
    assert f"messages_per_second = {f['site_rate']:g}" in (ROOT / "postroad/shaping/default.toml").read_text()


def test_the_page_tells_every_formula_and_figure():
    page = (ROOT / "docs" / "planning.md").read_text()
    for what, formula in planner.FORMULAS:
        assert f"| {what} | {formula} |" in page
    for name, figure in planner.figures().items():
        assert f"| {name} | {figure.value:g} | {figure.unit} | {figure.basis} " in page


def test_the_command():
    run = CliRunner().invoke(cli.app, ["plan", "--per-day", "10M", "--peak", "100k/min", "--json", "--formulas"])
    told = json.loads(run.stdout)
    assert told["workers"]["send"] == 4 and told["first_limit"] == told["limits"][0]["name"]
    assert "hop_bytes" in told["assumed"] and "send_cpu" not in told["assumed"] and told["formulas"]
    run = CliRunner().invoke(cli.app, ["plan", "--per-day", "20B"])
    assert run.exit_code == 0 and "bites first: " in run.stdout and "assumed, not measured: " in run.stdout
    run = CliRunner().invoke(cli.app, ["plan", "--per-day", "10M", "--size", "huge"])
    assert isinstance(run.exception, cli.CommandError)
