"""What a PromQL expression names: metrics, and their labels. `promtool` says whether it is one."""

from __future__ import annotations

import re
from collections.abc import Iterator

_WORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan", "start", "end", "atan2"}
_LISTS = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_TEXTS = re.compile(r'"(?:[^"\\]|\\.)*"')


def metrics(expr: str) -> set[str]:
    """Names of the metrics that it asks for."""
    bare = re.sub(r"\{[^}]*\}", " ", _TEXTS.sub('""', expr))
    bare = re.sub(r"\[[^\]]*\]|\boffset\s+\w+", " ", _LISTS.sub(" ", bare))
    found = (word[0] for word in re.finditer(r"(?<![\w$])[a-zA-Z_:][\w:]*(?!\w|\s*\()", bare))
    return {word for word in found if word.lower() not in _WORDS}


def matched(expr: str) -> Iterator[tuple[str, set[str]]]:
    """Of each selector the metric and the labels that it looks at."""
    for name, inside in re.findall(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}", _TEXTS.sub('""', expr)):
        yield name, {part.strip() for part in re.findall(r"([a-zA-Z_]\w*)\s*(?:=~|!~|!=|=)", inside)}


def grouped(expr: str) -> set[str]:
    """Labels that aggregations and matches between vectors name."""
    return {
        label.strip()
        for listed in _LISTS.findall(_TEXTS.sub('""', expr))
        for label in listed.split(",")
        if label.strip()
    }
