"""CPU of a whole system by /proc, children included; medians and ratios of the rounds of a benchmark."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


class Process(NamedTuple):
    """A line of /proc/PID/stat: its parent, its own CPU, and that of its ended children which it has waited for (ticks)."""

    parent: int
    own: int
    ended: int

    @classmethod
    def parse(cls, stat: str) -> Process:
        """Raises ValueError, IndexError for what is none. The name, in brackets, may hold anything."""
        fields = stat.rpartition(")")[2].split()
        user, system, child_user, child_system = (int(field) for field in fields[11:15])
        return cls(int(fields[1]), user + system, child_user + child_system)


def processes(proc: Path = PROC) -> dict[int, Process]:
    """All that run now, by pid; one that ends meanwhile may be left out."""
    found = {}
    for folder in proc.iterdir():
        if folder.name.isdigit():
            try:
                found[int(folder.name)] = Process.parse((folder / "stat").read_text("utf-8", "replace"))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def family(roots: Iterable[int], running: Mapping[int, Process]) -> set[int]:
    """`roots` and all that descend from them. Raises ProcessLookupError where a root has ended: its CPU could not be told."""
    children: dict[int, list[int]] = defaultdict(list)
    for pid, process in running.items():
        children[process.parent].append(pid)
    found, waiting = set[int](), list(roots)
    while waiting:
        pid = waiting.pop()
        if pid not in running:
            raise ProcessLookupError(f"process {pid} has ended: it was to be measured")
        if pid not in found:
            found.add(pid)
            waiting += children[pid]
    return found


def cpu_s(roots: Iterable[int], proc: Path = PROC) -> float:
    """CPU seconds of these processes and of all below them. A child that has ended counts where its parent waited for it and is
    still below a root; one that was handed to init, or that nobody waits for, is lost: `busy_s` shows it."""
    running = processes(proc)
    return sum(running[pid].own + running[pid].ended for pid in family(roots, running)) / TICKS


def busy_s(proc: Path = PROC) -> float:
    """CPU seconds of the whole machine since its start, all cores; without waiting."""
    for line in (proc / "stat").read_text("ascii").splitlines():
        if line.startswith("cpu "):
            user, nice, system, _idle, _wait, irq, soft, *_ = (int(field) for field in line.split()[1:])
            return (user + nice + system + irq + soft) / TICKS
    raise ValueError(f"{proc}/stat has no line of the whole machine")


def rss_mib(roots: Iterable[int], proc: Path = PROC) -> float:
    """Resident memory of these processes and of all below them; what they share counts once for each."""
    pages = 0
    for pid in family(roots, processes(proc)):
        try:
            pages += int((proc / str(pid) / "statm").read_text("ascii").split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each figure over the rounds that have it, to three digits that count."""
    names = dict.fromkeys(name for one in rounds for name in one)
    return {name: significant(median(one[name] for one in rounds if name in one)) for name in names}


def ratio(ours: float, theirs: float) -> float:
    """Ours to theirs. ValueError where theirs was not measured: a ratio to nothing would look like a victory."""
    if theirs <= 0:
        raise ValueError(f"no ratio to {theirs}")
    return significant(ours / theirs)


def significant(value: float, digits: int = 3) -> float:
    """Rounded to so many digits that count."""
    return float(f"{value:.{digits}g}")
