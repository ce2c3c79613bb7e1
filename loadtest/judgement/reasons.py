"""Reason and class on Sisimai's files, with what is trained trained without the file that is judged.

Macro: the mean, over Sisimai's reasons, of the share of rows of that reason that we name so. Our reason counts as Sisimai's
where REASONS[ours].sisimai has its name (docs/reasons.md). A row with `label_stable: false`, on which Sisimai's own two tables
disagree, is right with either label. Micro: the share of all rows. Hard/soft: the share of rows of bounces (no complaints,
vacations and notices of success) where "is hard" agrees with `hardbounce`; "undetermined" is not hard.

Rows are matched by address; where a report has one recipient on both sides, by that; undisclosed ones by their order. A complaint answers "feedback", a
vacation "vacation", whoever they name. What is not found is wrong.

Five folds by kind of MTA (`lhost-aol` and `rhost-aol` are one), balanced, of a fixed seed; from the training set goes also what
has the same words as a text of the judged fold, numbers and addresses aside. Rules are written by people who have seen the
files: no fold can take that back, held-out mail will tell.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from loadtest.judgement.corpora import Case, Truth
from loadtest.judgement.recipients import Share
from loadtest.judgement.theirs import Theirs
from postroad.bounces import REASONS
from postroad.feedback import Feedback

FOLDS, SEED = 5, 6
NO_BOUNCE = ("feedback", "vacation", "delivered")


class Figures(NamedTuple):
    """`reasons`: per Sisimai's reason; `hard_soft` and `micro`: over all rows. `confused`: (true, ours), most frequent first."""

    reasons: dict[str, Share]
    micro: Share
    hard_soft: Share
    confused: list[tuple[tuple[str, str], int]]

    @property
    def macro(self) -> float:
        return sum(one.share for one in self.reasons.values()) / len(self.reasons)


def labels(row: Truth) -> list[Truth]:
    """The row, and its other label where Sisimai is of two minds."""
    return [row, row["alt"]] if row.get("alt") else [row]


def answer(found: Feedback, row: Truth, alone: bool) -> tuple[str, bool]:
    """Our reason for the row ("" where there is none), and whether it is hard."""
    if found.kind in ("complaint", "vacation"):
        return ("feedback" if found.kind == "complaint" else "vacation"), False
    people = list(found.recipients)
    if row["recipient"] is None:  # the mail does not disclose whom
        same = people[row["index"] - 1 : row["index"]]
    else:
        same = [one for one in people if one.address.lower() == row["recipient"].lower()]
    if not same and alone and len(people) == 1:
        same = people
    if not same:
        return "", False
    return same[0].judgement.reason, found.kind == "bounce" and same[0].judgement.bounce_class == "hard"


def folds(cases: Sequence[Case]) -> list[list[Case]]:
    """Kinds of MTA dealt out, the largest first, each to the smallest fold."""
    kinds = defaultdict(list)
    for case in cases:
        kinds[case.rows[0]["mta"].rpartition("-")[2]].append(case)
    order = sorted(kinds)
    random.Random(SEED).shuffle(order)
    dealt: list[list[Case]] = [[] for _ in range(FOLDS)]
    for kind in sorted(order, key=lambda kind: -len(kinds[kind])):
        min(dealt, key=len).extend(kinds[kind])
    return dealt


def words(text: str) -> str:
    """What makes two texts the same: no addresses, hosts and numbers."""
    return " ".join(re.findall(r"[^\W\d_]+", re.sub(r"\S*[@.\d]\S*", " ", text.lower())))


def judge(read: dict[Path, Feedback], cases: list[Case]) -> Figures:
    """The figures of what was read."""
    by_reason: defaultdict[str, dict[str, bool]] = defaultdict(dict)
    micro: dict[str, bool] = {}
    hard: dict[str, bool] = {}
    confused: Counter[tuple[str, str]] = Counter()
    for case in cases:
        for row in case.rows:
            reason, is_hard = answer(read[case.path], row, len(case.rows) == 1)
            accepted = labels(row)
            theirs = REASONS[reason].sisimai if reason else ()
            right = any(one["reason"] in theirs for one in accepted)
            said = f"{case.path.name} {row['index']}: {reason or read[case.path].kind} for {row['reason']}"
            by_reason[row["reason"]][said] = micro[said] = right
            if not right:
                confused[row["reason"], reason or f"({read[case.path].kind})"] += 1
            if row["reason"] not in NO_BOUNCE:
                said = f"{case.path.name} {row['index']}: {'hard' if is_hard else 'not hard'} ({reason}) for {row['reason']}"
                hard[said] = any(is_hard == bool(one["hardbounce"]) for one in accepted)
    return Figures(
        {reason: _share(right) for reason, right in sorted(by_reason.items())},
        _share(micro),
        _share(hard),
        confused.most_common(),
    )


def _share(right: dict[str, bool]) -> Share:
    return Share(sum(right.values()), len(right), [said for said, holds in right.items() if not holds])


def theirs_hard_soft(theirs: dict[Path, Theirs], cases: list[Case]) -> Share:
    """flufl.bounce's permanent for hard; what it does not find is wrong."""
    right = {}
    for case in cases:
        for row in case.rows:
            if row["reason"] not in NO_BOUNCE and row["recipient"]:
                found, address = theirs[case.path], row["recipient"].lower()
                hard = address in found.permanent
                right[f"{case.path.name} {row['index']}"] = address in found.recipients and any(
                    hard == bool(one["hardbounce"]) for one in labels(row)
                )
    return _share(right)
