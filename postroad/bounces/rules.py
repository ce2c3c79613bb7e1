"""Rules as data: which words and codes of a reply mean what, in their order; each with a sample that a test judges.

A rule's phrases are looked for in the reply's words (`words.py`): a phrase is a row of words; `a/b` is either, `a?` may be
missing, `long*` is any word that begins so, `..` stands for up to four words, `...` for twelve. Codes are RFC 3463's without their class
("1.1" is 4.1.1 and 5.1.1; "7." is all of 5.7.*), as classes say how long and the rest says why.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from postroad.bounces.reasons import REASONS
from postroad.bounces.words import KEY, folded, key


class Rule(NamedTuple):
    """Matches where one of its phrases (if it has any) and all else that is given do. `code`: reply codes from their start;
    `status`: codes as above, "-" for none; `phase`: what the reply answers; `site`: who runs the host; `retry`: whether a permanent reply
    is tried again, where that differs from the reason's action; `sure`: words of doubt elsewhere in the text do not count."""

    name: str
    reason: str
    sample: str
    phrases: tuple[str, ...] = ()
    status: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    phase: tuple[str, ...] = ()
    site: str = ""
    retry: bool | None = None
    sure: bool = False

    @property
    def tried_again(self) -> bool:
        """Whether a permanent reply is a deferral all the same."""
        return REASONS[self.reason].action == "retry" if self.retry is None else self.retry

    def fits(self, code: int, status: str, phase: str, site: str, text: str) -> bool:
        """Whether all but the phrases match. `status`: without its class. A site that is not known may stand in the text."""
        return (
            (not self.status or _begins(status, self.status))
            and (not self.code or str(code).startswith(self.code))
            and (not self.phase or (phase or "-") in self.phase)
            and (not self.site or site == self.site or self.site in text)
        )


def _begins(status: str, wanted: tuple[str, ...]) -> bool:
    return any(status.startswith(one) if one.endswith(".") else status == one for one in wanted) or (
        not status and "-" in wanted
    )


def rule(
    name: str, reason: str, sample: str, *phrases: str, status: str = "", code: str = "", phase: str = "",
    site: str = "", retry: bool | None = None, sure: bool = False,
) -> Rule:  # fmt: skip
    """A rule, its lists written as words between blanks."""
    return Rule(
        name,
        reason,
        sample,
        phrases,
        tuple(status.split()),
        tuple(code.split()),
        tuple(phase.split()),
        site,
        retry,
        sure,
    )


def is_loose(phrase: str) -> bool:
    """Whether a phrase is of a script without blanks between words: then it is looked for as it stands."""
    return any("\u0590" <= letter <= "\u1100" or "\u2e80" <= letter <= "\uffdc" for letter in phrase)


def pattern(phrase: str) -> re.Pattern[str]:
    """What finds a phrase in words, each with a blank behind it and one before the first."""
    made = " "
    for token in folded(phrase).split():
        choice = "|".join(
            re.escape(one[:-1]) + "[^ ]*" if one.endswith("*") else re.escape(one)
            for one in token.removesuffix("?").split("/")
        )
        made += (
            "(?:[^ ]+ ){0,12}?"
            if token == "..."
            else "(?:[^ ]+ ){0,4}?"
            if token == ".."
            else f"(?:(?:{choice}) )?"
            if token.endswith("?")
            else f"(?:{choice}) "
        )
    return re.compile(made)


def choices(phrase: str) -> list[tuple[str, ...]]:
    """The keys of each word that a phrase cannot do without; beginnings shorter than a key have none."""
    return [
        tuple(key(one.removesuffix("*")) for one in token.split("/"))
        for token in folded(phrase).split()
        if token.strip(".") and not token.endswith("?")
        if not any(one.endswith("*") and len(one) <= KEY for one in token.split("/"))
    ]
