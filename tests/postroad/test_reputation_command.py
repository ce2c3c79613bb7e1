"""postroad reputation: what it shows, and what it writes."""

import json

import pytest
from typer.testing import CliRunner

from postroad import cli
from postroad.commands import reputation as commands
from postroad.reputation import EMPTY, HOUR_MS, ONE, add, pin_key

NOW = 1_700_000_000_000
runner = CliRunner()


@pytest.fixture
def known(monkeypatch):
    """(histories, grades) as the topics have them, and what is written."""
    history = add(EMPTY, NOW // HOUR_MS, 1000 * ONE["sent"] + 800 * ONE["delivered"] + 200 * ONE["hard"], NOW)
    parts = {"tenant:acme": [history, history], "source:a": [history]}
    grades = {"tenant:acme": {"subject": "tenant:acme", "level": "hold", "since": NOW, "pinned": False, "until": None, "by": "",
                              "reason": "", "day": 0, "sent_today": 0, "bounced_today": 0, "complained_today": 0}}  # fmt: skip
    written = []

    async def read():
        return parts, grades

    monkeypatch.setattr(commands, "_read", read)
    monkeypatch.setattr(commands, "_now", lambda: NOW)
    monkeypatch.setattr(cli, "_write", written.extend)
    return parts, grades, written


def run(*arguments):
    return runner.invoke(cli.app, ["reputation", *arguments])


def test_show_sums_partitions_and_names_the_step(known):
    shown = run("show").output
    (acme,) = [line.split() for line in shown.splitlines() if line.startswith("tenant:acme")]
    assert acme[1] == "hold" and int(acme[2]) > 1900
    one = json.loads(run("show", "source:a", "--json").output)
    assert (one["subject"], one["level"], one["today"]["hard"]) == ("source:a", "ok", 200)
    assert "hours" in run("show", "source:a").output, "one alone has its hours as well"


def test_show_of_nobody(known):
    result = run("show", "tenant:nobody")
    assert result.exit_code == 1 and "nothing is known" in str(result.exception)


def test_pin_and_unpin(known):
    _, grades, written = known
    assert (
        run("pin", "tenant:acme", "ok", "--until", "2h", "--reason", "their list is clean now", "--by", "op").exit_code
        == 0
    )
    event, grade = written
    assert (event.value["kind"], event.value["tenant"], event.value["rule"]) == ("noted", "acme", "tenant:acme")
    assert "pinned to ok by op: their list is clean now" in event.value["detail"]
    assert grade.key == pin_key("tenant:acme").encode() and grade.value["until"] == NOW + 2 * HOUR_MS
    grades[pin_key("tenant:acme")] = grade.value
    assert "ok by op until" in " ".join(run("show", "tenant:acme").output.split())
    written.clear()
    assert run("unpin", "tenant:acme").exit_code == 0
    assert [output.value for output in written if output.key == grade.key] == [None]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("pin", "acme", "hold"), "no subject"), (("pin", "tenant:acme", "hold", "--until", "2020-01-01"), "is over"),
        (("pin", "tenant:acme", "hold", "--until", "soon"), "how long"), (("pin", "tenant:acme", "hold", "--until", "1-2-3"), "no time"),
        (("pin", "tenant:acme", "hold", "--reason", "a\nb"), "one line"), (("unpin", "tenant:acme"), "not pinned"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_writes_nothing(known, arguments, why):
    result = run(*arguments)
    assert result.exit_code == 1 and why in str(result.exception) and known[2] == []
