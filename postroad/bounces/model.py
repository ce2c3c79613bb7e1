"""What no rule knows: multinomial logistic regression over words, pairs of words and codes (`train.py` makes it).

model.json.gz holds nothing but weights of single words and pairs; no text can be read back from it. Pure Python: 20 us a reply.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from itertools import pairwise
from math import exp
from typing import NamedTuple

from postroad.bounces.words import ADDRESS

FILE = "model.json.gz"
SURE = 0.7  # below this share nobody can tell; from cross-validation, see docs/reasons.md
WORDS_MIN = 3  # words and pairs that must be known: "450 later" may mean anything
WORDS_MAX = 200  # of a text: beyond them comes what the host says of itself
SCALE = 100  # weights are stored as whole hundredths


class Model(NamedTuple):
    """`weights`: feature -> number of the reason -> hundredths."""

    reasons: tuple[str, ...]
    weights: Mapping[str, Mapping[int, int]]

    def shares(self, features: Sequence[str]) -> list[float]:
        """How likely each reason is; they add up to 1."""
        sums = [0] * len(self.reasons)
        for feature in features:
            for number, weight in self.weights.get(feature, {}).items():
                sums[number] += weight
        highest = max(sums)
        powers = [exp((one - highest) / SCALE) for one in sums]
        total = sum(powers)
        return [one / total for one in powers]


def features(code: int, status: str, words: Sequence[str]) -> list[str]:
    """Each once: words of letters, their pairs, the reply code and the status without its class."""
    return sorted(set(_features(code, status, words)))


def _features(code: int, status: str, words: Sequence[str]) -> Iterator[str]:
    yield "*"
    if code:
        yield f"={code}"
    if len(detail := status[2:]) > 2:
        yield f"={detail[0]}"
        yield f"={detail}"
    letters = [word for word in words[:WORDS_MAX] if word.isalpha() and 1 < len(word) <= 20 and word != ADDRESS]
    yield from letters
    for left, right in pairwise(letters):
        yield f"{left} {right}"


@cache
def _load() -> Model:
    raw = json.loads(gzip.decompress(files(__package__).joinpath(FILE).read_bytes()))
    reasons = tuple(raw["reasons"])
    return Model(reasons, {name: dict(zip(row[::2], row[1::2], strict=True)) for name, row in raw["weights"].items()})


def guess(code: int, status: str, words: Sequence[str], model: Model | None = None) -> tuple[str, float]:
    """The likeliest reason and its share; "undetermined" where that is too small or too few words are known."""
    model = model or _load()
    known = [one for one in features(code, status, words) if one in model.weights]
    if sum(one[0] not in "=*" for one in known) < WORDS_MIN:
        return "undetermined", 0.0
    shares = model.shares(known)
    best = max(range(len(shares)), key=shares.__getitem__)
    if shares[best] < SURE:
        return "undetermined", shares[best]
    return model.reasons[best], shares[best]
