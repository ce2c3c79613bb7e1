"""Events sink: the stage around analytics/sink.py, which has its own tests; here over a warehouse in memory."""

from types import SimpleNamespace

import pytest
from builders import NOW, message

from agents import events_sink
from agents.events_sink import recover, stage, write
from analytics.clickhouse import WarehouseError
from postroad.events import event
from topics.installation import Installation


class FakeSink:
    """Takes rows by place; `failing` as a server that is away."""

    def __init__(self):
        self.rows, self.recovered, self.failing = {}, [], False

    def recover(self, committed):
        self.recovered.append(committed)

    def write(self, rows):
        if self.failing:
            raise WarehouseError("away")
        self.rows |= {(partition, offset): value for partition, offset, value in rows if value["kind"] != "hostile"}
        return [
            SimpleNamespace(partition=p, offset=o, error="no") for p, o, value in rows if value["kind"] == "hostile"
        ]


@pytest.fixture
def sink(monkeypatch):
    fake = FakeSink()
    monkeypatch.setattr(events_sink, "_sink", lambda services: fake)
    return fake


@pytest.fixture
def installed(services):
    services.installation = Installation("127.0.0.1:1")
    services.settings = services.settings.model_copy(update={"clickhouse": "clickhouse://there", "clickhouse_http": ""})
    return services


async def test_writes_each_event_at_its_place(sink, installed):
    await recover({0: 5}, installed)
    accepted = event(message(), "accepted", NOW, "ingest")
    assert await write([(0, 5, accepted), (0, 6, accepted)], installed) == []
    assert sink.recovered == [{0: 5}]
    assert sink.rows == {(0, 5): accepted, (0, 6): accepted}


async def test_names_what_can_never_be_stored(sink, installed):
    (unstorable,) = await write([(1, 7, {"kind": "hostile"})], installed)
    assert (unstorable.partition, unstorable.offset, unstorable.error) == (1, 7, "no")


async def test_a_warehouse_that_is_away_raises_so_that_it_is_tried_again(sink, installed):
    sink.failing = True
    with pytest.raises(WarehouseError):
        await write([(0, 1, event(message(), "accepted", NOW, "ingest"))], installed)


def test_is_wired_to_the_events():
    assert [topic.name for topic in stage.reads] == ["mail.events"]
    assert (stage.recoverer, stage.writer) == (recover, write)
