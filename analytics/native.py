"""Columns of Python values -> one block of ClickHouse's Native format, the fastest way into chdb without NumPy.

The block names the type of each column; the engine casts where the table has another (String -> Enum8, LowCardinality).
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Mapping, Sequence
from itertools import accumulate, chain
from typing import Any

_CODES = {"UInt8": "B", "UInt16": "H", "UInt32": "I", "UInt64": "Q", "Int64": "q", "DateTime('UTC')": "I"}


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


def _column(kind: str, values: Sequence[Any]) -> bytes:
    if code := _CODES.get(kind):
        numbers = array(code, values)
        if sys.byteorder == "big":
            numbers.byteswap()
        return numbers.tobytes()
    if kind == "String":
        return b"".join(map(_Encoded().__getitem__, values))
    if kind.startswith("Array("):
        ends = list(accumulate(map(len, values)))
        return _column("UInt64", ends) + _column(kind[6:-1], list(chain.from_iterable(values)))
    raise ValueError(f"no Native encoding for columns of type {kind}")


def plain(kind: str) -> str:
    """The type to send for a column of type `kind`."""
    if kind.startswith("LowCardinality("):
        kind = kind[15:-1]
    return "String" if kind.startswith("Enum") else kind


def block(columns: Mapping[str, Sequence[Any]], kinds: Mapping[str, str]) -> bytes:
    """One block. `kinds`: type of each column by name. Raises ValueError, OverflowError or TypeError for values that do not fit."""
    rows = len(next(iter(columns.values())))
    out = [_varint(len(columns)), _varint(rows)]
    for name, values in columns.items():
        if len(values) != rows:
            raise ValueError(f"column {name} has {len(values)} values, the first column {rows}")
        kind = plain(kinds[name])
        for text in (name.encode(), kind.encode()):
            out += (_varint(len(text)), text)
        out.append(_column(kind, values))
    return b"".join(out)
