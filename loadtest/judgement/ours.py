"""Our side: what `postroad.feedback.read` says of a file, and its CPU with nothing remembered."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

from loadtest.judgement import corpora
from postroad import feedback


@cache
def read(path: Path) -> feedback.Feedback:
    return of_file(path)


def of_file(path: Path) -> feedback.Feedback:
    """What the first mail of a file is, with the recipients of all its mails."""
    first, *others = [feedback.read(mail) for mail in corpora.contents(path)]
    return replace(first, recipients=(*first.recipients, *(one for other in others for one in other.recipients)))


def recipients(found: feedback.Feedback) -> set[str]:
    """In lower case, as `postroad bounces explain` names them."""
    return {one.address.lower() for one in found.recipients}


def forget() -> None:
    """Empties what the judge remembers of earlier texts; tables that it makes once stay."""
    for name, module in list(sys.modules.items()):
        if name.startswith(("postroad.bounces", "postroad.feedback")):
            for value in list(vars(module).values()):
                parameters = getattr(value, "cache_parameters", None)
                if parameters is not None and (parameters()["maxsize"] or 0) > 1:
                    value.cache_clear()


def cpu_ms(raw: bytes) -> float:
    began = time.process_time()
    feedback.read(raw)
    return (time.process_time() - began) * 1000
