"""An OpenTelemetry collector on loopback that keeps what it gets: OTLP over HTTP, protobuf."""

from __future__ import annotations

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

PATH = "/v1/traces"


class Told(NamedTuple):
    """A span as it was sent; ids in hex, times in ns since 1970. `parent_id`: empty for none."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    links: tuple[str, ...]
    started_at: int
    ended_at: int
    failed: bool
    attributes: dict[str, Any]


def read(body: bytes) -> list[Told]:
    """The spans of a request. Raises DecodeError."""
    request = ExportTraceServiceRequest.FromString(body)
    return [
        Told(_attributes(resource.resource)["service.name"], span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(),
             tuple(link.span_id.hex() for link in span.links), span.start_time_unix_nano, span.end_time_unix_nano, span.status.code == 2,
             _attributes(span))
        for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans
    ]  # fmt: skip


def _attributes(of: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in of.attributes}


class Collector:
    """`with Collector() as collector`: `url` for the setting tracing_endpoint; `spans` so far; `requests` and `refused`, those of another
    path or that are none; `away`: refuse all."""

    def __init__(self) -> None:
        self.spans: list[Told] = []
        self.requests = self.refused = 0
        self.away = False
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self._answer(collector.take(self.path, self._body()))

            def _body(self) -> bytes:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                return gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body

            def _answer(self, status: int) -> None:
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    def take(self, path: str, body: bytes) -> int:
        """A request; returns the status of its answer."""
        self.requests += 1
        if self.away:
            return 403  # not tried again
        try:
            if path != PATH:
                raise ValueError(path)
            self.spans += read(body)
        except Exception:  # DecodeError is one of protobuf's own, without types
            self.refused += 1
            return 400
        return 200

    @property
    def url(self) -> str:
        """For the setting tracing_endpoint."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
