"""Postfix's smtp-sink: one that counts what every system delivers, one that keeps a sample of it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from deploy.local import child
from loadtest.delivery.debian import unpack

BACKLOG = "1000"
OPTIONS = [
    "-u",
    "nobody",
    "-m",
    "1000",
]  # not root, which the jail of Postfix wants; 256 connections by default, ours has ten a site
START_S = 5.0
LOOK_S = 0.05  # the sink writes a line for each message: read by the heap, so that reading costs little
COUNTED = re.compile(rb"mesg=\s*(\d+)")
ENVELOPE = re.compile(
    rb"(?:X-(?:Client|Helo|Mail|Rcpt)-[^\n]*\n)*"
)  # what the sink puts on top of a message that it keeps


def tool(name: str) -> list[str]:
    """The command of a program of Postfix, with the libraries that it was unpacked with."""
    packages = unpack("peers", "peers")
    libraries = ":".join(str(packages / "usr/lib" / part) for part in ("postfix", "x86_64-linux-gnu"))
    return ["env", f"LD_LIBRARY_PATH={libraries}", str(packages / "usr/sbin" / name)]


class Sink:
    """Counts on ADDRESS:PORT. `messages`: so far, `last`: monotonic time of the newest. Main thread only starts it."""

    def __init__(self, address: str, port: int, log: Path):
        self.messages, self.last = 0, 0.0
        with log.open("ab") as errors:
            self.process = subprocess.Popen([*tool("smtp-sink"), *OPTIONS, "-c", f"{address}:{port}", BACKLOG],
                                            stdout=subprocess.PIPE, stderr=errors)  # fmt: skip
        _listens(self.process, address, port, log)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        rest = b""
        while data := os.read(self.process.stdout.fileno(), 1 << 16):
            if (found := COUNTED.findall(rest + data)) and (count := int(found[-1])) != self.messages:
                self.last, self.messages = time.monotonic(), count
            rest = data[-64:]
            time.sleep(LOOK_S)

    def wait(self, count: int, stalled_s: float) -> bool:
        """Whether so many came; False when none came for so long."""
        moved, before = time.monotonic(), self.messages
        while self.messages < count:
            time.sleep(LOOK_S)
            if self.messages != before:
                moved, before = time.monotonic(), self.messages
            if time.monotonic() - moved > stalled_s:
                return False
        return True

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


class Keeper:
    """Keeps each message that comes to ADDRESS:PORT in a file of FOLDER."""

    def __init__(self, address: str, port: int, folder: Path):
        self._folder = folder
        folder.mkdir(parents=True)
        folder.chmod(0o777)
        log = folder.with_suffix(".log")
        self.process = child.spawn(
            [*tool("smtp-sink"), *OPTIONS, "-d", f"{folder}/", f"{address}:{port}", BACKLOG], log
        )
        _listens(self.process, address, port, log)

    def wait(self, count: int, timeout_s: float) -> bool:
        """Whether so many came in time."""
        deadline = time.monotonic() + timeout_s
        while sum(1 for _ in self._folder.iterdir()) < count:
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK_S)
        time.sleep(4 * LOOK_S)  # the newest file may still be written
        return True

    def take(self) -> Iterator[bytes]:
        """What was kept, as it went over the wire; forgotten by this."""
        for path in sorted(self._folder.iterdir()):
            yield sent(path.read_bytes())
            path.unlink()

    def stop(self) -> None:
        """End it."""
        child.stop(self.process, 1.0)


def _listens(process: subprocess.Popen[bytes], address: str, port: int, log: Path) -> None:
    """Return when it does. Raises RuntimeError."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            socket.create_connection((address, port), 1.0).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"smtp-sink does not listen on {address}:{port}: {child.tail(log)}") from None
        time.sleep(LOOK_S)


def sent(kept: bytes) -> bytes:
    """A message as it was sent, from a file of the sink: that has LF, the envelope on top, and a Received field of its own, which
    no signature covers."""
    text = kept.replace(b"\r\n", b"\n")
    found = ENVELOPE.match(text)
    return text[found.end() if found else 0 :].rstrip(b"\n").replace(b"\n", b"\r\n") + b"\r\n"
