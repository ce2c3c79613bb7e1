import re
import threading
import time
from pathlib import Path
from typing import get_args

import pytest
from event_rows import event, rows

from analytics.clickhouse import WarehouseError
from analytics.lock import Locked, held
from analytics.migrate import FOLDER, MigrationError, _apply, migrate, migrations, plan
from analytics.rows import DEFAULTS, columns_of
from avro import load
from avro.records import EventKind


def test_the_second_run_changes_nothing(empty):
    notes = []
    first = migrate(empty, note=notes.append)
    old = empty.query("SELECT version()").rows[0][0].startswith("18.")
    assert first == [each.name for each in migrations() if not (old and each.requires > (18, 16))]
    assert ("002_events_index" in first) != old
    assert bool(notes) == old and all("requires ClickHouse 2" in note for note in notes)
    assert migrate(empty) == []
    assert empty.query("SELECT count() FROM events").rows == [(0,)]


def test_a_migration_cut_off_in_its_middle_is_run_again(empty, tmp_path):
    (tmp_path / "001_a.sql").write_text("CREATE TABLE IF NOT EXISTS a (x UInt8) ENGINE = Memory; SELECT nonsense;")
    with pytest.raises(WarehouseError, match="nonsense"):
        migrate(empty, tmp_path)
    (tmp_path / "001_a.sql").write_text("CREATE TABLE IF NOT EXISTS a (x UInt8) ENGINE = Memory;")
    assert migrate(empty, tmp_path) == ["001_a"]


def test_a_plan_says_everything_and_changes_nothing(empty):
    old = plan(empty)
    assert old[0].name == "database" and old[0].statements[0].startswith("CREATE DATABASE IF NOT EXISTS `test_")
    assert "CREATE TABLE IF NOT EXISTS events" in old[1].statements[0]
    assert plan(empty) == old
    assert migrate(empty) == [step.name for step in old[1:]]
    assert plan(empty) == []


def test_a_file_that_was_changed_after_it_was_applied_is_refused(empty, tmp_path):
    file = tmp_path / "001_a.sql"
    file.write_text("CREATE TABLE IF NOT EXISTS a (x UInt8) ENGINE = MergeTree ORDER BY x;")
    migrate(empty, tmp_path)
    file.write_text("-- comments may change\nCREATE TABLE IF NOT EXISTS a\n  (x UInt8) ENGINE = MergeTree ORDER BY x;")
    assert migrate(empty, tmp_path) == []
    file.write_text("CREATE TABLE IF NOT EXISTS a (x UInt16) ENGINE = MergeTree ORDER BY x;")
    (tmp_path / "002_b.sql").write_text("CREATE TABLE IF NOT EXISTS b (x UInt8) ENGINE = MergeTree ORDER BY x;")
    with pytest.raises(MigrationError, match=r"001_a was applied on 20.*other statements.*new file"):
        migrate(empty, tmp_path)
    assert empty.query("EXISTS TABLE b").rows == [(0,)]


def test_a_database_that_is_older_than_checksums_gets_them(empty, tmp_path):
    for number, name in enumerate(("a", "b"), 1):
        (tmp_path / f"00{number}_{name}.sql").write_text(f"CREATE TABLE IF NOT EXISTS {name} (x UInt8) ENGINE = Memory")
    empty.create_database()
    empty.command(
        "CREATE TABLE migrations (number UInt16, name String, applied_at DateTime('UTC')) ENGINE = MergeTree ORDER BY number"
    )
    empty.command("INSERT INTO migrations SELECT toUInt16(7), '007_of_a_newer_release', now()")
    empty.command("INSERT INTO migrations SELECT toUInt16(1), '001_a', toDateTime('2026-01-01 00:00:00')")
    assert migrate(empty, tmp_path) == ["002_b"]
    known = dict(empty.query("SELECT name, max(checksum) FROM migrations GROUP BY name").rows)
    assert known["001_a"] == migrations(tmp_path)[0].checksum and known["007_of_a_newer_release"] == ""
    assert plan(empty, tmp_path) == []


def test_of_two_migrators_one_waits_or_says_so(empty):
    notes, began, done = [], threading.Event(), []

    def second():
        began.set()
        done.append(migrate(empty, note=notes.append))

    with held(empty, "migrate"):
        with pytest.raises(Locked, match=r"another process has held postroad-migrate:test_\d+ for 0 s"):
            migrate(empty, wait_s=0)
        waiting = threading.Thread(target=second)
        waiting.start()
        began.wait()
        while not notes:
            time.sleep(0.01)
        assert "waiting" in notes[0] and not done
    waiting.join()
    assert "001_events" in done[0]
    with held(empty, "migrate", wait_s=5):  # given back
        assert migrate(empty) == []  # nothing to do needs no lock


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
