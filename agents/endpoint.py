"""The one address of a process (setting `metrics`), for Prometheus and for who keeps it running:

/metrics     its figures (agents/exporter.py)
/livez       200 while its loop turns; 503 once it has stood as long as topics/stall.py lets it, which then ends the process
/readyz      200 when it works: nothing recovers and every partition is read, or the door listens; 503, with what is waited for as JSON
/version     version, and the build where the environment names one (POSTROAD_BUILD)

It answers from threads of its own, and looks at nothing that the loop is changing: the loop notes how it is, every second.
Whoever is slow, or says what is no request, holds one of few connections, not for long, and never the work.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from agents.health import Health, about

log = logging.getLogger(__name__)
REQUEST_S, CONNECTIONS_MAX = 10.0, 32  # one connection, from its first byte to the last; beyond so many the oldest ends


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_S / 2  # between two bytes
    server: Endpoint

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._metrics()
        elif path in ("/livez", "/readyz"):
            waits = self.server.health.alive() if path == "/livez" else self.server.health.ready()
            code = HTTPStatus.SERVICE_UNAVAILABLE if waits else HTTPStatus.OK
            self._answer(
                code, {"status": "unavailable" if waits else "ok", **({"waits": dict(waits)} if waits else {})}
            )
        elif path == "/version":
            self._answer(HTTPStatus.OK, about())
        else:
            self._answer(HTTPStatus.NOT_FOUND, {"error": "ask for /metrics, /livez, /readyz or /version"})

    do_HEAD = do_GET  # the library's name

    def _metrics(self) -> None:
        encode, kind = choose_encoder(self.headers.get("Accept", ""))
        try:
            told = encode(self.server.registry)
        except Exception as error:  # of a collector, while what it reads changes: the next scrape has it
            log.exception("metrics cannot be told now")
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": repr(error)})
        else:
            self._send(HTTPStatus.OK, kind, told)

    def _answer(self, code: int, what: Mapping[str, Any]) -> None:
        self._send(code, "application/json", json.dumps(what).encode() + b"\n")

    def _send(self, code: int, kind: str, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if code == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the library refuses, as JSON and without an echo."""
        if code == HTTPStatus.NOT_IMPLEMENTED:
            code, message = HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD"
        self.close_connection, self.request_version = True, self.protocol_version  # a status line also for no request
        self._answer(code, {"error": HTTPStatus(code).phrase if code != HTTPStatus.METHOD_NOT_ALLOWED else message})

    def version_string(self) -> str:
        return "postroad"

    def log_message(self, format: str, *args: Any) -> None:
        """Of strangers' requests nothing is logged."""


class Endpoint(ThreadingHTTPServer):
    """Listens and answers from the moment it is made. Raises OSError where the address is taken."""

    daemon_threads, block_on_close = True, False

    def __init__(self, address: str, registry: CollectorRegistry, health: Health):
        host, _, port = address.rpartition(":")
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.registry, self.health = registry, health
        self._open: dict[socket.socket, threading.Timer] = {}
        self._lock = threading.Lock()
        super().__init__((host.strip("[]"), int(port)), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def server_bind(self) -> None:
        """Without asking DNS for the name of the host, as HTTPServer does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def process_request(self, request: Any, client_address: Any) -> None:
        """One more connection, which ends in time; the oldest ends where there are too many."""
        timer = threading.Timer(REQUEST_S, _cut, (request,))
        timer.daemon = True
        with self._lock:
            if len(self._open) >= CONNECTIONS_MAX:
                oldest, ending = next(iter(self._open.items()))
                del self._open[oldest]
                ending.cancel()
                _cut(oldest)
            self._open[request] = timer
        timer.start()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            timer = self._open.pop(request, None)
        if timer is not None:
            timer.cancel()
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that went away, or was cut: nothing to tell."""

    def end(self) -> None:
        """Listen no more."""
        self.shutdown()
        self.server_close()
        self._thread.join()


def _cut(request: socket.socket) -> None:
    try:
        request.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it has gone by itself
