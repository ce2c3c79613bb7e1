"""Traces: what a traceparent may be, which submissions have one, and what runners make of it. Hostile headers cost a record nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from types import SimpleNamespace

import pytest
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from agents.application import build
from loadtest.engine.stages import COUNTS, SCHEMA, SOURCE, TARGET
from loadtest.engine.stages import record as event
from topics.catalogue import DEAD_LETTERS
from topics.codec import Codec
from topics.consumer import Batch
from topics.installation import Installation
from topics.outputs import Outputs
from topics.stage import BatchStage, EffectStage, Stage, Unstorable
from topics.testing import Scripted
from topics.trace import ATTEMPT, BURST, HEADER, PASSED_ON, Parent, Sampling, parent_of
from topics.tracing import QUEUE, Quiet, Tracing, otlp

CODEC, HERE = Codec(SCHEMA), TP(SOURCE.name, 0)
TRACE, PARENT, LAST = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{PARENT}-01".encode()
MALFORMED = [
    b"", b"00", None, GOOD[:-1], GOOD + b"0", GOOD + b"-more", b"01" + GOOD[2:], b"ff" + GOOD[2:], GOOD.upper(), b" " + GOOD[1:],
    b"00-" + b"0" * 32 + GOOD[35:], GOOD[:36] + b"0" * 16 + GOOD[52:], GOOD.replace(b"-", b"_"), GOOD[:54] + b"g", b"\xff" * 55,
    GOOD[:-1] + b"\n", GOOD.decode().encode("utf-16"), b"0" * (1 << 20), GOOD * 20_000,
]  # fmt: skip


class Traces:
    """A tracing of everything, in memory."""

    def __init__(self, rates=None, roots=(SOURCE.name,), chance=lambda: 0.0):
        self.exporter = InMemorySpanExporter()
        processor = SimpleSpanProcessor(self.exporter)
        self.tracing = Tracing(processor, Sampling({"default": 1.0} if rates is None else rates, chance), roots, "1.0")

    @property
    def spans(self):
        return self.exporter.get_finished_spans()


@pytest.fixture
def traces():
    return Traces()


def ids(span):
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


def records(*headers, values=None):
    values = values or [event(n) for n in range(len(headers))]
    return [SimpleNamespace(topic=SOURCE.name, partition=0, offset=n, timestamp=5, key=b"acme", headers=those,
                            value=CODEC.encode(value) if isinstance(value, dict) else value)
            for n, (those, value) in enumerate(zip(headers, values, strict=True))]  # fmt: skip


# -- headers -----------------------------------------------------------------------------------------------------------
def test_a_traceparent_is_read_as_w3c_has_it():
    assert parent_of([(HEADER, GOOD)]) == Parent(TRACE, PARENT, True)
    assert parent_of([("tenant", b"acme"), (HEADER, GOOD[:-2] + b"00")]) == Parent(TRACE, PARENT, False)
    assert parent_of([(HEADER, GOOD[:-2] + b"ff"), (ATTEMPT, LAST.encode())]) == Parent(TRACE, PARENT, True, LAST)
    assert parent_of([("tenant", b"acme")]) is None
    assert parent_of([(HEADER, GOOD), (ATTEMPT, b"x" * 16)]) == Parent(TRACE, PARENT, True)


@pytest.mark.parametrize("value", MALFORMED, ids=range(len(MALFORMED)))
def test_a_malformed_one_is_none(value):
    began = time.perf_counter()
    assert parent_of([(HEADER, value)]) is None
    assert time.perf_counter() - began < 0.01
    assert parent_of([(HEADER, GOOD), (HEADER, value)]) is None


def test_two_are_none():
    assert parent_of([(HEADER, GOOD), (HEADER, GOOD)]) is None


@given(st.lists(st.tuples(st.sampled_from([HEADER, ATTEMPT, "x"]), st.none() | st.binary(max_size=60))))
def test_any_headers_are_read(headers):
    found = parent_of(headers)
    assert found is None or (len(found.trace_id), len(found.span_id)) == (32, 16)


# -- sampling ----------------------------------------------------------------------------------------------------------
def test_each_tenant_has_its_rate():
    sampling = Sampling({"acme": 1.0, "none": 0.0, "default": 0.25}, chance=lambda: 0.2)
    taken = {tenant: sum(sampling.takes(tenant, None) for _ in range(1000)) for tenant in ("acme", "none", "other")}
    assert taken["acme"] == 1000
    assert taken["none"] == 0
    assert 249 <= taken["other"] <= 251
    assert not Sampling({"acme": 1.0}).takes("other", None)


def test_a_producer_chooses_which_are_traced_and_not_how_many():
    sampling = Sampling({"default": 0.01}, chance=lambda: 0.5)
    wants, declines = Parent(TRACE, PARENT, True), Parent(TRACE, PARENT, False)
    assert sampling.takes("acme", wants), "one that asks seldom is heard at once"
    assert not any(sampling.takes("acme", wants) for _ in range(90))
    assert 98 <= sum(sampling.takes("acme", wants) for _ in range(10_000)) <= 102
    assert not any(sampling.takes("acme", declines) for _ in range(10_000))
    assert sum(sampling.takes("acme", wants) for _ in range(90)) == BURST, "what was not used is kept up to a bound"
    assert not any(Sampling({"default": 1.0}).takes("acme", declines) for _ in range(10))


def test_chance_takes_the_rate():
    sampling = Sampling({"default": 0.1})
    assert 500 < sum(sampling.takes("acme", None) for _ in range(10_000)) <= 1011


def test_names_of_tenants_do_not_fill_memory():
    sampling = Sampling({"default": 0.5})
    for n in range(25_000):
        sampling.takes(f"t{n}", None)
    assert len(sampling._credit) <= 10_001


# -- stages, scripted --------------------------------------------------------------------------------------------------
def doubling(copies=1):
    stage = Stage("s", reads=[SOURCE], writes=[TARGET])

    @stage.on(SOURCE)
    def double(value, state):
        for _ in range(copies):
            yield TARGET.send(value, headers=(("tenant", b"acme"),))
        if value["kind"] == "poison":
            raise ValueError("secret@there.test is poison")

    return stage


async def test_an_output_goes_on_with_the_trace_and_the_span_says_what_it_was(traces):
    runner = Scripted(doubling(), tracer=traces.tracing.of("s"))
    (output,) = await runner.feed(SOURCE, event(1), headers=((HEADER, GOOD), ("x", b"y")))
    (span,) = traces.spans
    assert ids(span)[0] == TRACE and span.parent.span_id == int(PARENT, 16)
    assert output.headers == (("tenant", b"acme"), (HEADER, "00-{}-{}-01".format(*ids(span)).encode()))
    assert (span.name, span.kind, span.status.status_code) == (f"s {SOURCE.name}", SpanKind.CONSUMER, StatusCode.UNSET)
    assert span.resource.attributes["service.name"] == "postroad-s"
    assert span.attributes["messaging.kafka.offset"] == 0 and span.attributes["postroad.waited_ms"] > 0
    assert span.start_time <= span.end_time <= time.time_ns()


async def test_a_stage_behind_the_first_traces_what_says_that_it_is_traced_and_nothing_else():
    traces = Traces(roots=())
    runner = Scripted(doubling(), tracer=traces.tracing.of("s"))
    for headers in (
        (),
        (("tenant", b"acme"),),
        ((HEADER, GOOD[:-2] + b"00"),),
        *(((HEADER, bad),) for bad in MALFORMED),
    ):
        (output,) = await runner.feed(SOURCE, event(1), headers=headers)
        assert output.headers == (("tenant", b"acme"),)
    assert traces.spans == () and runner.dead_letters == []


@pytest.mark.parametrize("value", MALFORMED, ids=range(len(MALFORMED)))
async def test_a_malformed_traceparent_costs_a_good_record_nothing(traces, value):
    runner = Scripted(doubling(), tracer=traces.tracing.of("s"))
    (output,) = await runner.feed(SOURCE, event(1), headers=((HEADER, value),))
    (span,) = traces.spans
    assert runner.dead_letters == [] and span.parent is None and span.context.trace_id, "decided anew"
    assert [len(value) for name, value in output.headers if name == HEADER] == [55]


async def test_a_failure_is_told_without_what_it_quotes(traces):
    runner = Scripted(doubling(), tracer=traces.tracing.of("s"))
    assert await runner.feed(SOURCE, event(1, kind="poison"), headers=((HEADER, GOOD),)) == []
    (span,) = traces.spans
    assert (span.status.status_code, span.attributes["error.type"]) == (StatusCode.ERROR, "ValueError")
    assert "there.test" not in span.to_json()


async def test_one_record_passes_its_trace_to_some_of_many_outputs(traces):
    outputs = await Scripted(doubling(1000), tracer=traces.tracing.of("s")).feed(SOURCE, event(1))
    assert [HEADER in dict(output.headers) for output in outputs] == [True] * PASSED_ON + [False] * (1000 - PASSED_ON)


# -- runners -----------------------------------------------------------------------------------------------------------
class Consumer:
    """The consumer of a partition that stays ours."""

    def __init__(self):
        self.finished = []

    def always(self, *work):
        return True

    async def soon(self, *work):
        return True

    def nothing(self, *work):
        pass

    is_current = is_oldest = owns = holds_lease = always
    begin_effects = may_finish = until_current = soon
    abandon = hold = release = advance = nothing
    is_half_full = nothing

    def finish(self, batch):
        self.finished.append(batch)

    def sought(self):
        return {HERE}

    def committed(self, tps):
        return {0: 0}


def running(stage, tmp_path, producer, traces):
    app = build(stage, Installation("127.0.0.1:1", partitions=1, data_dir=tmp_path), tracing=traces and traces.tracing)
    app.runner.__dict__["consumer"] = Consumer()
    wiring = app.runner.wiring
    app.runner.outputs = lambda: Outputs(producer, wiring.partitions, wiring.max_bytes)
    app.consumer_generation_id = 1
    return app.runner


def written(producer, topic=TARGET):
    return [record.headers for (name, _), log in producer.logs.items() if name == topic.name for record in log]


async def test_spans_of_a_batch_end_when_it_is_written_and_once(tmp_path, producer, traces):
    """A handler may run again: its batch is taken in parts, or held. What it would have told of the run before is gone with it."""
    stage, ended = Stage("s", reads=[SOURCE], writes=[TARGET], tables=[COUNTS]), []

    @stage.on(SOURCE)
    def count(value, state):
        ended.append(len(traces.spans))
        state.counts.put(value["actor"] + str(value["seq"]), 1 << 20)
        return TARGET.send(value)

    runner = running(stage, tmp_path, producer, traces)
    runner.store.size = lambda entries: 100 * len(entries)
    runner.store.room = lambda outputs: 250
    assert await runner._run(Batch(HERE, records(*[((HEADER, GOOD),)] * 3, ()), 1))
    assert ended == [0, 0, 0, 0, 0, 0, 2, 3], "four records, two of them, then one at a time"
    assert [span.attributes["messaging.kafka.offset"] for span in traces.spans] == [0, 1, 2, 3]
    assert [dict(headers)[HEADER] for headers in written(producer)] == [
        "00-{}-{}-01".format(*ids(span)).encode() for span in traces.spans
    ]
    assert [span.parent is None for span in traces.spans] == [False, False, False, True]


async def test_a_record_that_fails_is_a_dead_letter_with_its_headers_and_a_span_with_an_error(
    tmp_path, producer, traces
):
    runner = running(doubling(), tmp_path, producer, traces)
    hostile = [((HEADER, bad),) for bad in MALFORMED if bad is not None]
    batch = records(*hostile, ((HEADER, GOOD),), values=[*[event(1)] * len(hostile), b"no record"])
    assert await runner._run(Batch(HERE, batch, 1))
    assert len(written(producer)) == len(hostile)
    (letter,) = [Codec("DeadLetter").decode(value) for value in producer.values(DEAD_LETTERS.name)]
    assert letter["headers"] == [{"name": HEADER, "value": GOOD}], "sent again, it goes on with its trace"
    assert [span.attributes.get("error.type") for span in traces.spans] == [*[None] * len(hostile), "DecodeError"]


async def test_where_nothing_is_traced_headers_are_not_passed_on(tmp_path, producer):
    runner = running(doubling(), tmp_path, producer, None)
    assert await runner._run(Batch(HERE, records(((HEADER, GOOD),)), 1))
    assert written(producer) == [[("tenant", b"acme")]]


async def test_an_effect_has_its_phases_and_the_next_attempt_a_link(tmp_path, producer):
    traces = Traces(roots=())
    stage = EffectStage(
        "e", reads=[SOURCE], writes=[TARGET], told=lambda result: ({"n": result}, {"connect": 20, "body": 10})
    )

    @stage.perform
    async def perform(value, state, possible_duplicate):
        if value["kind"] == "poison":
            raise ValueError("poison")
        await asyncio.sleep(0.05)
        return 7

    @stage.settle
    def settle(value, result, state):
        return TARGET.send(value)

    runner = running(stage, tmp_path, producer, traces)
    runner.app.add_future = lambda work: asyncio.ensure_future(work)
    batch = records(((HEADER, GOOD),), ((HEADER, GOOD), (ATTEMPT, LAST.encode())), (), ((HEADER, GOOD),),
                    values=[event(n, kind="poison" if n == 3 else "x") for n in range(4)])  # fmt: skip
    runner._accept(Batch(HERE, batch, 1))
    for _ in range(40):
        await runner._cycle()
        await asyncio.sleep(0.01)
    spans = {
        span.attributes["messaging.kafka.offset"]: span for span in traces.spans if span.name == f"e {SOURCE.name}"
    }
    assert sorted(spans) == [0, 1, 3]
    assert [link.context.span_id for link in spans[1].links] == [int(LAST, 16)] and not spans[0].links
    assert spans[3].attributes["error.type"] == "ValueError" and spans[0].attributes["n"] == 7
    for offset in (0, 1):
        phases = [span for span in traces.spans if span.parent.span_id == spans[offset].context.span_id]
        assert [(phase.name, (phase.end_time - phase.start_time) // 1_000_000) for phase in phases] == [
            ("e connect", 20),
            ("e body", 10),
        ]
        assert spans[offset].start_time <= phases[0].start_time and phases[0].end_time == phases[1].start_time
        assert phases[1].end_time <= spans[offset].end_time
    headers = [dict(those) for those in written(producer)]
    assert sorted(len(those) for those in headers) == [0, 2, 2]
    assert all(those[ATTEMPT].decode() in those[HEADER].decode() for those in headers if those)


async def test_the_store_has_what_was_traced(tmp_path, producer):
    traces = Traces(roots=())
    stage = BatchStage("b", reads=[SOURCE], writes=[])

    @stage.recover
    async def recover(committed, services):
        pass

    @stage.write
    async def write(rows, services):
        await asyncio.sleep(0.02)
        return [Unstorable(0, 2, "out of range")]

    runner = running(stage, tmp_path, producer, traces)
    batch = records((), ((HEADER, GOOD),), ((HEADER, GOOD),), ((HEADER, b"0" * (1 << 20)),))
    await runner._flush([Batch(HERE, batch, 1)])
    stored, refused = traces.spans
    assert (stored.attributes["messaging.kafka.offset"], stored.attributes["postroad.kind"]) == (
        1,
        batch and event(1)["kind"],
    )
    assert stored.end_time - stored.start_time >= 20_000_000
    assert refused.attributes["error.type"] == "ValueError" and "error.type" not in stored.attributes


# -- the collector -----------------------------------------------------------------------------------------------------
class Failing:
    def __init__(self):
        self.fails, self.shut = True, False

    def export(self, spans):
        if self.fails == "raises":
            raise OSError("away")
        return SpanExportResult.FAILURE if self.fails else SpanExportResult.SUCCESS

    def shutdown(self):
        self.shut = True


def test_a_collector_that_is_away_is_logged_once_and_again_when_it_is_back(caplog):
    exporter = Failing()
    quiet = Quiet(exporter, "collector:4318")
    with caplog.at_level(logging.WARNING):
        for exporter.fails in (True, "raises", True, False, False):
            quiet.export([SimpleNamespace()] * 3)
    assert [record.getMessage() for record in caplog.records] == [
        "tracing: the collector at collector:4318 does not take spans: they are dropped until it does",
        "tracing: the collector at collector:4318 takes spans again; 9 were dropped",
    ]


async def test_a_collector_that_takes_connections_and_says_nothing_stops_no_stage(caplog):
    """Bounded memory, no waiting in a stage, and a worker that ends in time."""
    server = await asyncio.start_server(lambda reader, writer: asyncio.sleep(60), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    tracing = Tracing(otlp(f"http://user:secret@127.0.0.1:{port}"), Sampling({"default": 1.0}), (SOURCE.name,))
    runner = Scripted(doubling(), tracer=tracing.of("s"))
    began = time.perf_counter()
    for _ in range(20):
        await runner.feed(SOURCE, *[event(1)] * 1000)
    assert len(tracing.processor._batch_processor._queue) <= QUEUE
    assert time.perf_counter() - began < 10, "20,000 records, each of them traced"
    began = time.perf_counter()
    await asyncio.to_thread(tracing.close)
    assert time.perf_counter() - began < 4
    server.close()
    assert "secret" not in caplog.text
