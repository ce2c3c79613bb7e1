"""Columns -> one block of ClickHouse's Native format, the fastest way into both engines.

A column is a list of Python values, or one of these without a Python object a value: an array of numbers, `Texts`, `Codes`, `Lists`.
"""

from __future__ import annotations

import re
import sys
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[Any]
_CODES = {"UInt8": "B", "Int8": "b", "UInt16": "H", "UInt32": "I", "UInt64": "Q", "Int64": "q", "DateTime('UTC')": "I"}
_ENUM = re.compile(r"'((?:[^'\\]|\\.)*)' = (-?\d+)")
_UNKNOWN = 1000  # no number of an Enum8
_ONE, _TWO = 1 << 7, 1 << 14  # from these lengths on a text has two bytes before it, and three


@dataclass(frozen=True, slots=True)
class Texts:
    """UTF-8 that lies in `data` (bytes), at `starts`, of `lengths`. Two bytes before each text may be read, and are not used."""

    data: Numbers
    starts: Numbers
    lengths: Numbers

    def __len__(self) -> int:
        return len(self.starts)

    def take(self, rows: Numbers) -> Texts:
        """Some of them."""
        return Texts(self.data, self.starts[rows], self.lengths[rows])

    def each(self) -> list[bytes]:
        """Each of them."""
        data, ends = self.data.tobytes(), (self.starts + self.lengths).tolist()
        return [data[start:end] for start, end in zip(self.starts.tolist(), ends, strict=True)]

    def packed(self) -> bytes:
        """Each after its length, one after another."""
        lengths = self.lengths
        if not lengths.any():
            return bytes(len(lengths))
        longest = int(lengths.max())
        if longest >= _TWO:
            raise OverflowError(f"a text of {longest} bytes does not fit")
        before = 1 + (lengths >= _ONE) if longest >= _ONE else 1
        sizes = lengths + before
        ends = np.cumsum(sizes)
        places = ends - sizes
        source = np.repeat(self.starts - before - places, sizes)
        source += np.arange(int(ends[-1]))
        out = self.data[source]
        if longest >= _ONE:
            long = np.flatnonzero(lengths >= _ONE)
            out[places] = np.where(lengths >= _ONE, lengths & 127 | 128, lengths)
            out[places[long] + 1] = lengths[long] >> 7
        else:
            out[places] = lengths
        return bytes(out.tobytes())


@dataclass(frozen=True, slots=True)
class Codes:
    """Of each row the number of its text in `symbols`."""

    symbols: tuple[str, ...]
    numbers: Numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, rows: Numbers) -> Codes:
        """Some of them."""
        return Codes(self.symbols, self.numbers[rows])


@dataclass(frozen=True, slots=True)
class Lists:
    """Of each row so many (`counts`) of `items`, in order."""

    counts: Numbers
    items: Texts | Numbers

    def __len__(self) -> int:
        return len(self.counts)

    def take(self, rows: Numbers) -> Lists:
        """Some of them."""
        counts = self.counts[rows]
        ends = np.cumsum(counts)
        firsts = (np.cumsum(self.counts) - self.counts)[rows]
        chosen = np.repeat(firsts - (ends - counts), counts) + np.arange(int(ends[-1]) if len(ends) else 0)
        return Lists(counts, self.items.take(chosen) if isinstance(self.items, Texts) else self.items[chosen])


Column = Sequence[Any] | Numbers | Texts | Codes | Lists


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


_LENGTHS = [_varint(length) for length in range(1024)]


class _Encoded(dict[str, bytes]):
    """Strings of one column, encoded once each: most columns repeat few values."""

    def __missing__(self, text: str) -> bytes:
        data = text.encode()
        encoded = (_LENGTHS[len(data)] if len(data) < 1024 else _varint(len(data))) + data
        self[text] = encoded
        return encoded


@lru_cache(64)
def _enum(kind: str) -> dict[str, int]:
    return {name: int(number) for name, number in _ENUM.findall(kind)}


def _array(code: str, values: Any) -> bytes:
    if isinstance(values, np.ndarray):
        return bytes(values.astype(np.dtype(code).newbyteorder("<"), copy=False).tobytes())
    numbers = array(code, values)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def _column(kind: str, values: Any) -> bytes:
    if kind.startswith("Enum8("):
        known = _enum(kind)
        if isinstance(values, Codes):
            numbers = np.array([known.get(symbol, _UNKNOWN) for symbol in values.symbols], np.int16)[values.numbers]
            if (numbers == _UNKNOWN).any():
                raise ValueError(f"{kind} has not all of {values.symbols}: migrate the database")
            return _array("b", numbers)
        return _array("b", list(map(known.__getitem__, values)))
    if code := _CODES.get(kind):
        return _array(code, values)
    if kind == "String":
        return values.packed() if isinstance(values, Texts) else b"".join(map(_Encoded().__getitem__, values))
    if kind.startswith("Array("):
        if isinstance(values, Lists):
            return _array("Q", np.cumsum(values.counts)) + _column(kind[6:-1], values.items)
        ends = list(accumulate(map(len, values)))
        return _column("UInt64", ends) + _column(kind[6:-1], list(chain.from_iterable(values)))
    raise ValueError(f"no Native encoding for columns of type {kind}")


def plain(kind: str) -> str:
    """The type to send for a column of type `kind`: the engine casts."""
    return kind[15:-1] if kind.startswith("LowCardinality(") else kind


def block(columns: Mapping[str, Column], kinds: Mapping[str, str], after_type: bytes = b"") -> bytes:
    """One block. `kinds`: type of each column by name; `after_type`: what a protocol wants there.

    Raises ValueError, OverflowError, KeyError or TypeError for values that do not fit."""
    rows = len(next(iter(columns.values())))
    out = [_varint(len(columns)), _varint(rows)]
    for name, values in columns.items():
        if len(values) != rows:
            raise ValueError(f"column {name} has {len(values)} values, the first column {rows}")
        kind = plain(kinds[name])
        for text in (name.encode(), kind.encode()):
            out += (_varint(len(text)), text)
        out += (after_type, _column(kind, values))
    return b"".join(out)
