"""The farm as a child process."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from loadtest.mxfarm.connections import Connection
from loadtest.mxfarm.connections import read as read_connections
from loadtest.mxfarm.receipts import Receipts
from loadtest.mxfarm.server import CONTROL, CONTROL_STATE, READY, stamp_of
from loadtest.mxfarm.sites import Site
from loadtest.mxfarm.sites import write as write_sites

LOG = "farm.log"
START_TIMEOUT = 15.0  # seconds; 0.5 on an idle machine
STOP_TIMEOUT = 5.0
CONTROL_TIMEOUT = 5.0
_ROOT = Path(__file__).parents[2]


class FarmError(RuntimeError):
    """The farm did not start, or did not do what it was told."""


class Farm:
    """A running farm. On Linux it dies with the thread that started it, as the kernel counts parents."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], description: dict[str, Any]) -> None:
        self.folder = folder
        self.process = process
        self.dns: str = description["dns"]  # "host:port"
        self.smtp_port: int = description["smtp_port"]
        self.sites: dict[str, Any] = description["sites"]
        self.receipts = Receipts(folder)

    @classmethod
    def start(
        cls,
        folder: Path | str,
        *,
        dns_port: int = 0,
        smtp_port: int = 0,
        txt: Path | str | None = None,
        sites: Iterable[Site] | None = None,
    ) -> "Farm":
        """Start a farm in a folder, which keeps its receipts, and wait until it is ready; ports are free ones if 0, the sites
        those of sites.py if None."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        ready = folder / READY
        ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", "loadtest.mxfarm", "--folder", str(folder)]
        command += ["--dns-port", str(dns_port), "--smtp-port", str(smtp_port)]
        command += ["--zone-txt", str(txt)] if txt else []
        command += ["--sites", str(write_sites(folder / "sites.json", sites))] if sites is not None else []
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
        with open(folder / LOG, "ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": path}
            )
        deadline = time.monotonic() + START_TIMEOUT
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                process.wait()
                raise FarmError(f"the farm did not start:\n{(folder / LOG).read_text()[-2000:]}")
            time.sleep(0.02)
        return cls(folder, process, json.loads(ready.read_text()))

    def connections(self) -> list[Connection]:
        """All connections so far, refused ones too."""
        return read_connections(self.folder)

    def control(self, changes: dict[str, Any]) -> None:
        """Change behaviours as server.py tells, `{}` ends all changes; returns when they hold. FarmError if refused."""
        path = self.folder / CONTROL
        draft = path.with_name(CONTROL + ".new")
        draft.write_text(json.dumps(changes))
        draft.replace(path)
        deadline = time.monotonic() + CONTROL_TIMEOUT
        while time.monotonic() < deadline:
            state = self._control_state()
            if state.get("stamp") == stamp_of(path):
                if state["error"]:
                    raise FarmError(f"the farm refuses {changes}: {state['error']}")
                return
            time.sleep(0.02)
        raise FarmError(f"the farm did not take {changes} in {CONTROL_TIMEOUT} s")

    def _control_state(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads((self.folder / CONTROL_STATE).read_text())
        except FileNotFoundError:
            return {}
        return state

    def stop(self) -> None:
        """End the farm; its folder stays."""
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> "Farm":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
