"""Recipients, exactly the set of the truth, per file; RFC 3464's examples also by action and status; ARF by feedback type."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from loadtest.judgement import corpora, ours
from loadtest.judgement.corpora import Case
from loadtest.judgement.theirs import Theirs

_TYPE = re.compile(rb"^feedback-type:[ \t]*([\w-]+)", re.I | re.M)


class Share(NamedTuple):
    """How many of how many, and what is missing."""

    right: int
    of: int
    wrong: list[str]

    @property
    def share(self) -> float:
        return self.right / self.of if self.of else 0.0


def share(right: dict[str, bool]) -> Share:
    wrong = [text for text, holds in right.items() if not holds]
    return Share(len(right) - len(wrong), len(right), wrong)


def flufl() -> list[Case]:
    """Files of flufl.bounce's own tests; those that must give no address are among them."""
    return corpora.judged("flufl")


def in_dsn_fields() -> list[Case]:
    return [case for case in corpora.judged("sisimai") if all(row["recipient_in_dsn_fields"] for row in case.rows)]


def all_sisimai() -> list[Case]:
    """Those whose recipients are known; complaints and vacations, which name whom they please, are no bounces."""
    cases = corpora.judged("sisimai")
    return [
        case for case in cases if all(r["recipient"] and r["reason"] not in ("feedback", "vacation") for r in case.rows)
    ]


def exact(cases: Sequence[Case], theirs: dict[Path, Theirs] | None = None) -> Share:
    """Of ours, or of what flufl.bounce says where that is given."""
    right = {}
    for case in cases:
        found = ours.recipients(ours.read(case.path)) if theirs is None else theirs[case.path].recipients
        said = f"{case.path.name}: {sorted(found)} for {sorted(case.recipients)}"
        right[said] = found == case.recipients
    return share(right)


def rfc3464() -> Share:
    """Recipients, and of each action and status as its own fields have them."""
    right = {}
    for case in corpora.cases("kumomta-rfc3464"):
        found = {(one.address.lower(), one.action, one.status) for one in ours.read(case.path).recipients}
        true = {(row["recipient"].strip("<>").lower(), row["action"], row["status"]) for row in case.rows}
        right[f"{case.path.name}: {sorted(found)} for {sorted(true)}"] = found == true
    return share(right)


def arf() -> Share:
    """A complaint of the type that the file's own field names; Hotmail's old form names none. Sisimai's count too."""
    right = {}
    paths = [path for path in corpora.mails("arf")]
    paths += [case.path for case in corpora.judged("sisimai") if case.rows[0]["reason"] == "feedback"]
    for path in paths:
        found, said = ours.read(path), _TYPE.search(path.read_bytes())
        kind = found.complaint.feedback_type if found.complaint else ""
        right[f"{path.name}: {found.kind} {kind}"] = found.kind == "complaint" and (
            said is None or said[1].decode().lower() == kind
        )
    return share(right)
