"""Health and hostile requests at the one address of a process, as clients see them."""

import contextlib
import json
import socket
import time
import urllib.error
import urllib.request
from collections import Counter

import pytest

from agents import endpoint
from agents.door import Door
from agents.exporter import serve
from agents.health import Health
from deploy.local.kafka import free_port
from postroad.settings import Settings
from topics.metrics import Metrics


def ask(port, path, method="GET"):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


class Scene:
    def __init__(self):
        self.waits, self.now, self.port = {"send": "recovery: 1 of 4 partitions are not read yet"}, 100.0, free_port()
        self.health = Health(60.0, lambda: self.waits, lambda: self.now)
        self.metrics = Metrics()
        self.end = serve(f"127.0.0.1:{self.port}", [("send", self.metrics)], health=self.health)


@pytest.fixture
def scene():
    made = Scene()
    yield made
    made.end()


def test_a_process_that_begins_lives_and_is_not_ready(scene):
    assert ask(scene.port, "/livez")[0] == 200
    code, body = ask(scene.port, "/readyz")
    assert code == 503 and json.loads(body)["waits"] == {"process": "starting"}


def test_recovering_is_not_ready_and_says_so_then_is(scene):
    scene.health.look()
    code, body = ask(scene.port, "/readyz")
    assert code == 503 and json.loads(body) == {"status": "unavailable", "waits": scene.waits}
    assert ask(scene.port, "/livez")[0] == 200
    scene.waits = {}
    scene.health.look()
    assert ask(scene.port, "/readyz") == (200, b'{"status": "ok"}\n')


@pytest.mark.parametrize(("silent", "alive", "ready"), [(5, 200, 200), (11, 200, 503), (59, 200, 503), (60, 503, 503)])
def test_a_loop_that_stands_is_not_ready_and_dead_when_the_watch_would_end_it(scene, silent, alive, ready):
    scene.waits = {}
    scene.health.look()
    scene.now += silent
    assert (ask(scene.port, "/livez")[0], ask(scene.port, "/readyz")[0]) == (alive, ready)


def test_what_cannot_be_told_is_not_ready():
    health = Health(60.0, lambda: 1 // 0)
    health.look()
    assert "ZeroDivisionError" in health.ready()["process"] and not health.alive()


def test_version_and_build(scene, monkeypatch):
    monkeypatch.setenv("POSTROAD_BUILD", "abc123")
    told = json.loads(ask(scene.port, "/version")[1])
    assert told["build"] == "abc123" and told["version"][0].isdigit()


def test_other_paths_and_methods_are_refused(scene):
    assert ask(scene.port, "/")[0] == 404
    assert ask(scene.port, "/metrics", "HEAD") == (200, b"")
    for method in ("POST", "DELETE", "BREW"):
        assert ask(scene.port, "/metrics", method)[0] == 405


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\0" * 50 + b"\r\n\r\n", b" 400 "),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", b" 414 "),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * 70_000 + b"\r\n\r\n", b" 431 "),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", b" 431 "),
    ],
)
def test_what_is_no_request_has_a_clear_answer(scene, raw, code):
    with socket.create_connection(("127.0.0.1", scene.port), timeout=5) as connection:
        with contextlib.suppress(OSError):  # refused before all was sent
            connection.sendall(raw)
        answer = b""
        with contextlib.suppress(OSError):
            answer = connection.recv(1000)
    assert not answer or code in answer.partition(b"\r\n")[0]
    assert ask(scene.port, "/livez")[0] == 200


def test_many_slow_clients_keep_nobody_out_and_are_cut(scene, monkeypatch):
    monkeypatch.setattr(endpoint, "REQUEST_S", 0.5)
    slow = [socket.create_connection(("127.0.0.1", scene.port), timeout=5) for _ in range(endpoint.CONNECTIONS_MAX + 8)]
    for one in slow:
        one.sendall(b"GET /livez HTTP/1.1\r\nX: ")
    began = time.monotonic()
    assert ask(scene.port, "/livez")[0] == 200
    assert time.monotonic() - began < 3
    for one in slow:
        with contextlib.suppress(OSError):
            assert one.recv(1000)[:4] in (b"", b"HTTP")  # not a time-out: it was cut
        one.close()


async def test_a_door_is_ready_while_it_listens(tmp_path):
    port, listens = free_port(), [True]
    door = Door(Settings(metrics=f"127.0.0.1:{port}", data_dir=tmp_path), "smtp")
    assert not door._health.alive() and door._health.ready()
    ends = [("acme", "k1", 2_000_000_000_000)]
    door.opened(Counter(accepted=3), lambda: listens[0], lambda: ends)
    door._health.look()
    assert not door._health.ready()
    body = ask(port, "/metrics")[1].decode()
    assert 'postroad_accepted_total{stage="smtp"} 3.0' in body
    assert 'postroad_api_key_end_timestamp_seconds{key="k1",tenant="acme"} 2e+09' in body
    listens[0] = False
    door._health.look()
    assert door._health.ready() == {"smtp": "does not listen"}
    door._turning.cancel()
    door.end()
