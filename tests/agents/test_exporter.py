"""Counters over HTTP, as Prometheus reads them."""

import asyncio
import contextlib
import socket
import urllib.request
from types import SimpleNamespace

import pytest
from faust.types import TP

from agents import audit
from agents.exporter import serve
from agents.worker import Fleet, counters
from deploy.local.kafka import free_port
from postroad import settings
from topics.metrics import Metrics


def scrape(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return [line for line in answer.read().decode().splitlines() if not line.startswith("#")]


@pytest.fixture
def served():
    send, classify = Metrics(), Metrics()
    port = free_port()
    end = serve(f"127.0.0.1:{port}", [("send", send), ("classify", classify), ("send", Metrics())])
    yield port, send, classify
    end()


def test_every_counter_of_every_stage_as_it_is_now(served):
    port, send, classify = served
    assert scrape(port) == []
    send.count("performed", 3)
    send.count("odd name!", 1)
    classify.count("performed")
    assert scrape(port) == [
        'postroad_odd_name__total{stage="send"} 1.0',
        'postroad_performed_total{stage="classify"} 1.0',
        'postroad_performed_total{stage="send"} 3.0',
    ]
    send.count("performed")
    assert 'postroad_performed_total{stage="send"} 4.0' in scrape(port)


def test_lag_and_what_is_waited_for_are_gauges(served):
    port, send, classify = served
    send.lag = {TP("mail.outbound", 1): 7, TP("mail.outbound", 0): 0}
    classify.waiting["hold"] = 2
    assert scrape(port) == [
        'postroad_lag{partition="0",stage="send",topic="mail.outbound"} 0.0',
        'postroad_lag{partition="1",stage="send",topic="mail.outbound"} 7.0',
        'postroad_waiting{stage="classify",why="hold"} 2.0',
    ]
    send.lag = {}
    assert len(scrape(port)) == 1, "of a partition that has gone there is none"


@pytest.mark.parametrize(
    "raw", [b"\0" * 5000, b"GET " + b"/" * 200_000, b"POST /metrics HTTP/1.1\r\nContent-Length: -1\r\n\r\n"]
)
def test_what_is_no_request_stops_nothing(served, raw):
    port, send, _ = served
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1000)
    send.count("records")
    assert scrape(port) == ['postroad_records_total{stage="send"} 1.0']


def test_a_port_that_is_taken_is_told_and_mail_goes_on(served, caplog):
    port, _, _ = served
    serve(f"127.0.0.1:{port}", [])()
    assert "no metrics" in caplog.text and "is not free" in caplog.text


async def test_a_worker_serves_what_its_stages_count(monkeypatch):
    async def nothing():
        await asyncio.sleep(0)

    runner = SimpleNamespace(stage=audit.stage, metrics=Metrics())
    app = SimpleNamespace(
        runner=runner, beacon=SimpleNamespace(reattach=lambda to: None), maybe_start=nothing, stop=nothing,
        is_ready=lambda: True, waits=lambda: "", installation=SimpleNamespace(stall_s=60.0),
    )  # fmt: skip
    monkeypatch.setattr(audit, "metrics", Metrics())
    runner.metrics.count("records", 7)
    audit.metrics.count("orphans", 2)
    assert counters(app) == [("audit", runner.metrics), ("audit", audit.metrics)]
    port = free_port()
    fleet = Fleet([app], f"127.0.0.1:{port}")
    await fleet.on_start()
    told = await asyncio.to_thread(scrape, port)
    await fleet.on_stop()
    assert told == ['postroad_orphans_total{stage="audit"} 2.0', 'postroad_records_total{stage="audit"} 7.0']
    with pytest.raises(OSError):
        scrape(port)


def test_the_setting_is_checked(monkeypatch):
    monkeypatch.setenv("POSTROAD_METRICS", "9100")
    with pytest.raises(settings.SettingsError, match="host:port"):
        settings.read()
    monkeypatch.setenv("POSTROAD_METRICS", "0.0.0.0:9100")
    monkeypatch.setenv("POSTROAD_AUDIT_TRANSIT_S", "30")
    known = settings.read()
    assert known.metrics == "0.0.0.0:9100" and known.allowed().transit_ms == 30_000


def test_sources_that_warm_up_are_gauges():
    port, days = free_port(), []

    def warming(day):
        days.append(day)
        return [("one", "big.test", 7, 50)]

    end = serve(f"127.0.0.1:{port}", [], warming)
    try:
        assert scrape(port) == [
            'postroad_warmup_used{site="big.test",source="one"} 7.0',
            'postroad_warmup_allowance{site="big.test",source="one"} 50.0',
        ]
        assert days[-1] > 20_000, "days since 1970"
    finally:
        end()
