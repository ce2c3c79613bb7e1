"""What MirrorMaker is told, as Java's properties read it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from deploy.local import mirror
from deploy.local.mirror import TABLES, Mirror
from topics.catalogue import ALL


def told(folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> dict[str, str]:
    started: list[list[str]] = []
    monkeypatch.setattr(mirror, "jars", lambda **_: folder)
    monkeypatch.setattr(mirror.child, "spawn", lambda command, output: started.append(command))
    Mirror(folder, "127.0.0.1:1", "127.0.0.1:2", **options).start()
    lines = Path(started[0][-1]).read_text("utf-8").replace("\\\\", "\\").splitlines()  # as Java unescapes them
    return dict(line.split(" = ", 1) for line in lines)


def test_every_topic_is_copied_under_its_name_and_nothing_is_written_into_the_source(tmp_path, monkeypatch):
    values = told(tmp_path, monkeypatch)
    patterns = values["a->b.topics"].split(",")
    names = [topic.name for topic in ALL] + ["postroad-send-state-changelog"]
    assert all(any(re.fullmatch(pattern, name) for pattern in patterns) for name in names)
    assert not any(re.fullmatch(pattern, "mailx") for pattern in patterns)
    assert values["replication.policy.class"].endswith(".IdentityReplicationPolicy")
    assert values["offset-syncs.topic.location"] == "target" and values["b->a.enabled"] == "false"


def test_two_mirrors_share_no_name(tmp_path, monkeypatch):
    values = told(tmp_path, monkeypatch, name="tables", topics=TABLES)
    assert values["clusters"] == "tablesa, tablesb" and values["tablesb.bootstrap.servers"] == "127.0.0.1:2"
    assert values["tablesa->tablesb.topics"] == "postroad-.*-changelog"
