"""The drills together: one result, and an exit status that no broken rule gets past; the release that comes after this one."""

from __future__ import annotations

import json

import pytest

from loadtest import drills
from loadtest.drills import __main__ as all_drills
from loadtest.drills.release import newer_release
from loadtest.drills.upgrade import ORDER
from loadtest.drills.upgrade import STAGES as OF_THE_ROAD

GOOD = {
    "scale": (0, {"messages": 10, "lost": 0, "unflagged_duplicates": 0, "differences": 0, "drained_s": 3.0}),
    "restore": (0, {"accepted": 5, "lost": 0, "in_flight": 0, "unflagged": 0, "blobs_differ": 0, "ready_s": 9.0}),
}


def outcome(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], **changed: object) -> tuple[int, dict]:
    results = {**GOOD, **changed}
    monkeypatch.setattr(all_drills, "run", lambda drill, short: results[drill])
    monkeypatch.setattr(all_drills, "stop_on_signals", lambda: None)
    status = all_drills.main(["--only", *GOOD])
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("RESULT ")]
    assert len(said) == 1
    return status, json.loads(said[0].removeprefix("RESULT "))


def test_all_is_well(monkeypatch, capsys):
    status, result = outcome(monkeypatch, capsys)
    assert status == 0 and result["lost"] == 0 and result["failed"] == []
    assert result["scale"] == {"messages": 10, "drained_s": 3.0} and result["restore"]["ready_s"] == 9.0


@pytest.mark.parametrize(
    ("drill", "broken"),
    [
        ("scale", (0, {"lost": 1})),
        ("scale", (0, {"unflagged_duplicates": 1})),
        ("restore", (0, {"in_flight": 2})),
        ("restore", (1, {"lost": 0})),
        ("restore", (0, {})),
    ],
    ids=["lost", "unflagged", "in flight", "a status", "no result"],
)
def test_a_broken_rule_is_no_success(monkeypatch, capsys, drill, broken):
    assert outcome(monkeypatch, capsys, **{drill: broken})[0] == 1


def test_a_drill_is_there_for_each_name_and_replaces_every_stage():
    for drill in all_drills.DRILLS:
        assert (all_drills.ROOT / f"{drills.__name__.replace('.', '/')}/{drill}.py").exists()
    assert sorted(ORDER) == sorted(OF_THE_ROAD)


def test_the_release_after_this_one_can_be_made(tmp_path):
    newer = newer_release(tmp_path / "newer")
    assert '"campaign"' in (newer / "avro/Attempt.avsc").read_text("utf-8")
