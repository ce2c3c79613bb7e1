"""Rows of a file that people hand in: CSV (RFC 4180, and what spreadsheets make of it) or JSON, of any size, a row at a time.

What cannot be read is a `Fault` with its line, and reading goes on behind it: a quote that is never closed costs one line, not
the rest of the file.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections import deque
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple, TypeAlias

LINE_MAX = 64 << 10  # bytes of a line, a row or a JSON object
ROW_LINES_MAX = 50  # a quoted field may hold line ends: replies of mail hosts do
DELIMITERS = ",;\t"
_CHUNK = 64 << 10
# An object without another one inside: what lists of suppressions are made of. Possessive, so that no input takes long.
_FLAT = re.compile(r'\{(?:[^{}"]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)


class Row(NamedTuple):
    """The values of a row by column; `line`: where it begins, from 1."""

    line: int
    values: dict[str, str]


class Fault(NamedTuple):
    """A line that is no row, and why."""

    line: int
    text: str


Rows: TypeAlias = Iterator[Row | Fault]


def rows(file: BinaryIO, lower: bool = True) -> Rows:
    """The rows of a file that is open at its beginning. Column names of CSV are in lower case, unless told otherwise. Raises ValueError for a file without
    any."""
    start = file.read(_CHUNK)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in start[:100]:
        raise ValueError("the file is not UTF-8: save it as CSV UTF-8")
    start = start.removeprefix(codecs.BOM_UTF8)
    if start.lstrip()[:1] in (b"{", b"["):
        return _json_rows(start, file)
    lines = _Lines(start, file)
    for number, line in lines:
        if line is not None and line.strip():
            return _csv_rows(number, line, lines, lower)
    raise ValueError("the file is empty: it has not even a header line")


# -- CSV ---------------------------------------------------------------------------------------------------------------


class _Lines:
    """Lines with their numbers; None for one that is too long. Those that were taken too many go back."""

    def __init__(self, start: bytes, file: BinaryIO):
        self._file, self._buffer, self._at, self._number = file, start, 0, 0
        self._back: deque[tuple[int, bytes | None]] = deque()

    def __iter__(self) -> Iterator[tuple[int, bytes | None]]:
        while (line := self.next()) is not None:
            yield line

    def next(self) -> tuple[int, bytes | None] | None:
        if self._back:
            return self._back.popleft()
        too_long = False
        while (end := self._end()) < 0:
            if len(self._buffer) - self._at > LINE_MAX:
                self._at, too_long = len(self._buffer), True
            more = self._file.read(_CHUNK)
            self._buffer, self._at = self._buffer[self._at :] + more, 0
            if not more:
                end = len(self._buffer)
                break
        line, self._at = self._buffer[self._at : end], end
        if not line and not too_long:
            return None
        self._number += 1
        return self._number, None if too_long or len(line) > LINE_MAX else line

    def put_back(self, lines: list[tuple[int, bytes | None]]) -> None:
        self._back.extendleft(reversed(lines))

    def _end(self) -> int:
        """Where the next line of the buffer ends, behind its LF, CRLF or CR; -1: not in the buffer."""
        lf = self._buffer.find(b"\n", self._at)
        cr = self._buffer.find(b"\r", self._at, lf if lf >= 0 else len(self._buffer))
        if cr < 0 or cr + 1 == lf:
            return lf + 1 if lf >= 0 else -1
        return cr + 1 if cr + 1 < len(self._buffer) else -1  # is it CRLF?


def _csv_rows(number: int, header: bytes, lines: _Lines, lower: bool) -> Rows:
    text = header.decode("utf-8", "replace")
    delimiter = max(DELIMITERS, key=lambda one: (text.count(one), one == ","))
    names = [name.strip().lower() if lower else name.strip() for name in _parsed(text, delimiter) or []]
    if not any(names) or len(set(names)) != len(names):
        raise ValueError(f"line {number} is no header line: it wants the names of the columns, each once")

    def row(at: int, raw: bytes) -> Row | Fault:
        try:
            values = _parsed(raw.decode("utf-8"), delimiter)
        except UnicodeDecodeError as error:
            return Fault(at, f"byte {error.start + 1} of it is not UTF-8")
        if values is None:
            return Fault(at, "a quote is not where quotes are: the whole field in quotes, quotes in it doubled")
        if len(values) != len(names):
            return Fault(at, f"has {len(values)} fields, the header line {len(names)}")
        return Row(at, dict(zip(names, values, strict=True)))

    for at, line in lines:
        if line is None:
            yield Fault(at, f"is longer than {LINE_MAX:,} bytes")
        elif line.strip():
            yield _whole(at, line, lines, row)


def _whole(at: int, line: bytes, lines: _Lines, row: Callable[[int, bytes], Row | Fault]) -> Row | Fault:
    """The row that begins here. One over several lines must be right; else its first line alone is wrong."""
    taken: list[tuple[int, bytes | None]] = []
    raw = line
    while raw.count(b'"') % 2 and len(taken) < ROW_LINES_MAX and len(raw) <= LINE_MAX:
        if (following := lines.next()) is None:
            break
        taken.append(following)
        if following[1] is None:
            break
        raw += following[1]
    if not raw.count(b'"') % 2:
        found = row(at, raw)
        if not taken or isinstance(found, Row):
            return found
    lines.put_back(taken)
    return Fault(at, "a quote is opened and never closed" if taken else "a quote too many, or one too few")


def _parsed(text: str, delimiter: str) -> list[str] | None:
    """The fields of a row; None where its quotes are wrong."""
    try:
        found = list(csv.reader([text.rstrip("\r\n")], delimiter=delimiter, strict=True))
    except csv.Error:
        return None
    return found[0] if len(found) == 1 else None


# -- JSON --------------------------------------------------------------------------------------------------------------


def _json_rows(start: bytes, file: BinaryIO) -> Rows:
    """Every innermost object, wherever it lies: an array, pages of an API one behind the other, JSON Lines."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text, line, at = decoder.decode(start), 1, 0
    while True:
        opened = text.find("{", at)
        found = _FLAT.match(text, opened) if opened >= 0 else None
        end = found.end() if found else len(text)
        if found is None or (
            text[end : end + 1] in ("", '"', "\\") and end - opened <= LINE_MAX
        ):  # not all of it is here
            keep = opened if found else len(text)
            line, text, at = line + text.count("\n", at, keep), text[keep:], 0
            if not (more := file.read(_CHUNK)):
                if text:
                    yield Fault(line, "an object is not closed")
                return
            text += decoder.decode(more)
            continue
        line += text.count("\n", at, opened)
        if text[end : end + 1] == "}":
            yield _object(line, text[opened : end + 1])
        elif text[end : end + 1] != "{":
            yield Fault(line, f"an object is longer than {LINE_MAX:,} characters, or no JSON")
        at = max(end, opened + 1)
        line += text.count("\n", opened, at)


def _object(line: int, text: str) -> Row | Fault:
    try:
        found = json.loads(text, parse_constant=str)
    except (ValueError, RecursionError) as error:
        return Fault(line, f"no JSON: {str(error)[:200]}")
    return Row(line, {str(name).lower(): "" if value is None else str(value) for name, value in found.items()})
