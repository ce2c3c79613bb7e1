"""What the benchmarks make of what they measure: ratios to peers, limits, hops, and messages as the sink keeps them."""

from __future__ import annotations

import json

import pytest

from loadtest.bench_scale import growth
from loadtest.bench_smoke import COMMITTED, pairs
from loadtest.peers.__main__ import compare, judge
from loadtest.peers.sink import COUNTED, sent
from loadtest.peers.source import submission
from loadtest.rates import hops, shares

FOUND = {"2k-rsa": {"postroad": {"per_s": 600.0, "cpu_ms": 1.0}, "postfix": {"per_s": 200.0, "cpu_ms": 4.0}},
         "2k-both": {"postfix": {"per_s": 200.0, "cpu_ms": 4.0}}}  # fmt: skip


def test_ratios_are_of_ours_to_each_other_in_the_same_case():
    assert compare(FOUND) == {"2k-rsa": {"rate_ratio_postfix": 3.0, "cpu_ratio_postfix": 0.25}, "2k-both": {}}


def test_limits_hold_where_they_are_set():
    assert all(kept for kept, _ in judge(compare(FOUND)).values())
    slower = {
        "2k-rsa": {"rate_ratio_postfix": 2.99, "cpu_ratio_postfix": 0.32},
        "50k-both": {"rate_ratio_postfix": 0.1},
    }
    assert {name: kept for name, (kept, _) in judge(slower).items()} == {
        "2k-rsa.rate_ratio_postfix": False,
        "2k-rsa.cpu_ratio_postfix": False,
    }


def test_the_guard_compares_round_by_round():
    # in the second round the machine was twice as slow for both
    assert pairs([12.0, 24.0, 12.0], [10.0, 20.0, 10.0]) == 1.2
    with pytest.raises(ValueError):
        pairs([1.0, 2.0], [1.0])


def test_the_committed_figure_is_one():
    assert 1.0 < json.loads(COMMITTED.read_text("ascii"))["ratio_bare"] < 2.0


def test_growth_is_the_dearest_step_to_the_first():
    assert growth({"10": {"cpu_ms": 2.0}, "100": {"cpu_ms": 3.0}, "1000": {"cpu_ms": 2.5}}) == 1.5


def test_hops_go_from_one_stage_to_the_next_that_is_known():
    outputs = {"a": {"ingest": 110, "validate": 115, "score": 121, "suppress": 121, "route": 130}, "b": {"ingest": 205}}
    found = hops({"a": 100, "b": 200, "c": 300}, outputs, {"a": [160, 190], "c": [350]})
    assert found == {"ingest": [10, 5], "validate": [5], "score": [6], "suppress": [0], "route": [9], "send": [30, 50]}


def test_shares():
    assert shares(range(1000)) == {"p50": 500.0, "p95": 950.0, "p99": 990.0}


def test_a_kept_message_is_as_it_was_sent():
    kept = b"X-Client-Addr: 127.0.0.1\nX-Mail-Args: <a@b.test>\nX-Rcpt-Args: <c@d.test>\nReceived: by sink\nX-Mail-Args-Own: 1\n\nhello\n\n\n"
    assert sent(kept) == b"Received: by sink\r\nX-Mail-Args-Own: 1\r\n\r\nhello\r\n"


def test_the_count_of_the_sink():
    assert COUNTED.findall(b"sess=12 quit=3 mesg=   77\rsess=12 quit=3 mesg=78\r") == [b"77", b"78"]


def test_submissions_number_their_recipients_through(monkeypatch):
    monkeypatch.setenv("RECIPIENTS", "2")
    one = submission("run", 3, 100, 4, 5, "d{}.test")
    assert [to["address"] for to in one["recipients"]] == ["run.6@d1.test", "run.7@d2.test"]
    assert (one["tenant"], one["sender"]["address"], len(one["text"] or "")) == ("t3", "news@t3.example", 100)
