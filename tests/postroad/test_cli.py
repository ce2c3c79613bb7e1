"""The command line without a stack: help, settings, errors; its own queries on a real engine (chdb)."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.local import ROOT
from postroad import cli, settings

runner = CliRunner()


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("POSTROAD_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    settings.load.cache_clear()
    yield
    settings.load.cache_clear()


def postroad(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    base = {name: value for name, value in os.environ.items() if not name.startswith("POSTROAD_")}
    return subprocess.run(
        [sys.executable, "-m", "postroad", *arguments], cwd=ROOT, env=base | environment, capture_output=True, text=True
    )


def test_help_names_every_command_and_loads_no_kafka():
    code = "import sys, postroad.cli; print([m for m in ('aiokafka', 'faust', 'chdb', 'topics') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout == "[]\n"
    shown = runner.invoke(cli.app, ["--help"]).output
    for command in (
        "settings",
        "up",
        "worker",
        "send",
        "timeline",
        "query",
        "tenants",
        "topics",
        "suppressions",
        "held",
    ):
        assert f" {command} " in shown


def test_settings_are_listed(monkeypatch):
    monkeypatch.setenv("POSTROAD_PARTITIONS", "7")
    shown = runner.invoke(cli.app, ["settings"]).output
    (line,) = [line for line in shown.splitlines() if line.startswith("partitions ")]
    assert line.split()[:4] == ["partitions", "7", "4", "POSTROAD_PARTITIONS"]
    assert sum(line.startswith(tuple(settings.Settings.model_fields)) for line in shown.splitlines()) >= len(
        settings.Settings.model_fields
    )


def test_what_a_user_can_put_right_is_one_line_and_status_1(tmp_path):
    wrong = postroad("settings", POSTROAD_PARTITION="4")
    assert (wrong.returncode, wrong.stderr) == (
        1,
        "postroad: POSTROAD_PARTITION: no such setting; did you mean partitions?\n",
    )
    bad = tmp_path / "t.yaml"
    bad.write_text("- tenant: A\n")
    wrong = postroad("tenants", "apply", str(bad))
    assert wrong.returncode == 1 and f"{bad}:1:" in wrong.stderr and "Traceback" not in wrong.stderr
    wrong = postroad("up", POSTROAD_KAFKA="kafka.example:9092")
    assert wrong.returncode == 1 and "postroad worker" in wrong.stderr and "Traceback" not in wrong.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["suppressions", "add", "not an address"], "postroad:"),
        (["query", "nonsense"], "no query 'nonsense'"),
        (["query", "latency", "--param", "site"], "is written NAME=VALUE, where NAME is one of since, tenant, until"),
        (["query", "latency", "--param", "message=x"], "'message=x': a parameter of latency"),
        (["query", "latency", "--format", "parquet", "--out", "no/such/folder"], "postroad:"),
        (["query", "latency", "--out", "x.csv"], "postroad:"),
        (["timeline", "x' OR 1"], "is not a message id"),
        (["send", "pyproject.toml", "--to", "a@b.test", "--tenant", "t"], "no From header"),
        (["up", "--worker", "ingest,send"], "no stage ingest,send: there are ingest"),
        (["send", "absent.eml", "--to", "a@b.test", "--tenant", "t"], "No such file"),
    ],
)
def test_wrong_arguments_are_told(arguments, said):
    wrong = postroad(*arguments)
    assert wrong.returncode == 1 and said in wrong.stderr and "Traceback" not in wrong.stderr


def test_the_queries_of_the_command_line(monkeypatch, tmp_path, capsys):
    pytest.importorskip("chdb")
    from analytics.clickhouse import connect
    from analytics.migrate import migrate
    from postroad import ids

    warehouse = connect(str(tmp_path / "chdb"))
    migrate(warehouse)
    at = 1_800_000_000
    monkeypatch.setattr(cli, "HELD", cli.HELD.replace("now()", f"toDateTime({at})"))
    names = [ids.message_id(at * 1000, "acme", "s1", f"0:{n}", "r@a.test") for n in range(4)]
    rows = [
        *((name, "accepted", 0, 0) for name in names),
        *((name, "held", 0, 1) for name in names[:3]),
        (names[1], "released", 0, 2),
        (names[1], "delivered", 1, 3),
        (names[2], "released", 0, 2),
        (names[2], "held", 1, 4),
    ]
    columns = {
        "message_id": [row[0] for row in rows],
        "kind": [row[1] for row in rows],
        "round": [row[2] for row in rows],
        "ts": [at + row[3] for row in rows],
        "k_offset": list(range(len(rows))),
        "tenant": ["acme"] * len(rows),
        "submission_id": ["s1"] * len(rows),
        "recipient": ["r@a.test"] * len(rows),
    }
    for name, values in columns.items():
        if name in ("k_offset", "round", "ts"):
            columns[name] = [str(value) for value in values]
    listed = ", ".join(columns)
    tuples = ", ".join(str(tuple(values)) for values in zip(*columns.values(), strict=True))
    warehouse.command(f"INSERT INTO events ({listed}) VALUES {tuples}")
    assert {row[0] for row in warehouse.query(cli.HELD).rows} == {names[0], names[2]}
    asked = {"tenant": "acme", "submission": "s1", "since": at}
    assert {row[0]: bool(row[2]) for row in warehouse.query(cli.ENDED, asked).rows} == dict(
        zip(names, (True, True, True, False), strict=True)
    )
    monkeypatch.setattr(cli, "_warehouse", lambda: warehouse)
    cli.timeline(names[1])
    assert [line.split()[:3] for line in capsys.readouterr().out.splitlines()] == [
        ["0.000", "s", "accepted"], ["1.000", "s", "held"], ["2.000", "s", "released"], ["3.000", "s", "delivered"],
    ]  # fmt: skip
    warehouse.close()


def test_a_submission_is_made_of_the_file(monkeypatch, tmp_path):
    written = []

    def write(outputs):
        from topics.client import Place

        written.extend(outputs)
        return [Place(0, 0, 0)]

    monkeypatch.setattr(cli, "_write", write)
    mail = Path(tmp_path / "m.eml")
    mail.write_bytes(b"From: =?utf-8?q?J=C3=B6rg?= <joerg@acme.example>\r\nSubject: x\r\n\r\nhello\r\n")
    arguments = [
        "send",
        str(mail),
        "--to",
        "a@b.test",
        "--to",
        "c@d.test",
        "--to",
        "a@b.test",
        "--tenant",
        "acme",
        "--no-wait",
    ]
    done = runner.invoke(cli.app, [*arguments, "--stream", "broadcast"])
    assert done.exit_code == 0, done.output
    (output,) = written
    assert output.key == b"acme"
    value = output.value
    assert value["sender"] == {"address": "joerg@acme.example", "name": "Jörg"}
    assert [r["address"] for r in value["recipients"]] == ["a@b.test", "c@d.test"]
    assert (value["raw"], value["stream"]) == (mail.read_bytes(), "broadcast")


def test_query_lists_describes_and_writes_files(monkeypatch, tmp_path):
    from analytics.sql import Rows

    asked = {}

    def answer(_, name, **params):
        asked.update(params, name=name)
        return Rows(["site", "n"], [("=1+1", 7)], ["String", "UInt64"])

    monkeypatch.setattr("analytics.queries.run", answer)
    monkeypatch.setattr(cli, "_warehouse", lambda: None)
    listed = runner.invoke(cli.app, ["query", "--list"]).output
    assert "\nlatency: Time from accepted to delivered" in listed
    assert "Parameters: tenant, since" in runner.invoke(cli.app, ["query", "latency", "--describe"]).output
    shown = runner.invoke(
        cli.app, ["query", "campaign_funnel", "--param", "tag=a=b", "--tenant", "t", "--format", "csv"]
    )
    assert shown.stdout_bytes == b"site,n\r\n'=1+1,7\r\n"
    assert asked == {"name": "campaign_funnel", "tag": "a=b", "tenant": "t"}
    file = tmp_path / "a.json"
    assert runner.invoke(cli.app, ["query", "latency", "--format", "json", "--out", str(file)]).output == ""
    assert file.read_text() == '{"site": "=1+1", "n": 7}\n'
    wrong = runner.invoke(cli.app, ["query", "latency", "--out", str(tmp_path / "a.txt")])
    assert "a table is for the terminal" in str(wrong.exception)
    assert (
        runner.invoke(cli.app, ["query", "latency", "--since", "2h", "--out", str(tmp_path / "a.csv")]).exit_code == 0
    )
    assert (tmp_path / "a.csv").read_bytes() == b"site,n\r\n'=1+1,7\r\n"
    assert 7_190 < (datetime.now(UTC) - datetime.fromisoformat(asked["since"])).total_seconds() < 7_300
    monkeypatch.setattr("analytics.queries.run", lambda *_, **__: Rows(["site"], [], ["String"]))
    assert "no rows; without --since" in runner.invoke(cli.app, ["query", "latency"]).stderr
