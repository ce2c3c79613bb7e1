"""`postroad status`: what is an alarm, what is shown, Kafka away; and the shell's completion."""

import os
import subprocess
import sys

import pytest
from rich.console import Console

from postroad.commands.status import alarms, picture
from topics.overview import StageState


def stage(state="Stable", replicas=2, lag=0, rate=0.0, oldest_s=None):
    return StageState("send", state, replicas, lag, rate, oldest_s)


@pytest.mark.parametrize(
    ("each", "said"),
    [
        (stage(), []),
        (stage(lag=9, rate=5, oldest_s=2), []),
        (stage(state="Absent", replicas=0), ["send: no worker in its group"]),
        (stage(replicas=0, lag=1200), ["send: no worker in its group, 1,200 wait"]),
        (stage(state="PreparingRebalance"), ["send: its group is PreparingRebalance"]),
        (stage(lag=9), ["send: 9 wait and nothing moved between two looks"]),
        (stage(lag=9, rate=1, oldest_s=301), ["send: the oldest record waits for 301 s"]),
    ],
)
def test_alarms(each, said):
    assert alarms([each]) == said


def test_the_picture_tells_stages_sites_and_alarms_and_obeys_no_stranger():
    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    row = {"site": "[red]x", "waiting": 7, "oldest": "2026-11-23", "reply": "421 \x1b[2J later"}
    console.print(picture([stage(replicas=0, lag=1200, oldest_s=4)], [row], ""))
    text = console.export_text()
    assert "1,200" in text and "4.0 s" in text and "[red]x" in text and "\\u001b[2J" in text and "ALARM send" in text
    assert "\x1b" not in text


def run(*words, **environment):
    return subprocess.run([sys.executable, "-m", "postroad", *words], capture_output=True, text=True, timeout=60,
                          env={**os.environ, **environment})  # fmt: skip


def test_kafka_away_is_one_line():
    done = run("status", "--json", POSTROAD_KAFKA="127.0.0.1:1")
    assert done.returncode == 1 and done.stdout == ""
    assert "is Kafka there?" in done.stderr and len(done.stderr.splitlines()) == 1


def test_completion_knows_the_commands():
    shown = run("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert shown.returncode == 0 and "_COMPLETE" in shown.stdout
    found = subprocess.run([os.path.join(os.path.dirname(sys.executable), "postroad")], capture_output=True, text=True,
                           timeout=60, env={**os.environ, "_POSTROAD_COMPLETE": "complete_bash",
                                            "COMP_WORDS": "postroad sta", "COMP_CWORD": "1"})  # fmt: skip
    assert found.stdout.split() == ["status"]
