"""Mail that must suppress nobody, though it comes to a bounce address: what does, by kind of mail."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from loadtest.judgement import corpora, ours
from loadtest.judgement.theirs import Theirs
from postroad.feedback import Feedback

# Looked at, and filed as ham as their readers wanted them: a host's notice that mail was not collected in 30 days, and an
# RFC 3464 report (Action: failure, a word filter) that came back to a list's owner
TRUE_BOUNCES = {"01304.af5f3a2d3a0a19785aeaeeb3d7e36040.eml", "01542.ed72bf2cd81ccd4c076533fb0af004e5.eml"}
_ACTION = re.compile(rb"^action:[ \t]*([a-z]+)", re.I | re.M)


class Wrong(NamedTuple):
    """Of so many files these would have suppressed someone, at ours and at flufl.bounce (None where it is not there)."""

    files: int
    ours: list[str]
    theirs: int | None


def _would_suppress(found: Feedback) -> bool:
    return found.kind == "bounce" or any(one.judgement.bounce_class == "hard" for one in found.recipients)


def _delayed_is_hard(found: Feedback) -> bool:
    """For warnings that tell of failures as well."""
    return any(one.action == "delayed" and one.judgement.bounce_class == "hard" for one in found.recipients)


def _of_reason(reason: str) -> list[Path]:
    return [case.path for case in corpora.judged("sisimai") if case.rows[0]["reason"] == reason]


def _warnings() -> list[Path]:
    """Every recipient's Action is delayed, or the file's table says that it is temporary."""
    found = []
    for folder in ("sisimai", "flufl", "kumomta-rfc3464"):
        for case in corpora.cases(folder):
            actions = {action.lower() for action in _ACTION.findall(case.path.read_bytes())}
            if actions == {b"delayed"}:
                found.append(case.path)
    return found


def _mixed() -> list[Path]:
    paths = [case.path for folder in ("sisimai", "flufl", "kumomta-rfc3464") for case in corpora.cases(folder)]
    return [
        path for path in paths if {b"delayed", b"failed"} <= {a.lower() for a in _ACTION.findall(path.read_bytes())}
    ]


def kinds() -> Iterator[tuple[str, list[Path], Callable[[Feedback], bool]]]:
    yield "vacations", _of_reason("vacation"), _would_suppress
    yield "complaints", [*_of_reason("feedback"), *corpora.mails("arf")], _would_suppress
    yield "delay warnings", _warnings(), _would_suppress
    yield "delays beside failures", _mixed(), _delayed_is_hard
    yield (
        "SpamAssassin ham and lists",
        [path for path in corpora.ham() if path.name not in TRUE_BOUNCES],
        _would_suppress,
    )


def wrong(name: str, paths: list[Path], test: Callable[[Feedback], bool], theirs: dict[Path, Theirs]) -> Wrong:
    """flufl.bounce knows no more than permanent and temporary: permanent suppresses."""
    found = [path for path in paths if test(ours.read(path))]
    said = [f"{name}: {path.name}: {ours.read(path).kind} by {ours.read(path).rule}" for path in found]
    return Wrong(len(paths), said, sum(bool(theirs[path].permanent) for path in paths) if theirs else None)


def forged() -> tuple[int, int]:
    """Spam, and how many of them would suppress someone; some of it is backscatter, that is true bounces of forged mail."""
    spam = [path for path in corpora.mails("spam") if "spam" in path.parent.name]
    return len(spam), sum(_would_suppress(ours.read(path)) for path in spam)
