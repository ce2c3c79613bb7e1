"""Ground truth of the corpora beside the project, read in place (`../shared/corpora/README.md`). Where they are not, `there()` says so."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from deploy.local import ROOT

CORPORA = ROOT.parent / "shared" / "corpora"
NO_MAIL = ("LICENSE", "README", ".json", ".jsonl", ".gitattributes")
Truth = dict[str, Any]


class Case(NamedTuple):
    """A mail with what is to be found in it: one row per recipient."""

    path: Path
    rows: list[Truth]

    @property
    def recipients(self) -> set[str]:
        """In lower case, without angle brackets."""
        return {row["recipient"].strip("<>").lower() for row in self.rows if row["recipient"]}


def there() -> bool:
    return (CORPORA / "bounces").is_dir()


def lines(path: str) -> list[Truth]:
    return [json.loads(line) for line in (CORPORA / path).read_text().split("\n") if line]


@cache
def cases(folder: str) -> tuple[Case, ...]:
    """Of bounces/FOLDER, by file."""
    found: dict[str, list[Truth]] = {}
    for row in lines(f"bounces/{folder}/truth.jsonl"):
        found.setdefault(row["file"], []).append(row)
    return tuple(Case(CORPORA / "bounces" / folder / name, rows) for name, rows in sorted(found.items()))


def judged(folder: str) -> list[Case]:
    """Those with a truth: who made the table had an opinion of the mail."""
    return [case for case in cases(folder) if all(row["truth"] != "none" for row in case.rows)]


def mails(folder: str) -> list[Path]:
    return sorted(path for path in (CORPORA / folder).rglob("*") if path.is_file() and not path.name.endswith(NO_MAIL))


def ham() -> list[Path]:
    return [
        CORPORA / "spam/spamassassin" / row["file"]
        for row in lines("spam/spamassassin/labels.jsonl")
        if row["label"] == "ham"
    ]


def contents(path: Path) -> list[bytes]:
    """The mails of a file, as an mbox may hold several."""
    raw = path.read_bytes()
    if not raw.startswith(b"From "):
        return [raw]
    return [
        mail.partition(b"\n")[2]
        for mail in re.split(rb"\n\n(?=From \S+ +[A-Z][a-z]{2} [A-Z][a-z]{2} .*\d{4}\r?\n)", raw)
    ]


def content(path: Path) -> bytes:
    """Without the line that an mbox puts before a mail."""
    raw = path.read_bytes()
    return raw.partition(b"\n")[2] if raw.startswith(b"From ") else raw
