"""kill -9 of the sink in the middle of inserts, on both engines, and of the server: each row is there exactly once."""

import contextlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from analytics.clickhouse import connect
from analytics.migrate import migrate
from analytics.server import MISSING, Server, available

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TOTAL = 12_000


class Lives:
    """The sink's process, started again and again over the same commits."""

    def __init__(self, url, folder):
        self.url, self.folder, self.seed, self.process = url, folder, 0, None

    def begin(self):
        self.seed += 1
        self.process = subprocess.Popen(
            [sys.executable, HERE / "one_life.py", self.url, "kills", self.folder, str(TOTAL), str(self.seed)],
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{HERE}"}, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stdout.readline() == b"ready\n"

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def end(self):
        assert self.process.wait(60) == 0 and (self.folder / "done").exists()
        self.process.stdout.close()

    @property
    def done(self):
        return (self.folder / "done").exists()


def check(warehouse):
    rows = warehouse.query(
        "SELECT k_partition, count(), uniqExact(k_offset), max(k_offset), uniqExact(message_id) FROM events GROUP BY k_partition ORDER BY k_partition"
    ).rows
    assert rows == [(partition, TOTAL, TOTAL, TOTAL - 1, TOTAL) for partition in range(3)]


def test_chdb_survives_kills_of_its_process(tmp_path):
    pytest.importorskip("chdb")
    url = f"chdb://{tmp_path / 'data'}"
    warehouse = connect(url, "kills")
    migrate(warehouse)
    warehouse.close()  # the folder belongs to the sink's process now
    lives, chance, kills = Lives(url, tmp_path), random.Random(3), 0
    for _ in range(3):
        lives.begin()
        time.sleep(chance.uniform(0.02, 0.12))
        if lives.done:
            break
        lives.kill()
        kills += 1
    lives.begin()
    lives.end()
    assert kills >= 2
    warehouse = connect(url, "kills")
    check(warehouse)
    warehouse.close()


@pytest.mark.skipif(not available(), reason=MISSING)
def test_a_server_survives_kills_of_the_sink_and_of_itself(tmp_path):
    with Server(tmp_path / "server") as server:
        with contextlib.closing(connect(server.url, "kills")) as warehouse:
            migrate(warehouse)
        lives, chance, kills = Lives(server.url, tmp_path), random.Random(5), 0
        for turn in range(5):
            if turn == 0 or lives.process.returncode is not None:
                lives.begin()
            time.sleep(chance.uniform(0.02, 0.12))
            if lives.done:
                break
            if turn % 2:
                server.kill()
                server.start()
            else:
                lives.kill()
            kills += 1
        if lives.process.returncode is not None:
            lives.begin()
        lives.end()
        assert kills >= 2
        with contextlib.closing(connect(server.url, "kills")) as warehouse:
            check(warehouse)
