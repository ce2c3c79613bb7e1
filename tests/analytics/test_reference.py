"""docs/analysts.md: its tables are those of the migrations. That its answers are true is in test_demo.py, where the data is."""

import pytest

from analytics import reference
from analytics.migrate import migrate

DOC = reference.DOC.read_text("utf-8")


def test_the_tables_are_those_of_the_migrations():
    assert reference.with_tables(DOC) == DOC, "run: python -m analytics.reference"


def test_the_tables_are_those_that_an_engine_makes(warehouse):
    migrate(warehouse)
    for table, columns in reference.tables().items():
        found = [row[0] for row in warehouse.query(f"DESCRIBE TABLE {table}").rows]
        assert found == [column.name for column in columns], table


def test_a_column_that_nobody_describes_is_said(tmp_path):
    text = (
        "CREATE TABLE IF NOT EXISTS {}\n(\n    one  String,{}\n    two  UInt8{}\n)\nENGINE = MergeTree ORDER BY one;\n"
    )
    (tmp_path / "001_a.sql").write_text(text.format("events", "  -- the first", "  -- the second"))
    (tmp_path / "002_b.sql").write_text("ALTER TABLE events ADD COLUMN between Array(String) AFTER one;  -- a third\n")
    columns = reference.tables(tmp_path)["events"]
    assert [(c.name, c.type, c.says) for c in columns] == [
        ("one", "String", "the first"), ("between", "Array(String)", "a third"), ("two", "UInt8", "the second"),
    ]  # fmt: skip
    (tmp_path / "003_c.sql").write_text(text.format("other", "", ""))
    assert reference.tables(tmp_path)["other"] == [columns[0], columns[2]], "as in events"
    (tmp_path / "004_d.sql").write_text("ALTER TABLE other ADD COLUMN silent UInt8;\n")
    with pytest.raises(ValueError, match="table other: say behind silent"):
        reference.tables(tmp_path)


def test_all_ten_questions_are_asked():
    assert DOC.count("$ postroad query ") == 10 == len(reference._QUESTION.findall(DOC))
