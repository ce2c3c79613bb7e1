"""The parts of the chaos harness: a network that is cut for real, one clock for many processes, a disk that is full."""

import asyncio
import dataclasses
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from aiokafka.errors import KafkaError

from analytics import server
from deploy.local import ROOT, child
from deploy.local.kafka import LOOPBACK, free_port
from deploy.local.stack import Kept
from loadtest.chaos import fleet as fleets
from loadtest.chaos import proxy
from loadtest.chaos.cluster import Cluster, ClusterError
from loadtest.chaos.fleet import Fleet, FleetError, limit_files
from loadtest.chaos.proxy import ProxyError, Toxiproxy
from loadtest.chaos.worker import Clock
from postroad import settings
from topics import admin
from topics.catalogue import SUPPRESSIONS
from topics.client import Client
from topics.installation import Installation

needs_toxiproxy = pytest.mark.skipif(
    not proxy.buildable(), reason="toxiproxy is not built, and there is no Go to build it"
)

# the network


class Echo:
    """A server that sends back what it gets; `got` is what arrived."""

    def __init__(self):
        self.got = b""
        self.socket = socket.create_server((LOOPBACK, 0))
        self.address = "{}:{}".format(*self.socket.getsockname())
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            while data := connection.recv(65536):
                self.got += data
                connection.sendall(data)
        except OSError:
            return


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    with Toxiproxy(tmp_path_factory.mktemp("network")) as network:
        yield network


@pytest.fixture
def wire(network, request):
    """`connect` goes to `echo` by the network called `name`."""
    echo, listen, name = Echo(), f"{LOOPBACK}:{free_port()}", request.node.name
    network.open(name, listen=listen, upstream=echo.address)

    def connect():
        host, port = listen.split(":")
        connection = socket.create_connection((host, int(port)))
        connection.settimeout(5)
        return connection

    yield SimpleNamespace(echo=echo, connect=connect, name=name)
    echo.socket.close()


def say(connection, data):
    connection.sendall(data)
    return connection.recv(100)


def answers(wire):
    with wire.connect() as connection:
        return say(connection, b"there?") == b"there?"


@needs_toxiproxy
def test_broken_network_ends_connections_and_refuses_new_ones(network, wire):
    with wire.connect() as connection:
        assert say(connection, b"one") == b"one"
        network.cut(wire.name, "broken")
        assert connection.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            wire.connect()
    network.heal()
    assert answers(wire)


@needs_toxiproxy
@pytest.mark.parametrize(("kind", "arrived"), [("silent", b""), ("deaf", b"two")])
def test_silent_network_takes_all_and_answers_nothing(network, wire, kind, arrived):
    with wire.connect() as old:
        assert say(old, b"one") == b"one"
        wire.echo.got = b""
        network.cut(wire.name, kind)
        network.cut(wire.name, kind)  # cut already: nothing changes
        with wire.connect() as new:
            for connection in (old, new):
                connection.settimeout(0.3)
            old.sendall(b"two")
            for connection in (old, new):
                with pytest.raises(TimeoutError):
                    connection.recv(1)
        assert wire.echo.got == arrived
        network.heal(wire.name)
        old.settimeout(5)
        assert old.recv(1) == b"", "bytes are missing from it: it must not go on"
    assert answers(wire)


@needs_toxiproxy
def test_slow_network_is_as_slow_as_it_was_told_last(network, wire):
    with wire.connect() as connection:
        say(connection, b"warm")
        network.slow(wire.name, 2000, 1000)
        network.slow(wire.name, 100, 1000)
        began = time.monotonic()
        assert say(connection, b"slow") == b"slow"
        assert 0.15 <= time.monotonic() - began < 2  # 100 ms each way, give or take a quarter
        network.heal()
        assert say(connection, b"fast") == b"fast"


@needs_toxiproxy
def test_what_toxiproxy_refuses_is_told(network):
    with pytest.raises(ProxyError, match="not found"):
        network.cut("nobody", "broken")
    with pytest.raises(ProxyError, match="POST /proxies"):
        network.open("a", listen="no port", upstream="127.0.0.1:1")


@pytest.mark.parametrize(("go", "named"), [(None, "go is missing"), ("go1.19.8", "go1.19.8"), ("go1.9", "go1.9")])
def test_without_a_go_that_can_build_it_says_what_to_do(tmp_path, monkeypatch, go, named):
    bin = tmp_path / "bin"
    bin.mkdir()
    if go:
        (bin / "go").write_text(f"#!/bin/sh\necho {go}\n")
        (bin / "go").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin}:/bin" if go else str(bin))
    with pytest.raises(ProxyError, match=named):
        proxy.program(tmp_path / "state")


def test_build_that_fails_leaves_no_program(tmp_path, monkeypatch):
    (tmp_path / "go").write_text(
        '#!/bin/sh\n[ "$1" = env ] && echo go1.26 && exit 0\necho no such module >&2\nexit 1\n'
    )
    (tmp_path / "go").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(ProxyError, match="no such module"):
        proxy.program(tmp_path / "state")
    assert not list(tmp_path.glob("state/**/server"))


# workers

WORKER = """
import os, signal, sys, time
from pathlib import Path
from loadtest.chaos.worker import CLOCK_FILE, Clock

stage = sys.argv[1]
clock, data = Clock(Path(os.environ[CLOCK_FILE])), Path(os.environ["POSTROAD_DATA_DIR"])
signal.signal(signal.SIGTERM, signal.SIG_IGN if stage == "deaf" else lambda *_: sys.exit(3))
data.mkdir(parents=True, exist_ok=True)
with (data / "state").open("ab", buffering=0) as state:
    ready = False
    while True:
        try:
            state.write(b"%d %d\\n" % (os.getpid(), clock() - time.time_ns() // 1_000_000))
        except OSError as error:
            if stage == "ends":
                sys.exit(error.errno)
        else:
            ready = ready or Path(os.environ["POSTROAD_READY_FILE"]).write_text(str(os.getpid())) > 0
        time.sleep(0.02)
"""


@pytest.fixture
def make(tmp_path, monkeypatch):
    """A fleet of these stages, ready; its workers note their process and how far their clock is ahead, over and over."""
    script = tmp_path / "work.py"
    script.write_text(WORKER)
    monkeypatch.setattr(fleets, "COMMAND", (sys.executable, str(script)))
    monkeypatch.setattr(fleets, "BACKOFF_S", (0.01, 0.1))
    made = []

    def make(*stages, each=1):
        made.append(Fleet(tmp_path / "fleet", {"kafka": "127.0.0.1:1"}, stages, each))
        made[-1].start(30)
        return made[-1]

    yield make
    for fleet in made:
        fleet.stop(5)


def until(fleet, true):
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, fleet.log.read_text() if fleet.log.exists() else "nothing happened"
        fleet.look()
        time.sleep(0.02)


def noted(worker):
    return [tuple(map(int, line.split())) for line in (worker.data_dir / "state").read_text().splitlines()]


def test_killed_worker_is_started_again_and_a_frozen_one_is_not(make):
    fleet = make("a", each=2)
    killed, frozen = fleet.workers
    pids = killed.pid, frozen.pid
    fleet.kill(killed)
    fleet.freeze(frozen)
    until(fleet, lambda: killed.exits and killed.ready)
    assert killed.exits == [-signal.SIGKILL] and killed.pid != pids[0]
    assert frozen.frozen and frozen.running and not frozen.exits
    before = len(noted(frozen))
    fleet.thaw(frozen)
    until(fleet, lambda: len(noted(frozen)) > before)
    assert frozen.pid == pids[1] and not frozen.frozen
    assert "a-0 ended with status -9" in fleet.log.read_text()


def test_clean_ends_give_their_status_and_free_numbers_are_taken_again(make):
    fleet = make("a", "b")
    first, pid = fleet.of("a")[0], fleet.of("a")[0].pid
    assert fleet.restart(first) == {first.name: 3}
    fleet.wait_ready([first])
    assert first.pid != pid and first.exits == [3]
    joined = fleet.join("a")
    fleet.wait_ready([joined])
    assert [worker.name for worker in fleet.of("a")] == ["a-0", "a-1"]
    fleet.freeze(first)  # what is frozen hears SIGTERM only when it goes on
    assert fleet.leave(first) == 3
    again = fleet.join("a")
    assert again.name == "a-0"
    fleet.wait_ready([again])
    assert fleet.stop() == {"a-0": 3, "a-1": 3, "b-0": 3} and not fleet.workers


def test_stop_tells_who_did_not_end(make):
    fleet = make("a", "deaf")
    assert fleet.stop(0.5) == {"a-0": 3, "deaf-0": -signal.SIGKILL}


def test_lost_state_is_gone_before_the_next_start(make):
    fleet = make("a")
    worker = fleet.workers[0]
    pid = worker.pid
    fleet.lose_state(worker)
    fleet.wait_ready()
    assert worker.exits == [-signal.SIGKILL]
    assert {by for by, _ in noted(worker)} == {worker.pid} != {pid}


def test_clock_steps_in_all_running_processes_and_in_later_ones(make):
    fleet = make("a", "b")
    for step, ahead in ((150_000, 150_000), (-400_000, -250_000)):
        fleet.step_clock(step)
        until(fleet, lambda ahead=ahead: all(abs(noted(worker)[-1][1] - ahead) < 1000 for worker in fleet.workers))
    fleet.restart(fleet.workers[0])
    fleet.wait_ready()
    assert abs(noted(fleet.workers[0])[-1][1] + 250_000) < 1000


def test_full_disk_is_one_of_a_stage_and_of_what_starts_meanwhile(make):
    fleet = make("stays", "ends", "other")
    stays, ends, other = fleet.workers
    fleet.fill_disk("stays")
    fleet.fill_disk("ends")
    until(fleet, lambda: len(ends.exits) >= 2)
    assert set(ends.exits) == {errno.EFBIG} and not ends.ready
    before = len(noted(stays)), len(noted(other))
    until(fleet, lambda: len(noted(other)) > before[1] + 3)
    assert len(noted(stays)) == before[0] and stays.running and not stays.exits
    fleet.free_disk("stays")
    fleet.free_disk("ends")
    until(fleet, lambda: len(noted(stays)) > before[0] and ends.ready)
    assert not stays.exits


def test_rocksdb_on_a_full_disk_raises_and_its_process_lives(tmp_path):
    """What the fault means to a stage: an exception where it writes, and after that no write until it is opened again."""
    code = """
import sys, rocksdict
def put():
    try: db[b"b"] = b"2"
    except Exception as error: return "file too large" in str(error).lower()
db = rocksdict.Rdict(sys.argv[1], rocksdict.Options(raw_mode=True))
db[b"a"] = b"1"
print("open", flush=True)
input()
print(put(), flush=True)
input()
db = None
db = rocksdict.Rdict(sys.argv[1], rocksdict.Options(raw_mode=True))
print(put(), db[b"a"], db[b"b"], flush=True)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "open\n"
            for full, said in ((True, "True"), (False, "None b'1' b'2'")):
                limit_files(process.pid, full)
                process.stdin.write("\n")
                process.stdin.flush()
                assert process.stdout.readline() == f"{said}\n"
        finally:
            process.kill()


def test_fleet_that_does_not_get_ready_says_who_and_why(tmp_path, monkeypatch):
    monkeypatch.setattr(fleets, "COMMAND", (sys.executable, "-c", "raise SystemExit('no such stage')"))
    fleet = Fleet(tmp_path, {"kafka": "127.0.0.1:1"}, ("a",), 1)
    with pytest.raises(FleetError, match=r"(?s)a-0.*no such stage"):
        fleet.start(0.5)
    fleet.stop(1)


def test_settings_of_a_fleet_are_those_of_a_worker(tmp_path, monkeypatch):
    monkeypatch.setenv("POSTROAD_PARTITIONS", "7")  # of whoever runs the harness
    fleet = Fleet(tmp_path, {"kafka": "h:1,h:2", "retry_delays_s": [2.0]}, ("send",))
    assert [worker.name for worker in fleet.workers] == ["send-0", "send-1"]
    for key in [key for key in os.environ if key.startswith("POSTROAD_")]:
        monkeypatch.delenv(key)
    for key, value in fleet.workers[1].environment.items():
        monkeypatch.setenv(key, value)
    have = settings.read()
    assert (have.kafka, have.partitions, have.instance_id) == ("h:1,h:2", 4, "chaos-1")
    assert have.retry_delays_s == [2.0] and have.shaping is not None
    assert have.data_dir != fleet.workers[0].data_dir and have.content == (tmp_path / "content").as_uri()


def test_stage_runs_by_the_stepped_clock(tmp_path):
    """Through `build`, as a worker's app is made."""
    code = """
import sys
from loadtest.chaos import worker
from agents import application, worker as stages
def run(names):
    from agents.validate import app
    print(names, app.runner.wiring.clock is application.wall_clock, app.runner.wiring.clock.offset_ms)
stages.run = run
sys.argv = ["", "validate"]
worker.main()
"""
    Clock(tmp_path / "clock").offset_ms = -120_000
    environment = {**os.environ, "CHAOS_CLOCK": str(tmp_path / "clock"), "POSTROAD_DATA_DIR": str(tmp_path / "data")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "['validate'] True -120000\n", done.stderr


def test_kept_child_waits_as_long_as_it_was_told(tmp_path):
    said = []

    def start():
        return child.spawn([sys.executable, "-S", "-c", "raise SystemExit(7)"], tmp_path / "log")

    kept = Kept("it", start, tmp_path / "log", said.append, backoff_s=(0.01, 0.03))
    deadline = time.monotonic() + 20
    while len(said) < 4 and time.monotonic() < deadline:
        kept.look()
        time.sleep(0.005)
    assert [text.split(";")[0] for text in said] == [
        f"it ended with status 7, starts again in {wait} s" for wait in (0.01, 0.02, 0.03, 0.03)
    ]
    if kept.process is not None:
        kept.process.wait()


# the cluster


@needs_toxiproxy
@pytest.mark.skipif(not server.available(), reason=server.MISSING)
def test_cluster_takes_acknowledged_writes_while_a_broker_is_dead(tmp_path):
    """By the network for workers, and directly; the broker gets what it missed before `start_broker` returns."""
    with Cluster(tmp_path) as cluster:
        behind = Installation(cluster.proxied, partitions=2, replication_factor=3)
        direct = dataclasses.replace(behind, bootstrap=cluster.direct)
        asyncio.run(admin.ensure(direct, [SUPPRESSIONS]))
        cluster.wait_in_sync()
        cluster.kill_broker(2)
        assert not cluster.broker_alive(2)
        asyncio.run(write(behind, b"a"))
        looked = []
        cluster.start_broker(2, lambda: looked.append(1))
        assert cluster.broker_alive(2) and not cluster.behind() and looked
        cluster.cut(None, "broken")
        with pytest.raises(KafkaError):
            asyncio.run(write(behind, b"b"))
        asyncio.run(write(direct, b"b"))
        cluster.heal()
        asyncio.run(write(behind, b"c"))
        cluster.brokers[1].process.kill()
        with pytest.raises(ClusterError, match="broker 1 has ended by itself"):
            until(cluster, lambda: False)


async def write(installation, key):
    async with Client(installation) as client:
        await client.send_raw(SUPPRESSIONS, key, b"")
