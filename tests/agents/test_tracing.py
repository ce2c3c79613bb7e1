"""One mail through every stage of the road, deferred once: one trace, whose spans hang together. Stages scripted, spans in memory."""

from collections import Counter

import pytest
from builders import HOUR_MS, NOW, submission
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from agents import audit, classify, ingest, notify, route, schedule, score, send, suppress, validate
from agents.services import Services
from postroad.settings import Settings, SettingsError, read
from postroad.smtp import Reply, Step
from postroad.webhooks.notifier import Notifier
from topics.catalogue import BROADCASTS, EVENTS, SUBMISSIONS
from topics.testing import Scripted
from topics.trace import ATTEMPT, HEADER, Sampling
from topics.tracing import Tracing

STAGES = [module.stage for module in (ingest, validate, score, suppress, route, send, classify, schedule)]
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADERS = ((HEADER, f"00-{TRACE}-{PARENT}-01".encode()),)


class Road:
    """The stages, each output fed to the stage that reads its topic, with the key and the headers that it has."""

    def __init__(self, services, rates):
        self.exporter = InMemorySpanExporter()
        roots = (SUBMISSIONS.name, BROADCASTS.name)
        tracing = Tracing(SimpleSpanProcessor(self.exporter), Sampling(rates, lambda: 0.5), roots)
        services.orders, services.webhooks = {}, {}
        services.notifier = Notifier(Settings().webhook_rules())
        self.stages = [Scripted(stage, services, NOW, tracer=tracing.of(stage.name)) for stage in STAGES]
        self.beside = [
            Scripted(stage, services, NOW, tracer=tracing.of(stage.name)) for stage in (audit.stage, notify.stage)
        ]
        self.log = []

    async def submit(self, *recipients, headers=HEADERS):
        outputs = await self.stages[0].feed(SUBMISSIONS, submission(*recipients), headers=headers, key=b"acme")
        await self.go_on(outputs)

    async def go_on(self, outputs):
        while outputs:
            output = outputs.pop(0)
            self.log.append(output)
            readers = self.beside if output.topic is EVENTS else self.stages
            for runner in readers:
                if output.topic in runner.stage.reads:
                    outputs += await runner.feed(output.topic, output.value, key=output.key, headers=output.headers)
        assert not [letter for runner in (*self.stages, *self.beside) for letter in runner.dead_letters]

    async def later(self):
        """What waits is due."""
        for runner in self.stages:
            runner.now += HOUR_MS // 2
        await self.go_on(await self.stages[-1].tick())

    @property
    def spans(self):
        return {span.context.span_id: span for span in self.exporter.get_finished_spans()}


def stage_of(span):
    return span.resource.attributes["service.name"].removeprefix("postroad-")


def is_phase(span):
    return span.kind is SpanKind.CLIENT


async def test_one_whole_trace_with_a_retry(services):
    answers = iter(
        [
            Step("rcpt", "replied", Reply(451, "4.7.1", "r@there.test: greylisted")),
            Step("done", "replied", Reply(250, "2.0.0", "OK")),
        ]
    )
    services.transport.answer = lambda host, envelope: next(answers)
    road = Road(services, {"acme": 1.0})
    await road.submit("r@there.test")
    await road.later()
    assert [o.value["kind"] for o in road.log if o.topic is EVENTS] == [
        "accepted", "validated", "scored", "cleared", "routed", "deferred", "cleared", "routed", "delivered"]  # fmt: skip
    spans = road.spans
    assert {f"{span.context.trace_id:032x}" for span in spans.values()} == {TRACE}, "one trace"
    (root,) = [span for span in spans.values() if span.parent.span_id not in spans]
    assert (stage_of(root), root.parent.span_id) == ("ingest", int(PARENT, 16)), "all others hang on it"

    stages = Counter(stage_of(span) for span in spans.values() if not is_phase(span))
    road_of = {
        name: stages[name]
        for name in ("ingest", "validate", "score", "schedule", "suppress", "route", "send", "classify")
    }
    assert road_of == {
        "ingest": 1,
        "validate": 1,
        "score": 1,
        "schedule": 1,
        "suppress": 2,
        "route": 2,
        "send": 2,
        "classify": 2,
    }
    assert stages["audit"] >= 2, "its first step and its end"

    first, second = sorted((s for s in spans.values() if s.name == "send mail.outbound"), key=lambda s: s.end_time)
    assert not first.links and [link.context.span_id for link in second.links] == [first.context.span_id]
    assert (first.attributes["smtp.reply_code"], second.attributes["smtp.reply_code"]) == (451, 250)
    assert (
        second.attributes["postroad.outcome"] == "delivered" and second.attributes["server.address"] == "mx1.there.test"
    )
    for attempt, phase in ((first, "rcpt"), (second, "done")):
        phases = [s.name for s in spans.values() if s.parent.span_id == attempt.context.span_id and is_phase(s)]
        assert phases == ["send dns", f"send {phase}"]

    chain, span = (
        [],
        next(s for s in spans.values() if stage_of(s) == "classify" and s.attributes["postroad.round"] == 1),
    )
    while span is not None:
        chain.append(stage_of(span))
        span = spans.get(span.parent.span_id)
    assert chain == [
        "classify",
        "send",
        "route",
        "suppress",
        "schedule",
        "classify",
        "send",
        "route",
        "suppress",
        "score",
        "validate",
        "ingest",
    ]

    assert all(HEADER in dict(output.headers) for output in road.log), "the events too: the sink tells of each row"
    message_id = next(o.value["message_id"] for o in road.log if o.topic is EVENTS)
    told = [s for s in spans.values() if not is_phase(s) and s is not root]
    assert {s.attributes["postroad.message_id"] for s in told} == {message_id}
    assert {s.attributes["postroad.tenant"] for s in (*told, root)} == {"acme"}
    text = "".join(span.to_json() for span in spans.values())
    assert "r@there.test" not in text and "a@acme.test" not in text, "no address, no reply, no subject"


@pytest.mark.parametrize("rates", [{}, {"default": 1.0, "acme": 0.0}, {"other": 1.0}])
async def test_a_tenant_that_is_not_sampled_has_no_trace(services, rates):
    road = Road(services, rates)
    await road.submit("r@there.test")
    assert road.spans == {}
    assert not [output for output in road.log if {HEADER, ATTEMPT} & dict(output.headers).keys()]


async def test_of_many_recipients_ten_are_traced(services):
    road = Road(services, {"acme": 1.0})
    await road.submit(*(f"r{n}@there.test" for n in range(100)))
    assert (
        len(
            {
                s.attributes["postroad.message_id"]
                for s in road.spans.values()
                if stage_of(s) == "send" and not is_phase(s)
            }
        )
        == 10
    )


def test_off_by_default(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert read().tracing_endpoint == "" and Services(Settings()).tracing is None
    for name, value, says in (
        ("TRACE_SAMPLE", '{"acme": 1.5}', "less than or equal to 1"),
        ("TRACING_ENDPOINT", "collector:4317", "should match"),
    ):
        monkeypatch.setenv(f"POSTROAD_{name}", value)
        with pytest.raises(SettingsError, match=says):
            read()
        monkeypatch.delenv(f"POSTROAD_{name}")


async def test_the_settings_are_where_spans_go_and_which(monkeypatch):
    settings = Settings(tracing_endpoint="http://127.0.0.1:9", trace_sample={"acme": 1.0}, topic_prefix="x-")
    services = Services(settings)
    assert services.tracing.roots == {"x-mail.submissions", "x-mail.broadcasts"}
    assert services.tracing.sampling.takes("acme", None) and not services.tracing.sampling.takes("other", None)
    assert services.tracing.version
    await services.close()
