"""All rules in their order, and which of them a text may match by its words alone: the rest need not be tried."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache

from postroad.bounces import about_rest, about_them, about_us
from postroad.bounces.rules import Rule, choices, is_loose, pattern
from postroad.bounces.words import KEY, words_of

RULES: tuple[Rule, ...] = (
    *about_us.PAGES, *about_us.PACE, *about_us.LINK, *about_us.CONTENT, *about_us.STANDING,
    *about_them.STATE, *about_them.WISHES, *about_them.PLACE, *about_them.PERSON,
    *about_rest.REFUSALS, *about_rest.UNSAID, *about_rest.SYSTEMS, *about_rest.REJECTED, *about_rest.CONNECT, *about_rest.CODES,
)  # fmt: skip


class Index:
    """`phrases`: each with the number of its rule, in the rules' order. `by_key`: a bit per phrase that needs the key.
    `always`: rules without phrases. `loose`: phrases of scripts without blanks."""

    def __init__(self) -> None:
        self.phrases = [(number, phrase) for number, rule in enumerate(RULES) for phrase in rule.phrases]
        self.loose = [(number, " ".join(words_of(phrase))) for number, phrase in self.phrases if is_loose(phrase)]
        spaced = [(bit, choices(phrase)) for bit, (_, phrase) in enumerate(self.phrases) if not is_loose(phrase)]
        frequency = Counter(one for _, words in spaced for word in words for one in word)
        self.by_key: dict[str, int] = {}
        for bit, words in spaced:
            if not words:
                raise ValueError(
                    f"phrase {self.phrases[bit][1]!r}: one word must be whole, or begin with {KEY} letters and *"
                )
            for one in min(words, key=lambda word: sum(frequency[key] for key in word)):
                self.by_key[one] = self.by_key.get(one, 0) | 1 << bit
        self._searches: list[Callable[[str], object] | None] = [None] * len(self.phrases)
        self.always = [number for number, rule in enumerate(RULES) if not rule.phrases]

    def matching(self, words: list[str], line: str) -> Iterator[int]:
        """Numbers of the rules whose phrases match, in order; those without phrases among them. `line`: the words with a blank before,
        between and behind."""
        by_key, mask = self.by_key, 0
        for word in words:
            mask |= by_key.get(word[:KEY], 0)
        waiting = [] if line.isascii() else sorted({number for number, phrase in self.loose if phrase in line})
        done = -1
        while mask:
            bit = mask & -mask
            mask ^= bit
            place = bit.bit_length() - 1
            number, phrase = self.phrases[place]
            while waiting and waiting[0] <= number:
                done = waiting.pop(0)
                yield done
            search = self._searches[place] or self._search(place, phrase)
            if number != done and search(line):
                done = number
                yield number
        yield from waiting
        yield from self.always

    def _search(self, place: int, phrase: str) -> Callable[[str], object]:
        found = self._searches[place] = pattern(phrase).search
        return found


@cache
def index() -> Index:
    """Made at the first reply, as a command line that judges none needs none."""
    return Index()
