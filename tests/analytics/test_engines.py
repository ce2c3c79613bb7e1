"""The two engines behind `Warehouse`: connections, threads, waiting for inserts, the Native encoder, the child server."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from analytics import native
from analytics.clickhouse import WarehouseError, connect
from analytics.server import MISSING, Server, available

needs_server = pytest.mark.skipif(not available(), reason=MISSING)
ROOT = Path(__file__).parents[2]


def test_threads_read_and_write_at_once(warehouse):
    warehouse.command("CREATE TABLE t (a UInt64, b String) ENGINE = MergeTree ORDER BY a")

    def write(start):
        for n in range(5):
            warehouse.insert("t", {"a": [start + n] * 100, "b": ["x"] * 100})

    def read(_):
        return [warehouse.query("SELECT count() FROM t").rows[0][0] for _ in range(10)]

    with ThreadPoolExecutor(6) as pool:
        writers, readers = [pool.submit(write, n * 5) for n in range(3)], [pool.submit(read, n) for n in range(3)]
        [each.result() for each in writers]
        assert all(answer == sorted(answer) for each in readers for answer in [each.result()])
    assert warehouse.query("SELECT count(), uniqExact(a) FROM t").rows == [(1500, 15)]


def test_an_error_says_what_was_wrong_and_leaves_the_warehouse_usable(warehouse):
    for _ in range(3):
        with pytest.raises(WarehouseError, match="no_such_table"):
            warehouse.query("SELECT 1 FROM no_such_table")
        with pytest.raises(WarehouseError):
            warehouse.insert("no_such_table", {"a": [1]})
    assert warehouse.query("SELECT 1").rows == [(1,)]
    warehouse.close()
    with pytest.raises(WarehouseError, match="closed"):
        warehouse.query("SELECT 1")


def test_a_second_process_on_a_chdb_folder_is_told_what_to_do(chdb_url):
    script = "import sys; from analytics.clickhouse import connect; connect(sys.argv[1]).query('SELECT 1')"
    other = subprocess.run(
        [sys.executable, "-c", script, chdb_url],
        cwd=ROOT,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert other.returncode == 1 and b"ask a running `postroad up` over HTTP" in other.stderr


def test_no_server():
    with pytest.raises(WarehouseError, match=r"127\.0\.0\.1:1"):
        connect("clickhouse://127.0.0.1:1").query("SELECT 1")


def test_names_and_passwords_in_the_url():
    warehouse = connect("clickhouse://us%40er:p%2Fw@db.example/night")
    assert (warehouse.address, warehouse.database) == ("db.example:9000", "night")
    assert connect("clickhouses://db.example").address == "db.example:9440"
    assert connect("clickhouse://db.example", "own").database == "own"


@needs_server
def test_quiesce_waits_for_what_runs_under_the_prefix_and_for_nothing_else(running_server):
    warehouse = connect(running_server.url, "default")

    def slow(query_id, seconds):
        """A query that lasts: 18.16 sleeps at most 3 s a block."""
        client = warehouse.client()
        client.execute(f"SELECT sleep({seconds})", query_id=query_id)
        client.disconnect()

    def seconds(prefix):
        began = time.monotonic()
        warehouse.quiesce(prefix)
        return time.monotonic() - began

    thread = threading.Thread(target=slow, args=("group%a:1", 2))
    thread.start()
    while not warehouse.query("SELECT count() FROM system.processes WHERE query_id = 'group%a:1'").rows[0][0]:
        time.sleep(0.01)
    alone, waited = seconds("group_a:"), None
    with pytest.raises(WarehouseError, match="still run"):
        warehouse.quiesce("group%a:", timeout_s=0)
    assert thread.is_alive()
    waited = seconds("group%a:")
    assert alone < waited
    assert not warehouse.query("SELECT count() FROM system.processes WHERE query_id = 'group%a:1'").rows[0][0]
    thread.join()


@pytest.mark.parametrize("text", ["", "ü", "a" * 127, "a" * 128, "a" * 1023, "ü" * 600, "x" * 70_000, "\0"])
def test_native_strings_of_any_length(chdb_url, text):
    warehouse = connect(chdb_url, "native")
    warehouse.create_database()
    warehouse.command("DROP TABLE IF EXISTS n")
    warehouse.command(
        "CREATE TABLE n (a String, l Array(String), u UInt8, i Int64, t DateTime('UTC'), e Enum8('x' = -1, 'y' = 5)) ENGINE = Memory"
    )
    warehouse.insert(
        "n",
        {
            "a": [text, text],
            "l": [[text, text], []],
            "u": [0, 255],
            "i": [-(2**63), 2**63 - 1],
            "t": [0, 2**32 - 1],
            "e": ["x", "y"],
        },
    )
    rows = warehouse.query("SELECT a, l, u, i, toUnixTimestamp(t), e FROM n").rows
    assert rows == [(text, [text, text], 0, -(2**63), 0, "x"), (text, [], 255, 2**63 - 1, 2**32 - 1, "y")]
    warehouse.close()


def test_native_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="column b has 1 values"):
        native.block({"a": [1, 2], "b": [1]}, {"a": "UInt8", "b": "UInt8"})
    with pytest.raises(OverflowError):
        native.block({"a": [256]}, {"a": "UInt8"})
    with pytest.raises(ValueError, match="Decimal"):
        native.block({"a": [1]}, {"a": "Decimal(9, 2)"})


@needs_server
def test_a_server_keeps_its_data_and_ports_over_stop_and_kill(tmp_path):
    def kept(url):
        with contextlib.closing(connect(url, "kept")) as warehouse:
            return warehouse.query("SELECT a FROM t").rows

    with Server(tmp_path / "s") as server:
        url = server.url
        with contextlib.closing(connect(url, "kept")) as warehouse:
            warehouse.create_database()
            warehouse.command("CREATE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a")
            warehouse.insert("t", {"a": [1]})
        server.kill()
        server.start()
        assert kept(url) == [(1,)]
    with Server(tmp_path / "s") as server:
        assert server.url == url
        assert kept(url) == [(1,)]
        server.start()  # it runs already


@needs_server
def test_a_server_dies_with_its_parent(tmp_path):
    script = "import sys, time; from analytics.server import Server; s = Server(sys.argv[1]); s.start(); print(s.process.pid, flush=True); time.sleep(60)"
    parent = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "s"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while _alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(child)


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_server_that_is_not_installed_is_an_error_that_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr("analytics.server._binary", lambda: None)
    with pytest.raises(RuntimeError, match="apt-get install clickhouse-server"):
        Server(tmp_path).start()


@needs_server
def test_a_server_that_cannot_start_says_why(tmp_path, running_server):
    server = Server(tmp_path)
    server.native_port = running_server.native_port
    with pytest.raises(RuntimeError, match="did not start"):
        server.start(timeout_s=10)
