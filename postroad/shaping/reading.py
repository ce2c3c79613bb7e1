"""Taking the tables of shaping.toml apart: every fault with its line, and what would be right."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

from postroad.shaping.fields import Check, Wrong, did_you_mean

_SHOWN = 60  # characters of a name or a value in a fault
_LINE_MAX = 1000  # characters of a line in which its key is looked for
_HEADER = re.compile(r"\s*(\[\[?)([^\n]*?)\]\]?\s*(?:#.*)?$")
_KEY = re.compile(
    r"""\s*((?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*'))*)\s*="""
)

Path: TypeAlias = tuple[str | int, ...]


class Fault(NamedTuple):
    """One thing wrong with a file. `line`: from 1; 0 where it has none."""

    line: int
    text: str


class ShapingError(ValueError):
    """The file is wrong; the text has a line `file:line: what is wrong, what is wanted` for each fault."""

    def __init__(self, origin: str, faults: list[Fault]) -> None:
        self.faults = sorted(faults)
        super().__init__(
            "\n".join(f"{origin}:{line}: {text}" if line else f"{origin}: {text}" for line, text in self.faults)
        )


class Reader:
    """Takes the tables of one file apart; `faults` fills."""

    def __init__(self, content: str) -> None:
        self.faults: list[Fault] = []
        self._content = content

    def fault(self, path: Path, problem: str) -> None:
        """Something is wrong there."""
        self.faults.append(Fault(self.line(path), f"{shown(path)} {problem}"))

    def line(self, path: Path) -> int:
        """Where a key stands, or the nearest table around it."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 0)

    @cached_property
    def _lines(self) -> dict[Path, int]:
        """Of all keys; looked for once something is wrong."""
        return _lines(self._content)

    def tables(self, value: Any, path: Path) -> dict[str, dict[str, Any]]:
        """A table of tables under free names."""
        if not isinstance(value, dict):
            self.fault(path, f'wants tables: [{path[-1]}."name"]')
            return {}
        found = {}
        for name, item in value.items():
            if not isinstance(item, dict):
                self.fault((*path, name), f'wants a table: [{path[-1]}."{name}"]')
            elif not name or len(name) > 200 or not name.isprintable() or "#" in name:
                self.fault((*path, name), "is no name: 1 to 200 characters, no # and nothing unprintable")
            else:
                found[name] = item
        return found

    def table(self, value: Mapping[str, Any], keys: Mapping[str, Check], path: Path) -> dict[str, Any]:
        """The keys of one table, checked; those that are wrong are left out, and told."""
        found: dict[str, Any] = {}
        for key, item in value.items():
            here = (*path, key)
            if key not in keys:
                hint = did_you_mean(key, keys) or f"; these are: {', '.join(keys)}"
                self.fault(here, f"is no key of this table{hint}")
                continue
            try:
                found[key] = keys[key](item)
            except Wrong as wrong:
                given = repr(item[:_SHOWN]) if isinstance(item, str) else str(item)[:_SHOWN]
                self.fault(here, f"= {given} {wrong}")
                continue
            inner = getattr(keys[key], "keys", None)
            if inner is not None:
                found[key] = self.table(item, inner, here)
        return found


def shown(path: Path) -> str:
    """As it would be written in the file; long names are cut."""

    def part_of(part: str | int) -> str:
        if isinstance(part, int):
            return f"[{part}]"
        short = part if len(part) <= _SHOWN else f"{part[:_SHOWN]}..."
        return short if re.fullmatch(r"[\w-]+", part, re.ASCII) else f'"{short}"'

    return ".".join(map(part_of, path)).replace(".[", "[")


def _lines(content: str) -> dict[Path, int]:
    """The line of each table and key, as far as can be told without a parser of TOML that tells: the first of a name."""
    found: dict[Path, int] = {}
    arrays: dict[tuple[str, ...], int] = {}
    here: Path = ()
    for at, line in enumerate(content.split("\n"), 1):
        line = line[:_LINE_MAX]
        if header := _HEADER.match(line):
            names = _names(header[2])
            if not names:
                continue
            here = names
            if header[1] == "[[":
                arrays[names] = arrays.get(names, -1) + 1
                here = (*names, arrays[names])
            for depth in range(1, len(here) + 1):
                found.setdefault(here[:depth], at)
        elif key := _KEY.match(line):
            names = _names(key[1])
            for depth in range(1, len(names) + 1):
                found.setdefault((*here, *names[:depth]), at)
    return found


def _names(dotted: str) -> tuple[str, ...]:
    """A dotted key as TOML reads it; empty where it is none."""
    try:
        value: Any = tomllib.loads(f"{dotted} = 0") if len(dotted) < 1000 else 0
    except (ValueError, RecursionError):
        return ()
    names = []
    while isinstance(value, dict) and len(value) == 1:
        ((name, value),) = value.items()
        names.append(name)
    return tuple(names)
