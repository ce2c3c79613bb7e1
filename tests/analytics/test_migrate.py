import re
from pathlib import Path
from typing import get_args

import pytest
from event_rows import event, rows

from analytics.clickhouse import WarehouseError
from analytics.migrate import FOLDER, _apply, migrate, migrations
from analytics.sink import DEFAULTS, columns_of
from avro import load
from avro.records import EventKind


def test_the_second_run_changes_nothing(empty):
    notes = []
    first = migrate(empty, note=notes.append)
    old = empty.query("SELECT version()").rows[0][0].startswith("18.")
    assert first == (
        ["001_events", "003_shaping", "004_feedback"]
        if old
        else ["001_events", "002_events_index", "003_shaping", "004_feedback"]
    )
    assert bool(notes) == old and all("requires ClickHouse 22.8" in note for note in notes)
    assert migrate(empty) == []
    assert empty.query("SELECT count() FROM events").rows == [(0,)]


def test_a_migration_cut_off_in_its_middle_is_run_again(empty, tmp_path):
    (tmp_path / "001_a.sql").write_text("CREATE TABLE IF NOT EXISTS a (x UInt8) ENGINE = Memory; SELECT nonsense;")
    with pytest.raises(WarehouseError, match="nonsense"):
        migrate(empty, tmp_path)
    (tmp_path / "001_a.sql").write_text("CREATE TABLE IF NOT EXISTS a (x UInt8) ENGINE = Memory;")
    assert migrate(empty, tmp_path) == ["001_a"]


def test_a_column_that_is_there_is_passed_over_and_no_other_error(empty):
    migrate(empty)
    empty.command("DROP TABLE migrations")  # cut off before it was noted
    assert "003_shaping" in migrate(empty)
    with pytest.raises(WarehouseError):
        _apply(empty, "ALTER TABLE events ADD COLUMN other Nonsense")


@pytest.mark.parametrize("names", [["1_a.sql"], ["001_a.sql", "001_b.sql"], ["notes.sql"]])
def test_badly_named_files_are_an_error(names, tmp_path: Path):
    for name in names:
        (tmp_path / name).write_text("SELECT 1")
    with pytest.raises(ValueError, match="NNN_name"):
        migrations(tmp_path)


def test_the_table_follows_the_schema():
    """Every field of avro/Event.avsc has its place, and every kind its number."""
    text = (FOLDER / "001_events.sql").read_text() + (FOLDER / "004_feedback.sql").read_text()
    assert set(re.findall(r"'([a-z_]+)' = \d+", text)) == {*get_args(EventKind), "transactional", "broadcast"}
    fields = {field["name"] for field in load("Event")["fields"]}
    assert fields - {"event_id", "at", "metadata"} <= set(columns_of(rows([event()]), 0))
    assert {field["name"] for field in load("Event")["fields"] if "default" in field} == set(DEFAULTS)
    assert fields == set(event())
