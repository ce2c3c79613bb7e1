"""`postroad up` as a process, with a real broker and a worker that only says it is there."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deploy.local import ROOT
from deploy.local.kafka import free_port
from deploy.local.lag import Load, line
from deploy.local.stack import Stack, StackError
from postroad.settings import Settings

WORKER = """
import os, signal, sys, time
from pathlib import Path
def end(*_):
    print("clean", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print(os.getpid(), *sys.argv[1:], flush=True)
Path(os.environ["POSTROAD_READY_FILE"]).touch()
while True:
    time.sleep(60)
"""
UP = """
import sys
from deploy.local import stack
from postroad.settings import load
stack.WORKER = (sys.executable, sys.argv[1])
stack.Stack(load()).run()
"""


class Up:
    """One run of the supervisor; `say` waits for a line."""

    def __init__(self, folder: Path, port: int):
        (folder / "worker.py").write_text(WORKER)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("POSTROAD_")}
        environment |= {
            "POSTROAD_DATA_DIR": str(folder / "data"),
            "POSTROAD_KAFKA": f"127.0.0.1:{port}",
            "POSTROAD_PARTITIONS": "1",
        }
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-c", UP, str(folder / "worker.py")], cwd=ROOT, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def expect(self, pattern: str) -> None:
        said = []
        for text in self.process.stdout:
            said.append(text)
            if re.search(pattern, text):
                return
        raise AssertionError(f"never said {pattern}: {''.join(said)}")

    def workers(self) -> list[int]:
        text = (self.folder / "logs" / "worker-0.log").read_text()
        return [int(pid) for pid in re.findall(r"^(\d+) all$", text, re.M)]

    def broker(self) -> int:
        return int((self.folder / "kafka" / "pid").read_text())


def gone(pid: int) -> bool:
    """Whether the process has ended (a zombie, where nobody collects orphans, has)."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def test_up_keeps_its_children_and_leaves_nothing_behind(tmp_path):
    port = free_port()
    up = Up(tmp_path, port)
    try:
        up.expect("ready in")
        os.kill(up.workers()[-1], signal.SIGKILL)
        up.expect("worker all ended with status -9, starts again in 1 s")
        second = Up(tmp_path, port)
        assert "runs already" in second.process.communicate()[0]
        assert second.process.returncode == 1
        deadline = time.monotonic() + 20
        while len(up.workers()) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.2)
        up.process.send_signal(signal.SIGTERM)
        assert up.process.wait(40) == 0
        assert (tmp_path / "logs" / "worker-0.log").read_text().endswith("clean\n")
        assert gone(up.workers()[-1]) and gone(up.broker())

        up = Up(tmp_path, port)
        up.expect("ready in")
        worker, broker = up.workers()[-1], up.broker()
        up.process.kill()
        up.process.wait()
        assert gone(worker) and gone(broker)

        up = Up(tmp_path, port)
        up.expect("ready in")
        up.process.send_signal(signal.SIGINT)
        assert up.process.wait(40) == 0
    finally:
        up.process.kill()
        up.process.wait()


def test_up_is_for_a_broker_of_its_own():
    with pytest.raises(StackError, match="postroad worker"):
        Stack(Settings(kafka="kafka.example:9092"))


def test_the_line_names_busy_stages_with_numbers():
    loads = {"ingest": Load(1234.4, 0), "send": Load(0, 56_789), "route": Load(0, 0)}
    assert line(loads) == "ingest 1,234/s | send 0/s (56,789 wait) | route"
    assert line({}) == "no stage has read anything yet"


@pytest.mark.parametrize(("inbound", "children"), [("", 1), ("127.0.0.1:2526", 2)])
def test_the_inbound_mx_is_a_child_where_it_has_a_place(tmp_path, inbound, children):
    stack = Stack(Settings(data_dir=tmp_path / "data", inbound=inbound))
    assert len(stack._workers) == children
    assert all(not kept.ready() for kept in stack._workers)
