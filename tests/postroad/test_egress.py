"""Egress pools."""

from collections import Counter

import pytest

from postroad.egress import Pool, Source, choose, ranked
from postroad.site import shard_of


def source(name: str, weight: float = 1) -> Source:
    return Source(name, "", f"{name}.example.com", weight)


def test_choice_follows_the_weights_and_stays() -> None:
    pool = Pool("p", (source("rests", 0), source("a", 1), source("b", 3)))
    ids = [f"message{number}" for number in range(8000)]
    counts = Counter(choose(pool, each).name for each in ids)
    assert set(counts) == {"a", "b"}
    assert 2.7 < counts["b"] / counts["a"] < 3.3
    assert all(choose(pool, each) == choose(pool, each) for each in ids[:10])


def test_choice_is_independent_of_the_shard() -> None:
    pool = Pool("p", (source("a"), source("b")))
    pairs = Counter((choose(pool, f"m{n}").name, shard_of(f"m{n}", 2)) for n in range(4000))
    assert len(pairs) == 4 and min(pairs.values()) > 850


@pytest.mark.parametrize("sources", [(), (source("a", 0),), (source("a"), source("b", -1))])
def test_a_pool_nothing_can_leave_from(sources: tuple[Source, ...]) -> None:
    with pytest.raises(ValueError, match="egress pool p: "):
        Pool("p", sources)


def test_ranked_follows_the_weights_at_every_place() -> None:
    pool = Pool("p", (source("rests", 0), source("a", 1), source("b", 3), source("c", 4)))
    orders = [[each.name for each in ranked(pool, f"m{n}")] for n in range(8000)]
    assert {frozenset(order) for order in orders} == {frozenset("abc")}
    first, second = Counter(order[0] for order in orders), Counter(order[1] for order in orders if order[0] == "c")
    assert 0.47 < first["c"] / 8000 < 0.53 and 0.105 < first["a"] / 8000 < 0.145
    assert 2.6 < second["b"] / second["a"] < 3.4  # who stands in takes over by weight too
    assert all(choose(pool, f"m{n}").name == orders[n][0] for n in range(100))


def test_a_source_more_moves_only_what_it_takes() -> None:
    before, after = Pool("p", (source("a"), source("b", 2))), Pool("p", (source("new"), source("a"), source("b", 2)))
    taken = 0
    for number in range(2000):
        order = [each.name for each in ranked(after, f"m{number}")]
        taken += order[0] == "new"
        assert [name for name in order if name != "new"] == [each.name for each in ranked(before, f"m{number}")]
    assert 400 < taken < 600


@pytest.mark.parametrize("message_id", ["", "\udce9", "x" * 10_000])
def test_any_message_has_an_order(message_id: str) -> None:
    pool = Pool("p", (source("a", 1e-300), source("b", 1e300)))
    assert [each.name for each in ranked(pool, message_id)] == ["b", "a"]
