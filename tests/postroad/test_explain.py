"""`postroad explain` and `postroad queue`: what they say of what ClickHouse has."""

from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from analytics import queries
from analytics.sql import Rows
from postroad import cli
from postroad.commands.explain import WORDS, told
from postroad.events import ENDS

runner = CliRunner()
ID = "00clp7o1qs0123456789abcdg0"
NOON = datetime(2026, 3, 1, 12)  # as the driver of an old server gives it
NEVER = datetime(1970, 1, 1)
ROW = {
    "at": NOON, "ms": 7, "kind": "deferred", "stage": "classify", "round": 0, "attempt": 1, "reason": "greylisted",
    "rule": "greylisted", "site": "there.test", "source": "b2", "mx_host": "mx1.there.test", "reply_code": 451,
    "enhanced_code": "4.7.1", "reply": "come back\x1b[2J", "duration_ms": 12, "possible_duplicate": 0, "due_at": NOON,
    "detail": "", "mx_address": "192.0.2.1", "tls": "TLSv1.3", "shaping": "abc", "phases": ["rcpt"], "phase_ms": [3],
}  # fmt: skip


@pytest.fixture
def asked(monkeypatch):
    """What the query gives; a test changes it."""
    found = {"rows": [ROW]}
    monkeypatch.setattr(cli, "_warehouse", lambda: None)

    def run(warehouse, name, **params):
        found["asked"] = (name, params)
        return Rows(list(found["rows"][0]) if found["rows"] else [], [tuple(row.values()) for row in found["rows"]])

    monkeypatch.setattr(queries, "run", run)
    return found


def test_every_decision_with_all_that_is_known(asked):
    output = runner.invoke(cli.app, ["explain", ID]).output
    for part in ("tried again (attempt 1): greylisted", "rule:        greylisted", "b2", "mx1.there.test [192.0.2.1], TLSv1.3, 12 ms",
                 "rcpt 3", "451 4.7.1 come back\\u001b[2J", "shaping:     abc", "not before:  2026-03-01 12:00:00"):  # fmt: skip
        assert part in output
    assert "\x1b" not in output


def test_every_kind_has_words():
    assert set(ENDS) < set(WORDS)
    for kind in WORDS:
        bare = {
            name: [] if isinstance(value, list) else 0 if isinstance(value, int) else "" for name, value in ROW.items()
        }
        assert told({**bare, "at": NOON, "due_at": NEVER, "kind": kind, "stage": "s"}) == [
            f"2026-03-01 12:00:00.000  s: it {WORDS[kind]}"
        ]


@pytest.mark.parametrize("id", [ID, "", "x" * 100_000, "' OR 1 = 1 --", "a\0b"])
def test_a_message_that_nobody_knows_is_exit_status_1(asked, id):
    asked["rows"] = []
    result = runner.invoke(cli.app, ["explain", id])
    assert isinstance(result.exception, cli.CommandError) and len(str(result.exception)) < 200


def test_queue(asked):
    asked["rows"] = [{"site": "s.test", "waiting": 5, "deferred": 2, "oldest": NOON.replace(tzinfo=UTC), "next": NEVER, "reason": "dns",
                      "reply_code": 451, "reply": "no\x1b" + "x" * 900, "replied": NOON}]  # fmt: skip
    output = runner.invoke(cli.app, ["queue", "--site", "s.test"]).output
    assert "s.test" in output and "451" in output and "\x1b" not in output
    assert asked["asked"][0] == "queue" and asked["asked"][1]["site"] == "s.test"
    assert '"waiting": 5' in runner.invoke(cli.app, ["queue", "--json"]).output
