"""A network that can be cut and slowed: toxiproxy (Shopify, Go) as a child process, driven by its HTTP API.

    with Toxiproxy(folder) as network:
        network.open("kafka-1", listen="127.0.0.1:9001", upstream="127.0.0.1:9101")
        network.cut("kafka-1", "silent")
        network.heal("kafka-1")

Three kinds of cut, all of them seen between real machines:

broken  connections are closed and new ones refused, as when the peer's host is gone. The mildest: clients know at once.
silent  connections stay open and take data, which goes nowhere, both ways, as behind a firewall that drops packets. Clients
        know by their time-outs only, and hold what they have in flight until then. Healing closes these connections.
deaf    what clients send arrives, what is answered does not. The nastiest: a write that is never acknowledged was made.

The program alone, as `make` builds it: `python -m loadtest.chaos.proxy`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_args

from deploy.local import STATE, child
from deploy.local.kafka import LOOPBACK, free_port

VERSION = "2.12.0"
MODULE = f"github.com/Shopify/toxiproxy/v2/cmd/server@v{VERSION}"
GO = (1, 23)  # what its go.mod asks for
START_TIMEOUT_S = 10.0
API_TIMEOUT_S = 30.0  # toxiproxy waits up to 5 s for each connection whose data is under way

Cut = Literal["broken", "silent", "deaf"]
CUTS: tuple[Cut, ...] = get_args(Cut)
DOWN, UP = "downstream", "upstream"  # to the client, to the server


class ProxyError(RuntimeError):
    """toxiproxy cannot be built, does not start, or refuses; the text says why and what to do."""


def program(folder: Path = STATE) -> Path:
    """toxiproxy's server below `folder`; Go builds it on first use (26 s). Raises ProxyError."""
    home = folder / f"toxiproxy-{VERSION}"
    built = home / "server"
    if not built.exists():
        _check_go()
        draft = home / "draft"  # go writes the program in place: a build that is broken off would look like a whole one
        environment = {**os.environ, "GOBIN": str(draft)}
        done = subprocess.run(["go", "install", MODULE], env=environment, capture_output=True, text=True)
        if done.returncode:
            raise ProxyError(f"toxiproxy cannot be built: `go install {MODULE}` says\n{done.stderr[-2000:]}")
        (draft / "server").replace(built)
        draft.rmdir()
    return built


def buildable() -> bool:
    """Whether `program` has it, or can build it."""
    try:
        return (STATE / f"toxiproxy-{VERSION}" / "server").exists() or _check_go()
    except ProxyError:
        return False


def _check_go() -> bool:
    need = f"Go {GO[0]}.{GO[1]} or later is needed to build toxiproxy"
    if shutil.which("go") is None:
        raise ProxyError(f"{need}, and go is missing: install the package golang-go, or run `make chaos`")
    told = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True).stdout.strip()
    found = re.match(r"go(\d+)\.(\d+)", told)
    if found and (int(found[1]), int(found[2])) < GO:
        raise ProxyError(f"{need}, {shutil.which('go')} is {told}: put a newer one into the PATH")
    return True


class Toxiproxy:
    """The process; `folder` keeps its log. Main thread only (child.spawn)."""

    def __init__(self, folder: Path):
        self.folder = folder.absolute()
        self.process: subprocess.Popen[bytes] | None = None
        self._api = f"http://{LOOPBACK}:{free_port()}"
        self._names: list[str] = []

    def start(self) -> Self:
        """Return when it takes orders. Raises ProxyError."""
        host, port = self._api.removeprefix("http://").split(":")
        log = self.folder / "toxiproxy.log"
        environment = {**os.environ, "LOG_LEVEL": "error"}  # it tells of every connection otherwise
        self.process = child.spawn([str(program()), "-host", host, "-port", port], log, env=environment)
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self._ask("GET", "/version")
                return self
            except ProxyError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise ProxyError(f"toxiproxy did not start:\n{child.tail(log)}") from None
            time.sleep(0.02)

    def stop(self) -> None:
        """End it, and every connection with it."""
        if self.process is not None:
            child.stop(self.process, 2.0)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def open(self, name: str, *, listen: str, upstream: str) -> None:
        """Take connections at `listen` to `upstream`, both host:port; where nobody listens at `upstream`, each is closed."""
        self._ask("POST", "/proxies", {"name": name, "listen": listen, "upstream": upstream, "enabled": True})
        self._names.append(name)

    def cut(self, names: Iterable[str] | str, kind: Cut = "silent") -> None:
        """Cut these connections, present and future ones, until they are healed."""
        for name in self._each(names):
            if kind == "broken":
                self._ask("POST", f"/proxies/{name}", {"enabled": False})
            for direction in {"broken": (), "silent": (UP, DOWN), "deaf": (DOWN,)}[kind]:
                self._toxic(name, "timeout", direction, timeout=0)  # 0: never closes the connection

    def slow(self, names: Iterable[str] | str, latency_ms: float, rate_kb: int) -> None:
        """Each way so many ms later (give or take a quarter), and at most `rate_kb` KB a second for each connection."""
        for name in self._each(names):
            for direction in (UP, DOWN):
                self._toxic(name, "latency", direction, latency=round(latency_ms), jitter=round(latency_ms / 4))
                self._toxic(name, "bandwidth", direction, rate=rate_kb)

    def heal(self, names: Iterable[str] | str | None = None) -> None:
        """Undo all of this; None: of all."""
        for name in self._each(self._names if names is None else names):
            for toxic in self._ask("GET", f"/proxies/{name}")["toxics"]:
                self._ask("DELETE", f"/proxies/{name}/toxics/{toxic['name']}")
            self._ask("POST", f"/proxies/{name}", {"enabled": True})

    @staticmethod
    def _each(names: Iterable[str] | str) -> list[str]:
        return [names] if isinstance(names, str) else list(names)

    def _toxic(self, name: str, kind: str, direction: str, **attributes: int) -> None:
        toxic = {"name": f"{kind}-{direction}", "type": kind, "stream": direction, "attributes": attributes}
        try:
            self._ask("POST", f"/proxies/{name}/toxics", toxic)
        except ProxyError as error:
            if "already exists" not in str(error):  # the same kind again, with other values
                raise
            self._ask("POST", f"/proxies/{name}/toxics/{toxic['name']}", {"attributes": attributes})

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._api + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=API_TIMEOUT_S) as answer:
                said = answer.read()
                return json.loads(said) if said else None
        except urllib.error.HTTPError as error:
            raise ProxyError(
                f"toxiproxy refuses {method} {path} {body}: {error.read().decode(errors='replace')}"
            ) from None
        except (OSError, ValueError) as error:
            raise ProxyError(f"toxiproxy does not answer {method} {path}: {error}") from None


if __name__ == "__main__":
    program()
