"""Child processes that do not outlive their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1  # prctl(2)
OUTPUT_MAX = 16 << 20
_libc = ctypes.CDLL(None, use_errno=True)


def spawn(
    command: Sequence[str],
    output: Path,
    *,
    env: Mapping[str, str] | None = None,
    when_we_die: signal.Signals = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, its output appended to `output`; the kernel signals it when we die.

    An output of more than 16 MiB is put aside first (`.1`). Raises RuntimeError outside the main thread: the kernel sends the signal when the *thread* that forked ends.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("start child processes from the main thread: they end with the thread that started them")
    parent = os.getpid()

    def die_with_parent() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, when_we_die)
        if os.getppid() != parent:  # it died between fork and prctl
            os._exit(1)

    output.parent.mkdir(parents=True, exist_ok=True)
    if output.exists() and output.stat().st_size > OUTPUT_MAX:
        output.replace(output.with_name(output.name + ".1"))
    with output.open("ab") as stream:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, env=env,
            start_new_session=True, preexec_fn=die_with_parent)  # fmt: skip


def stop(process: subprocess.Popen[bytes], grace_s: float) -> int:
    """SIGTERM, SIGKILL after `grace_s`; returns the exit status."""
    if process.poll() is None:
        process.terminate()
        try:
            return process.wait(grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def rss_mib(pid: int) -> float:
    """Resident memory of a process in MiB (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def tail(path: Path, lines: int = 20) -> str:
    """The end of a log file; empty when there is none."""
    if not path.exists():
        return ""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - 64 * 1024))
        return "\n".join(stream.read().decode(errors="replace").splitlines()[-lines:])
