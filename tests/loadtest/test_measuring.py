"""What the benchmarks compute with: CPU of a tree of processes, medians, ratios."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.measuring import TICKS, Process, busy_s, cpu_s, family, medians, processes, ratio, rss_mib, significant

BURN = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
LIVES = BURN + "\nprint('burnt', flush=True); input()"
# burns CPU in a child that ends and is waited for, in a grandchild that lives on, then says so and waits
PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {BURN!r}])
lives = subprocess.Popen([sys.executable, "-c", {LIVES!r}], stdin=subprocess.PIPE)
print("ended", flush=True)
input()
lives.communicate()
"""


def stat(pid: int, parent: int, own: tuple[int, int], ended: tuple[int, int], name: str = "one") -> str:
    return f"{pid} ({name}) S {parent} 1 1 0 -1 4194560 9 9 0 0 {own[0]} {own[1]} {ended[0]} {ended[1]} 20 0 1 0 5 6 7"


def write(proc: Path, **processes: str) -> None:
    for pid, line in processes.items():
        (proc / pid.removeprefix("p")).mkdir(parents=True)
        (proc / pid.removeprefix("p") / "stat").write_text(line)


def test_a_name_may_hold_brackets_and_spaces():
    assert Process.parse(stat(7, 3, (10, 5), (2, 1), "a) S (b c")) == Process(3, 15, 3)


def test_children_and_ended_children_count_and_strangers_do_not(tmp_path):
    write(
        tmp_path,
        p1=stat(1, 0, (1000, 0), (5000, 0)),
        p10=stat(10, 1, (10, 1), (100, 4)),  # root, with ended children
        p11=stat(11, 10, (20, 2), (0, 0)),
        p12=stat(12, 11, (40, 0), (7, 0)),
        p20=stat(20, 1, (900, 0), (0, 0)),
    )
    (tmp_path / "self").mkdir()
    assert cpu_s([10], tmp_path) * TICKS == pytest.approx(115 + 22 + 47)
    assert cpu_s([10, 12], tmp_path) == cpu_s([10], tmp_path), "a root below a root counts once"
    assert family([10], processes(tmp_path)) == {10, 11, 12}


def test_a_root_that_has_ended_is_an_error_and_not_zero(tmp_path):
    write(tmp_path, p10=stat(10, 1, (10, 0), (0, 0)))
    with pytest.raises(ProcessLookupError, match="99"):
        cpu_s([10, 99], tmp_path)


def test_the_machine_is_all_cores_without_waiting(tmp_path):
    (tmp_path / "stat").write_text("cpu  100 1 50 9999 888 2 3 0 0 0\ncpu0 50 0 25 5000 400 1 1 0 0 0\n")
    assert busy_s(tmp_path) * TICKS == pytest.approx(156)


def test_real_processes():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdin and parent.stdout
        said = {parent.stdout.readline().strip(), parent.stdout.readline().strip()}
        assert said == {b"ended", b"burnt"}
        used, alone = cpu_s([parent.pid]), processes()[parent.pid].own / TICKS
        assert used - alone >= 0.55, "two children have burnt 0.3 s each"
        assert rss_mib([parent.pid]) > 5
        assert rss_mib([os.getpid()]) > rss_mib([parent.pid]), "it is below us"
        parent.communicate(b"\n")


def test_medians_are_of_the_rounds_that_have_a_figure():
    assert medians([{"a": 1.0, "b": 5.0}, {"a": 9.0}, {"a": 2.0}]) == {"a": 2.0, "b": 5.0}


def test_ratio_to_nothing_is_an_error():
    assert ratio(1.0, 3.0) == 0.333
    with pytest.raises(ValueError, match="no ratio"):
        ratio(1.0, 0.0)


def test_significant_digits():
    assert [significant(value) for value in (1234.5, 0.012345, 0.0)] == [1230.0, 0.0123, 0.0]
