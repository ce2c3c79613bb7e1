"""Greps every log of the whole test run for what a log may not have (docs/logs.md); tests/conftest.py runs it when all tests are over.

Known to be used are the addresses, subjects, bodies and secrets that fixtures tell to `known`, and whatever looks like an address
or a secret. Nothing here is shared with what masks them (postroad/log_masking.py): two that are wrong in the same way would agree.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

KNOWN: set[str] = set()  # as one of these tests used it
SHAPES = {
    "an address": re.compile(r"(?<![^\s@<>\"',;:()\[\]{}])(?!\*\*\*@)[^\s@<>\"',;:()\[\]{}]++@(?:[\w-]+\.)+(?:test|example|com|net|org)\b"),
    "a key": re.compile(r"pr_(?:live|test)_[a-z0-9]{16}_[A-Za-z0-9]{8}"),
    "a webhook's secret": re.compile(r"wh(?:sec|sk)_[A-Za-z0-9+/]{8}"),
    "a private key": re.compile(r"PRIVATE KEY-----|MC4CAQAwBQYDK2Vw|MII[A-Za-z0-9+/]{40}"),
    "a token": re.compile(r"eyJ[\w-]{10,}\.[\w-]{10,}"),
    "who signs in": re.compile(r"(?i)(?:bearer|basic) (?!\*)[\w+/.~=-]{16}"),
}  # fmt: skip


def known(*texts: str) -> None:
    """Texts that no log may have: addresses, subjects, bodies, secrets. A short one would be found everywhere."""
    KNOWN.update(text for text in texts if len(text) >= 8)


def logs_below(folder: Path) -> list[Path]:
    """The logs; files of Kafka's and RocksDB's data have the same ending and a number for a name."""
    return sorted(path for path in folder.rglob("*.log") if path.is_file() and not path.stem.isdigit())


def said(line: str) -> Iterator[str]:
    """A line as it stands, and the texts in it as whoever reads its JSON sees them."""
    yield line
    if line.startswith("{"):
        try:
            yield from _texts(json.loads(line))
        except ValueError:
            pass


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
        if "%" in value:
            yield unquote(value)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from (key, *_texts(each))
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def faults(paths: Iterable[Path], forbidden: Iterable[str] = (), *, is_json: Iterable[Path] = ()) -> list[str]:
    """What is wrong with these logs, a line each. `is_json`: files that have one JSON object a line and nothing else."""
    needles = {form: text for text in forbidden for form in _forms(text)}
    # one expression over all of them takes as long as one over one
    any_known = re.compile("|".join(map(re.escape, sorted(needles, key=len, reverse=True)))) if needles else None
    only_json, found = set(is_json), list[str]()
    for path in paths:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, 1):
                where = f"{path}:{number}"
                for text in said(line):
                    found += [
                        f"{where} has {what}: {match[0]}"
                        for what, form in SHAPES.items()
                        if (match := form.search(text))
                    ]
                    if any_known is not None and (match := any_known.search(text)):
                        found.append(f"{where} has {needles[match[0]]!r}")
                if (
                    path in only_json and line.endswith("\n") and not _is_event(line)
                ):  # the last one may be that of a kill
                    found.append(f"{where} is no JSON object: {line[:200]!r}")
    return list(dict.fromkeys(found))


def _forms(text: str) -> set[str]:
    """As it may be written: plain, in a URL, as Python and JSON show it, in Base64."""
    encoded = base64.b64encode(text.encode("utf-8", "replace")).decode().rstrip("=")
    return {text, quote(text), quote(text, safe=""), repr(text)[1:-1], json.dumps(text)[1:-1], encoded}


def _is_event(line: str) -> bool:
    try:
        event = json.loads(line)
    except ValueError:
        return False
    return isinstance(event, dict) and {"timestamp", "level", "logger", "event", "process"} <= event.keys()
