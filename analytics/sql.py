"""SQL text: bind parameters, split a file into statements, read results in ClickHouse's JSONCompact format.

Parameters are written as ClickHouse writes them, `{tenant:String}`, so the same file runs in clickhouse-client; but they
are put in here, since 18.16 does not know them. The type decides what a value may be and how it is quoted.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, NamedTuple


class Rows(NamedTuple):
    """The answer of a query: names of the columns, the rows, and ClickHouse's types of the columns."""

    columns: list[str]
    rows: list[tuple[Any, ...]]
    kinds: Sequence[str] = ()

    def dicts(self) -> list[dict[str, Any]]:
        """Rows by column name."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


_PLACEHOLDER = re.compile(r"\{(\w+):([^{}]+)\}")
_INTEGER = re.compile(r"(U?)Int(8|16|32|64)")
# Text between quotes and comments: parts where a semicolon or a keyword means nothing. What is not closed goes to the end
# of the text: the engine refuses it, and looked for anew behind every quote it would take minutes.
_QUOTED = r"'(?:[^'\\]|\\.|'')*+(?:'|\\?\Z)|`(?:[^`\\]|\\.|``)*+(?:`|\\?\Z)|\"(?:[^\"\\]|\\.|\"\")*+(?:\"|\\?\Z)"
_COMMENT = r"--[^\n]*|/\*.*?(?:\*/|\Z)"
_PIECE = re.compile(rf"({_QUOTED})|({_COMMENT})|(;)", re.S)
# ClickHouse reads a backslash and the quote in a string literal specially; the rest is escaped to keep a statement
# readable in logs, and NUL because old parsers end a statement there.
_ESCAPES = {"\\": "\\\\", "'": "\\'", "\0": "\\0", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def quote(text: str) -> str:
    """`text` as a string literal. Raises ValueError for text that has no UTF-8 form (lone surrogates)."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"not storable as UTF-8: {text[:60]!r}") from error
    return "'" + "".join(_ESCAPES.get(letter, letter) for letter in text) + "'"


def literal(value: Any, kind: str) -> str:
    """`value` as a literal of the ClickHouse type `kind`. Raises ValueError for a value that the type cannot hold."""
    if kind == "String" and isinstance(value, str):
        return quote(value)
    if found := _INTEGER.fullmatch(kind):
        if isinstance(value, int) and not isinstance(value, bool):
            bits = int(found[2])
            low, high = (0, 2**bits) if found[1] else (-(2 ** (bits - 1)), 2 ** (bits - 1))
            if low <= value < high:
                return str(value)
    elif kind == "Float64" and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return repr(float(value))
    elif kind in ("DateTime", "DateTime('UTC')") and isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(
                f"the time {value.isoformat()} has no zone: give one, as in 2026-01-31T10:00:00Z, or a date alone"
            )
        return f"toDateTime({min(max(int(value.timestamp()), 0), 2**32 - 1)}, 'UTC')"
    elif kind.startswith("Array(") and kind.endswith(")") and isinstance(value, list | tuple):
        return "[" + ", ".join(literal(item, kind[6:-1]) for item in value) + "]"
    raise ValueError(f"{value!r} is not a value of type {kind}")


def parameters(sql: str) -> dict[str, str]:
    """Names and types of the parameters in `sql`."""
    return {name: kind.strip() for name, kind in _PLACEHOLDER.findall(sql)}


def bind(sql: str, values: Mapping[str, Any] | None = None) -> str:
    """`sql` with every `{name:Type}` replaced by the value as a literal.

    What is put in is not looked at again. Raises ValueError that names the parameter: unknown, missing, or of a wrong type.
    """
    values = values or {}
    known = parameters(sql)
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"no such parameter: {', '.join(unknown)}; there are: {', '.join(sorted(known)) or 'none'}")

    def put_in(found: re.Match[str]) -> str:
        name = found[1]
        if name not in values:
            raise ValueError(f"parameter {name} ({known[name]}) is missing")
        try:
            return literal(values[name], known[name])
        except ValueError as error:
            raise ValueError(f"parameter {name}: {error}") from error

    return _PLACEHOLDER.sub(put_in, sql)


def statements(text: str) -> list[str]:
    """The statements of a file, without comments; a `;` in quotes does not end one."""
    found: list[list[str]] = [[]]
    start = 0
    for piece in _PIECE.finditer(text):
        # A comment parts what stands around it: `-/**/-` is no comment
        found[-1] += text[start : piece.start()], piece[1] or (" " if piece[2] else "")
        if piece[3]:
            found.append([])
        start = piece.end()
    found[-1].append(text[start:])
    return [statement for pieces in found if (statement := "".join(pieces).strip())]


def without_literals(sql: str) -> str:
    """`sql` without comments and with the text of its string literals taken out; quoted names stay."""
    return _PIECE.sub(lambda piece: "''" if (piece[1] or "")[:1] == "'" else piece[1] or piece[3] or " ", sql)


def _optional(reader: Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
    return reader and (lambda value: None if value is None else reader(value))


def _reader(kind: str) -> Callable[[Any], Any] | None:
    """What turns JSON into Python for a type; None where JSON has it right."""
    for wrapper in ("Nullable(", "LowCardinality("):
        if kind.startswith(wrapper):
            return _optional(_reader(kind[len(wrapper) : -1]))
    if kind.startswith("Array("):
        item = _reader(kind[6:-1])
        return item and (lambda value: [item(each) for each in value])
    if _INTEGER.fullmatch(kind):
        return int  # 64 bits come as text from servers, which have JavaScript in mind
    if kind.startswith("Float"):
        return lambda value: math.nan if value is None else abs(float(value)) if value == "-nan" else float(value)
    if kind.startswith("DateTime"):
        return lambda value: datetime.fromisoformat(value).replace(tzinfo=UTC)
    if kind == "Date":
        return date.fromisoformat
    return None


def read_json_compact(answer: bytes) -> Rows:
    """An answer in format JSONCompact; times are taken as UTC."""
    if not answer.strip():
        return Rows([], [])
    parsed = json.loads(answer)
    readers = [_reader(column["type"]) for column in parsed["meta"]]
    rows = [
        tuple(reader(value) if reader else value for reader, value in zip(readers, row, strict=True))
        for row in parsed["data"]
    ]
    return Rows([column["name"] for column in parsed["meta"]], rows, [column["type"] for column in parsed["meta"]])
