"""Answers as CSV, JSON lines and Parquet: what comes back is what was asked, whoever wrote the values."""

import csv
import io
import json
import math
import sys
from datetime import UTC, date, datetime

import pyarrow
import pyarrow.parquet
import pytest

from analytics import formats
from analytics.sql import Rows

HOSTILE = '=HYPERLINK("http://evil.test")'
KINDS = {
    "tenant": "LowCardinality(String)", "at": "DateTime('UTC')", "day": "Date", "share": "Float64", "n": "UInt64",
    "tags": "Array(String)", "phase_ms": "Array(UInt32)", "end": "Enum8('a' = 1)", "maybe": "Nullable(Float64)",
}  # fmt: skip
ROWS = [
    (HOSTILE, datetime(2026, 1, 31, 10, 0, 0), date(2026, 1, 31), 0.25, 2**64 - 1, ["a,b", '"'], [1], "a", None),
    ("-1\r\nX: y", datetime(2026, 1, 31, tzinfo=UTC), date(1970, 1, 1), math.nan, 0, [], [], "a", 1.5),
]
FOUND = Rows(list(KINDS), ROWS, list(KINDS.values()))


def written(found, form):
    file = io.BytesIO()
    formats.write(found, form, file)
    return file.getvalue()


def test_csv_is_rfc_4180_and_no_spreadsheet_computes_it():
    head, first, second = csv.reader(io.StringIO(written(FOUND, "csv").decode(), newline=""))
    assert head == list(KINDS)
    assert first == [
        f"'{HOSTILE}", "2026-01-31T10:00:00Z", "2026-01-31", "0.25", str(2**64 - 1), '["a,b", "\\""]', "[1]", "a", "",
    ]  # fmt: skip
    assert (second[0], second[3]) == ("'-1  X: y", "")


def test_json_is_one_object_a_line():
    first, second = map(json.loads, written(FOUND, "json").splitlines())
    assert first == dict(
        zip(KINDS, (HOSTILE, "2026-01-31T10:00:00Z", "2026-01-31", 0.25, 2**64 - 1, ["a,b", '"'], [1], "a", None),
            strict=True)
    )  # fmt: skip
    assert second["share"] is None and second["tenant"] == "-1\r\nX: y"


def test_parquet_keeps_types_also_of_no_rows():
    table = pyarrow.parquet.read_table(io.BytesIO(written(FOUND, "parquet")))
    assert table.column("at").to_pylist() == [datetime(2026, 1, 31, 10, tzinfo=UTC), datetime(2026, 1, 31, tzinfo=UTC)]
    assert table.column("n").to_pylist() == [2**64 - 1, 0] and table.column("tenant").to_pylist()[0] == HOSTILE
    assert table.column("maybe").to_pylist() == [None, 1.5]
    none = pyarrow.parquet.read_table(io.BytesIO(written(FOUND._replace(rows=[]), "parquet")))
    assert none.schema == table.schema and none.num_rows == 0


def test_without_pyarrow_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"postroad\[analysts\]"):
        written(FOUND, "parquet")


@pytest.mark.parametrize("form", formats.FORMATS)
def test_what_an_engine_answers_can_be_written(warehouse, form):
    found = warehouse.query(
        "SELECT 1.0 / 0 AS share, toDateTime(0, 'UTC') AS at, toDate(0) AS day, CAST(1 AS Enum8('a' = 1)) AS e,"
        " [toUInt32(7)] AS many, 'x' AS text, toInt64(-5) AS n"
    )
    answer = written(found, form)
    if form == "json":
        assert json.loads(answer) == {
            "share": None, "at": "1970-01-01T00:00:00Z", "day": "1970-01-01", "e": "a", "many": [7], "text": "x", "n": -5
        }  # fmt: skip
    elif form == "parquet":
        (row,) = pyarrow.parquet.read_table(io.BytesIO(answer)).to_pylist()
        assert (row["n"], row["many"], row["e"], row["day"]) == (-5, [7], "a", date(1970, 1, 1))
