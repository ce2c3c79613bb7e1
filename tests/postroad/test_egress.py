"""Egress pools."""

from collections import Counter

import pytest

from postroad.egress import Pool, Source, choose
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
