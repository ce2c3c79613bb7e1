"""Avro records of events -> columns of the table `events`, a whole batch at a time and without a Python object a value.

All records of a batch are read side by side: each has a cursor, and the cursors pass one field of the schema after the other. Some 2 us an
event, where a dictionary by fastavro and its columns take 20. Only what is as ordinary as can be is read so. Whatever else (bytes that
are no record, a text that is too long, a time before 1970, a list in two blocks, an id that is empty) is not judged here but
left to the reader of single records: `Reader.read` says which rows these are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np

import avro
from analytics.native import Codes, Column, Lists, Numbers, Texts
from analytics.rows import END_OF_TIME_MS, ENUMS, IDS, MAX_ID, MAX_TEXT, NUMBERS, QUOTING, TEXTS, TIMES
from postroad.masking import PLAIN, Masking

_PAD = 16  # a cursor that has gone astray stays within
_MAX_ITEMS = 1000
_MAX_BYTES = 9  # of a number that is read here: 63 bits


class _Cursors:
    """One cursor a record; `good` turns False where something is not as it must be, and stays so."""

    def __init__(self, bodies: Sequence[bytes]) -> None:
        sizes = np.fromiter(map(len, bodies), np.int64, len(bodies))
        self.data = np.frombuffer(b"".join(chain((bytes(_PAD),), bodies, (bytes(_PAD),))), np.uint8)
        self.end = np.cumsum(sizes) + _PAD
        self.at = self.end - sizes
        self.good = np.ones(len(bodies), bool)
        self._astray = len(self.data) - _PAD + 1  # beyond every end, so such a record never ends well
        self._high: Numbers | None = None

    def number(self, rows: Numbers | None = None) -> Numbers:
        """An int, long or index of each record, or of these `rows`."""
        at = np.minimum(self.at if rows is None else self.at[rows], self._astray)
        byte = self.data[at]
        value = (byte & 127).astype(np.int64)
        at += 1
        left, shift = np.flatnonzero(byte >= 128), 7
        while left.size and shift < 7 * _MAX_BYTES:
            byte = self.data[np.minimum(at[left], self._astray)]
            at[left] += 1
            value[left] |= (byte & 127).astype(np.int64) << shift
            left, shift = left[byte >= 128], shift + 7
        self.good[left if rows is None else rows[left]] = False
        if rows is None:
            self.at = at
        else:
            self.at[rows] = at
        zigzag: Numbers = (value >> 1) ^ -(value & 1)
        return zigzag

    def text(self, rows: Numbers | None = None) -> tuple[Numbers, Numbers]:
        """Starts and lengths."""
        lengths = self.number(rows)
        start, end = (self.at, self.end) if rows is None else (self.at[rows], self.end[rows])
        fits = (lengths >= 0) & (lengths <= np.minimum(end - start, MAX_TEXT))
        if not fits.all():
            self.good[slice(None) if rows is None else rows] &= fits
            lengths = np.where(fits, lengths, 0)
        if rows is None:
            self.at = start + lengths
        else:
            self.at[rows] = start + lengths
        return start, lengths

    def items(self, *read: Callable[[Numbers], tuple[Numbers, ...]]) -> tuple[Numbers, list[Numbers]]:
        """Of an array or map the counts, and what `read` has read of each item, all items of the first record first."""
        counts = self.number()
        fits = (counts >= 0) & (counts <= _MAX_ITEMS)
        if not fits.all():
            self.good &= fits
            counts = np.where(fits, counts, 0)
        first = np.cumsum(counts) - counts
        out: list[Numbers] = []
        rows, number = np.flatnonzero(counts), 0
        some = rows
        while rows.size:
            found = [each for one in read for each in one(rows)]
            out = out or [np.zeros(int(counts.sum()), np.int64) for _ in found]
            for values, each in zip(out, found, strict=True):
                values[first[rows] + number] = each
            number += 1
            rows = rows[counts[rows] > number]
        if some.size:
            self.good[some] &= self.number(some) == 0  # the end of the list
        return counts, out

    def ascii(self, start: Numbers, lengths: Numbers) -> Numbers:
        """Which texts are that."""
        if self._high is None:
            self._high = np.concatenate((np.zeros(1, np.int32), np.cumsum(self.data >= 128, dtype=np.int32)))
        is_ascii: Numbers = self._high[start + lengths] == self._high[start]
        return is_ascii


class Reader:
    """Reads records of the present version of avro/Event.avsc. Raises ValueError where that has a type which is not known here."""

    def __init__(self) -> None:
        self._fields = [(field["name"], _kind(field)) for field in avro.load("Event")["fields"]]
        self._symbols = {
            field["name"]: tuple(field["type"]["symbols"]) for field in avro.load("Event")["fields"] if _kind(field) == "enum"
        }  # fmt: skip

    def read(self, bodies: Sequence[bytes], masking: Masking = PLAIN) -> tuple[dict[str, Column], Numbers]:
        """Columns of the records that are read here (all but place and `ingested_at`), and which ones these are: their numbers, in order.

        `bodies`: Avro without a header."""
        cursors = _Cursors(bodies)
        raw: dict[str, Any] = {name: getattr(self, f"_{kind}")(cursors, name) for name, kind in self._fields}
        cursors.good &= cursors.at == cursors.end
        for name in IDS:
            cursors.good &= (raw[name][1] > 0) & (raw[name][1] <= MAX_ID)
        for name in TIMES:
            cursors.good &= (raw[name] >= 0) & (raw[name] < END_OF_TIME_MS)
        rows = np.flatnonzero(cursors.good)
        columns = _columns(raw, cursors, self._symbols)
        if len(rows) < len(bodies):
            columns = {name: column.take(rows) for name, column in columns.items()}
        if masking.policy != "plain":
            columns["recipient"] = _masked(columns["recipient"], masking.address)
            columns |= {name: _masked(columns[name], masking.text) for name in QUOTING}
        return columns, rows

    @staticmethod
    def _int(cursors: _Cursors, name: str) -> Numbers:
        return cursors.number()

    @staticmethod
    def _boolean(cursors: _Cursors, name: str) -> Numbers:
        at = np.minimum(cursors.at, cursors._astray)
        value = cursors.data[at]
        cursors.good &= value <= 1
        cursors.at = at + 1
        wide: Numbers = value.astype(np.int64)
        return wide

    def _enum(self, cursors: _Cursors, name: str) -> Numbers:
        value = cursors.number()
        known = np.array([symbol in ENUMS[name] for symbol in self._symbols[name]] + [False])
        value = np.where((value < 0) | (value >= len(known)), len(known) - 1, value)
        cursors.good &= known[value]
        return value

    @staticmethod
    def _nullable(cursors: _Cursors, name: str) -> Numbers:
        branch = cursors.number()
        cursors.good &= (branch == 0) | (branch == 1)
        some = np.flatnonzero(branch == 1)
        value = np.full(len(branch), -1)
        value[some] = np.maximum(cursors.number(some), 0) if some.size else 0
        return value

    @staticmethod
    def _string(cursors: _Cursors, name: str) -> tuple[Numbers, Numbers]:
        start, lengths = cursors.text()
        _check(cursors, start, lengths, np.arange(len(start)))
        return start, lengths

    @staticmethod
    def _strings(cursors: _Cursors, name: str) -> tuple[Numbers, list[Numbers]]:
        return _checked(cursors, *cursors.items(cursors.text), 0)

    @staticmethod
    def _map_string(cursors: _Cursors, name: str) -> tuple[Numbers, list[Numbers]]:
        return _checked(cursors, *_checked(cursors, *cursors.items(cursors.text, cursors.text), 0), 2)

    @staticmethod
    def _map_int(cursors: _Cursors, name: str) -> tuple[Numbers, list[Numbers]]:
        return _checked(cursors, *cursors.items(cursors.text, lambda rows: (cursors.number(rows),)), 0)


def _kind(field: dict[str, Any]) -> str:
    """The name of what reads a field."""
    match field["type"]:
        case "string" | "boolean":
            return str(field["type"])
        case "int" | "long" | {"type": "int" | "long"}:
            return "int"
        case {"type": "enum"}:
            return "enum"
        case ["null", "long" | {"type": "long"}]:
            return "nullable"
        case {"type": "array", "items": "string"}:
            return "strings"
        case {"type": "map", "values": "string" | "int" as kind}:
            return f"map_{kind}"
    raise ValueError(f"Event.{field['name']}: columnar.py cannot read {field['type']}: add what reads it")


def _check(cursors: _Cursors, start: Numbers, lengths: Numbers, owners: Numbers) -> None:
    """Texts must be UTF-8; `owners`: the record of each."""
    for number in np.flatnonzero(~cursors.ascii(start, lengths)).tolist():
        try:
            cursors.data[start[number] : start[number] + lengths[number]].tobytes().decode()
        except UnicodeDecodeError:
            cursors.good[owners[number]] = False


def _checked(cursors: _Cursors, counts: Numbers, found: list[Numbers], at: int) -> tuple[Numbers, list[Numbers]]:
    if found:
        _check(cursors, found[at], found[at + 1], np.repeat(np.arange(len(counts)), counts))
    return counts, found


def _columns(raw: dict[str, Any], cursors: _Cursors, symbols: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    """As rows.columns_of names them."""
    out: dict[str, Any] = {}
    for name, (seconds, rest) in TIMES.items():
        out[seconds], out[rest] = raw[name] // 1000, raw[name] % 1000
    for name in (*IDS, *TEXTS):
        out[name] = Texts(cursors.data, *raw[name])
    for name in ENUMS:
        out[name] = Codes(symbols[name], raw[name])
    for name, end in NUMBERS.items():
        out[name] = np.clip(raw[name], 0, end - 1)
    due = raw["due_at"]
    out["due_at"] = np.where(due < 0, 0, np.clip(due // 1000, 1, 2**32 - 1))
    none = np.zeros(0, np.int64)
    for name, columns in (
        ("tags", ("tags",)),
        ("metadata", ("metadata_keys", "metadata_values")),
        ("phases", ("phases", "phase_ms")),
    ):
        counts, found = raw[name]
        for column in columns:
            if column == "phase_ms":
                out[column] = Lists(counts, np.clip(found[2], 0, 2**32 - 1) if found else none)
            else:
                at = 2 if column == "metadata_values" else 0
                out[column] = Lists(counts, Texts(cursors.data, *(found[at : at + 2] or (none, none))))
    return out


def _masked(column: Column, mask: Callable[[str], str]) -> list[str]:
    assert isinstance(column, Texts)
    return [mask(text.decode()) for text in column.each()]
