"""Answers of queries as files: CSV (RFC 4180) for spreadsheets, JSON lines for scripts, Parquet for notebooks."""

from __future__ import annotations

import csv
import io
import json
import math
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, BinaryIO

from analytics.sql import Rows
from postroad.spreadsheet import guarded

if TYPE_CHECKING:
    import pyarrow

FORMATS = ("csv", "json", "parquet")


def write(found: Rows, form: str, file: BinaryIO) -> None:
    """Write an answer. Times are UTC. Raises ValueError for Parquet where pyarrow is not installed."""
    {"csv": _csv, "json": _json, "parquet": _parquet}[form](found, file)


def _csv(found: Rows, file: BinaryIO) -> None:
    """A cell that a spreadsheet would compute is guarded (postroad/spreadsheet.py), a list is JSON."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text)
    writer.writerow(found.columns)
    writer.writerows([_cell(value) for value in row] for row in found.rows)
    text.detach()


def _cell(value: Any) -> str:
    value = _plain(value)
    if value is None:
        return ""
    if isinstance(value, str):
        return guarded(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else str(value)


def _json(found: Rows, file: BinaryIO) -> None:
    """One object a line."""
    for row in found.rows:
        record = dict(zip(found.columns, map(_plain, row), strict=True))
        file.write(json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n")


def _plain(value: Any) -> Any:
    """What JSON can say: times as ISO 8601, no number for NaN and infinity."""
    if isinstance(value, datetime):
        return _utc(value).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _utc(value: datetime) -> datetime:
    return value if value.tzinfo else value.replace(tzinfo=UTC)  # 18.16's driver gives UTC without saying so


def _parquet(found: Rows, file: BinaryIO) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ValueError("Parquet needs pyarrow: pip install 'postroad[analysts]'") from None
    fields = [(name, _arrow(pyarrow, kind)) for name, kind in zip(found.columns, found.kinds, strict=True)]
    columns = list(zip(*found.rows, strict=True)) or [()] * len(fields)
    arrays = [
        pyarrow.array([_utc(value) if isinstance(value, datetime) else value for value in column], kind)
        for column, (_, kind) in zip(columns, fields, strict=True)
    ]
    pyarrow.parquet.write_table(pyarrow.table(arrays, schema=pyarrow.schema(fields)), file)


def _arrow(arrow: Any, kind: str) -> pyarrow.DataType:
    """Arrow's type for one of ClickHouse's: also of a column without a value, so that files of many days fit together."""
    for wrapper in ("Nullable(", "LowCardinality("):
        if kind.startswith(wrapper):
            return _arrow(arrow, kind[len(wrapper) : -1])
    if kind.startswith("Array("):
        return arrow.list_(_arrow(arrow, kind[6:-1]))
    if kind.startswith("DateTime"):
        return arrow.timestamp("s", "UTC")
    simple = {"Date": "date32", "Float64": "float64", "Float32": "float32"}
    if kind.lstrip("U").startswith("Int"):
        return getattr(arrow, kind.lower())()
    return getattr(arrow, simple.get(kind, "string"))()
