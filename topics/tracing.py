"""Spans of what is traced, to an OpenTelemetry collector. Imported only where the setting `tracing_endpoint` is set.

A span is made when what it stands for is over and written, with the times that it had: a stage never waits for it. The exporter has a thread
and a queue of its own; while the collector is away spans are dropped, and the log says so once.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from topics.trace import Sampling, Span, parent_of

log = logging.getLogger(__name__)

QUEUE = 8192  # spans of a process that wait for the collector; more are dropped, the oldest first
DELAY_MS = 1000.0
EXPORT_S = 10.0  # for one batch of spans, with the tries that follow an error
CLOSE_S = 2.0  # at the end of a worker: what the collector does not take by then is lost
PATH = "/v1/traces"  # OTLP/HTTP, where the setting names no path
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_FAILED = Status(StatusCode.ERROR)
_FINE = Status(StatusCode.UNSET)
_LINK = {"postroad.link": "previous attempt"}


class Quiet(SpanExporter):
    """An exporter that logs when the collector no longer takes spans, and when it takes them again; not every try."""

    def __init__(self, exporter: SpanExporter, where: str):
        self._exporter, self._where, self._lost = exporter, where, 0
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Never raises."""
        try:
            result = self._exporter.export(spans)
        except Exception as error:
            log.debug("tracing: %r", error)
            result = SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS:
            if not self._lost:
                log.warning(
                    "tracing: the collector at %s does not take spans: they are dropped until it does", self._where
                )
            self._lost += len(spans)
        elif self._lost:
            log.warning("tracing: the collector at %s takes spans again; %d were dropped", self._where, self._lost)
            self._lost = 0
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def otlp(endpoint: str) -> SpanProcessor:
    """To a collector that speaks OTLP over HTTP. Headers, certificates and compression: OTEL_EXPORTER_OTLP_* of the environment."""
    url = endpoint if urlsplit(endpoint).path.strip("/") else endpoint.rstrip("/") + PATH
    exporter = Quiet(OTLPSpanExporter(url, timeout=EXPORT_S), urlsplit(endpoint).netloc.rpartition("@")[2])
    return BatchSpanProcessor(exporter, max_queue_size=QUEUE, schedule_delay_millis=DELAY_MS)


class Tracing:
    """Of one process. `roots`: full names of the topics where traces begin; `sampling`: which of their records have one."""

    def __init__(self, processor: SpanProcessor, sampling: Sampling, roots: Collection[str], version: str = ""):
        self.processor, self.sampling, self.roots, self.version = processor, sampling, frozenset(roots), version

    def of(self, stage: str) -> StageTracer:
        """The tracer of a stage."""
        return StageTracer(self, stage)

    def close(self) -> None:
        """Give the collector what waits for it, in a bounded time."""
        ending = threading.Thread(target=self.processor.shutdown, daemon=True)  # it may wait for 30 s
        ending.start()
        ending.join(CLOSE_S)


class StageTracer:
    """topics.trace.Tracer, by OpenTelemetry."""

    def __init__(self, tracing: Tracing, stage: str):
        self._stage, self._roots, self._takes = stage, tracing.roots, tracing.sampling.takes
        self._on_end = tracing.processor.on_end
        self._scope = InstrumentationScope("postroad", tracing.version)
        self._resource = Resource({
            "service.name": f"postroad-{stage}", "service.version": tracing.version,
            "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
        })  # fmt: skip

    def begin(self, record: Any) -> Span | None:
        if record.topic in self._roots:
            return self._root(record)
        if not record.headers or (parent := parent_of(record.headers)) is None or not parent.sampled:
            return None
        return Span(record, parent.trace_id, parent.span_id, parent.attempt, time.time_ns())

    def _root(self, record: Any) -> Span | None:
        parent = parent_of(record.headers) if record.headers else None
        if not self._takes((record.key or b"").decode(errors="replace"), parent):
            return None
        if parent is not None:
            return Span(record, parent.trace_id, parent.span_id, "", time.time_ns())
        return Span(record, os.urandom(16).hex(), "", "", time.time_ns())

    def end(self, spans: Iterable[Span]) -> None:
        now = time.time_ns()
        for span in spans:
            try:
                self._end(span, now)
            except Exception:  # the mail has gone its way: no fault in here may end its worker
                log.exception("tracing: a span of %s is lost", self._stage)

    def _end(self, span: Span, now: int) -> None:
        context = _context(span.trace_id, span.span_id)
        record = span.record
        attributes: dict[str, str | int] = {
            "messaging.system": "kafka", "messaging.operation.type": "process", "messaging.destination.name": record.topic,
            "messaging.destination.partition.id": str(record.partition), "messaging.kafka.offset": record.offset,
            "postroad.waited_ms": max(0, span.started_at // 1_000_000 - record.timestamp), **span.attributes,
        }  # fmt: skip
        if span.error:
            attributes["error.type"] = span.error
        links = (Link(_context(span.trace_id, span.link, True), _LINK),) if span.link else ()
        parent = _context(span.trace_id, span.parent_id, True) if span.parent_id else None
        self._told(f"{self._stage} {record.topic}", context, parent, attributes, SpanKind.CONSUMER, span.started_at, now, links,
                   _FAILED if span.error else _FINE)  # fmt: skip
        if span.phases:
            self._phases(span, context)

    def _phases(self, span: Span, parent: SpanContext) -> None:
        """Of a phase its length is known; the last one ended with the effect."""
        at = span.performed_at - 1_000_000 * sum(span.phases.values())
        for phase, ms in span.phases.items():
            began, at = at, at + 1_000_000 * ms
            context = _context(span.trace_id, os.urandom(8).hex())
            self._told(
                f"{self._stage} {phase}",
                context,
                parent,
                {},
                SpanKind.CLIENT,
                max(began, span.started_at),
                max(at, span.started_at),
            )

    def _told(
        self, name: str, context: SpanContext, parent: SpanContext | None, attributes: Mapping[str, str | int], kind: SpanKind,
        started_at: int, ended_at: int, links: Sequence[Link] = (), status: Status = _FINE,
    ) -> None:  # fmt: skip
        # The SDK would make it at the end of a span that it has begun, under ids of its own choice: docs/decisions/0019-tracing.md
        self._on_end(ReadableSpan(
            name, context, parent, self._resource, attributes, links=links, kind=kind, status=status, start_time=started_at,
            end_time=max(ended_at, started_at), instrumentation_scope=self._scope,
        ))  # fmt: skip


def _context(trace_id: str, span_id: str, is_remote: bool = False) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote, _SAMPLED)
