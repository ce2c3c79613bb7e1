"""Which stages a process runs, and that Faust's own command finds each app."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from faust.types import TP

from agents import route, worker
from agents.application import build
from agents.services import Services
from agents.stage_app import StageApp
from agents.worker import STAGES, UnknownStage, chosen
from postroad.settings import Settings
from topics.installation import Installation

ROOT = Path(worker.__file__).parents[1]
OWN = TP("mail.outbound", 0)


async def test_what_is_under_way_to_webhooks_ends_with_the_worker_and_after_its_stages(monkeypatch):
    ends = []

    class App:
        beacon = SimpleNamespace(reattach=lambda beacon: None)

        async def maybe_start(self):
            return None

        def is_ready(self):
            return False

        async def stop(self):
            ends.append("stage")

    services = Services(Settings())
    post = asyncio.create_task(asyncio.sleep(3600))
    services.notifier._tasks.add(post)
    monkeypatch.setattr("agents.services.services", lambda: services)
    monkeypatch.setattr(worker, "app_of", lambda name: App())
    fleets = []
    monkeypatch.setattr(
        worker,
        "Worker",
        lambda fleet, **_: fleets.append(fleet) or SimpleNamespace(execute_from_commandline=lambda: None),
    )
    monkeypatch.setattr(worker.logs, "set_up", lambda process, settings: None)  # of this process it is pytest's
    worker.run(["notify"])
    async with fleets[0]:
        assert not post.done()
    assert ends == ["stage"] and post.cancelled()


def test_names_in_the_order_of_the_road():
    assert chosen(["send", "ingest", "send"]) == ["ingest", "send"]
    assert chosen(["all"]) == chosen(["route", "all"]) == list(STAGES)


@pytest.mark.parametrize(
    ("names", "text"), [([], "was named"), (["sned"], "no stage sned: there are ingest,"), (["Send", "all"], "Send")]
)
def test_unknown_names(names, text):
    with pytest.raises(UnknownStage, match=text):
        chosen(names)


def test_there_is_one_module_for_each_stage():
    helpers = {
        "__init__",
        "application",
        "describe",
        "door",
        "endpoint",
        "exporter",
        "health",
        "machine",
        "stores",
        "mail",
        "outputs",
        "reading",
        "repeats",
        "report_mails",
        "reports",
        "rescheduling",
        "services",
        "signing",
        "stage_app",
        "worker",
    }
    assert {path.stem for path in (ROOT / "agents").glob("*.py")} - helpers == set(STAGES)


def test_no_stage_is_longer_than_150_lines():
    lengths = {path.name: len(path.read_text().splitlines()) for path in (ROOT / "agents").glob("*.py")}
    assert not {name: length for name, length in lengths.items() if length > 150}


def run(command, tmp_path):
    env = {**os.environ, "POSTROAD_DATA_DIR": str(tmp_path), "POSTROAD_KAFKA": "127.0.0.1:1", "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *command], env=env, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_faust_finds_the_app_of_a_stage(tmp_path):
    found = run(["-m", "faust", "-A", "agents.route", "agents"], tmp_path)
    assert found.returncode == 0, found.stderr
    assert "postroad-route" in found.stdout + found.stderr


def test_every_stage_has_an_app_with_its_own_id_and_importing_one_opens_nothing(tmp_path):
    code = f"""
import importlib
for name in {STAGES!r}:
    module = importlib.import_module("agents." + name)
    assert module.stage.name == name == module.NAME
import os; assert not os.listdir({str(tmp_path)!r})
from agents.worker import app_of
apps = [app_of(name) for name in {STAGES!r}]
assert [app.conf.id for app in apps] == ["postroad-" + name for name in {STAGES!r}]
assert len({{id(app.services) for app in apps}}) == 1
"""
    found = run(["-c", code], tmp_path)
    assert found.returncode == 0, found.stderr


def test_a_module_has_nothing_else_to_give():
    from agents import send

    with pytest.raises(AttributeError, match="nothing"):
        send.nothing  # noqa: B018  # the access is the test


def test_the_web_server_stays_off_whatever_faust_worker_says(tmp_path):
    """`faust worker` sets web_enabled; its /table views would serve table data on every address of the machine."""
    app = build(route.stage, Installation("127.0.0.1:9", data_dir=tmp_path))
    app.conf.web_enabled = True
    assert list(app.boot_strategy.web_server()) == []


def app_of(assigned, sought, *, generation=1, rebalancing=False, ready=True):
    """What `is_ready` asks."""
    return SimpleNamespace(
        consumer=SimpleNamespace(assignment=lambda: assigned, sought=lambda: sought),
        runner=SimpleNamespace(ready=ready, sources={"mail.outbound"}), _consumer=True,
        consumer_generation_id=generation, rebalancing=rebalancing,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("app", "expected"),
    [
        (app_of({OWN}, {OWN}), True),
        (app_of({OWN}, set()), False),
        (app_of({OWN}, {OWN}, ready=False), False),
        (app_of(set(), set(), generation=0), False),
        (app_of(set(), set(), rebalancing=True), False),
        (app_of(set(), set(), ready=False), True),
    ],
    ids=["reads", "recovers", "store-silent", "not-joined", "rebalances", "stands-by"],
)
def test_ready_is_who_reads_all_it_has_or_has_nothing(app, expected):
    """More workers than partitions: the one that got none was never ready, and whoever waited for it gave up."""
    assert StageApp.is_ready(app) is expected
