"""Bring a database to the newest layout: numbered files in migrations/, forward only.

A file is applied once and noted in the table `migrations`. It may be run again after a crash in its middle, or by two
processes at once, so each of its statements must be repeatable (IF NOT EXISTS; a column that is there already is passed over here,
for 18.16 has no IF NOT EXISTS for columns). A first line `-- requires: 22.8` passes
the file over on an older server; it is applied when the server has been upgraded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from analytics.clickhouse import Warehouse, WarehouseError
from analytics.sql import statements

FOLDER = Path(__file__).parent / "migrations"
_NAME = re.compile(r"(\d{3})_\w+\.sql")
_REQUIRES = re.compile(r"-- requires: (\d+)\.(\d+)\s*$", re.M)
_ADDS = re.compile(r"ALTER TABLE (\w+) ADD COLUMN (\w+) ")
_APPLIED = """
CREATE TABLE IF NOT EXISTS migrations (number UInt16, name String, applied_at DateTime('UTC'))
ENGINE = MergeTree ORDER BY number
"""


class Migration(NamedTuple):
    """One file. `requires`: the oldest server version that can run it."""

    number: int
    name: str
    requires: tuple[int, int]
    text: str


def migrations(folder: Path = FOLDER) -> list[Migration]:
    """All files by number. Raises ValueError for a name that is not NNN_name.sql, and for a number used twice."""
    found: dict[int, Migration] = {}
    for path in sorted(folder.glob("*.sql")):
        named = _NAME.fullmatch(path.name)
        if named is None or int(named[1]) in found:
            raise ValueError(f"migration {path.name}: name it NNN_name.sql, with a number of its own")
        text = path.read_text(encoding="utf-8")
        requires = _REQUIRES.match(text)
        version = (int(requires[1]), int(requires[2])) if requires else (0, 0)
        found[int(named[1])] = Migration(int(named[1]), path.stem, version, text)
    return list(found.values())


def migrate(
    warehouse: Warehouse, folder: Path = FOLDER, note: Callable[[str], object] = lambda text: None
) -> list[str]:
    """Create the database, apply what is missing; returns the names applied. `note` is told what is passed over.

    Raises WarehouseError when a statement fails; the file is then not noted as applied.
    """
    wanted = migrations(folder)
    warehouse.create_database()
    warehouse.command(_APPLIED)
    done = {number for (number,) in warehouse.query("SELECT DISTINCT number FROM migrations").rows}
    text = warehouse.query("SELECT version()").rows[0][0]
    major, minor = (int(part) for part in text.split(".")[:2])
    applied = []
    for migration in wanted:
        if migration.number in done:
            continue
        if (major, minor) < migration.requires:
            needed = ".".join(map(str, migration.requires))
            note(f"migration {migration.name} passed over: it requires ClickHouse {needed}, this is {text}")
            continue
        for statement in statements(migration.text):
            _apply(warehouse, statement)
        warehouse.command(
            "INSERT INTO migrations SELECT toUInt16({number:UInt16}), {name:String}, now()",
            {"number": migration.number, "name": migration.name},
        )
        applied.append(migration.name)
    return applied


def _apply(warehouse: Warehouse, statement: str) -> None:
    try:
        warehouse.command(statement)
    except WarehouseError:
        adds = _ADDS.match(statement)
        if adds is None or adds[2] not in [row[0] for row in warehouse.query(f"DESCRIBE TABLE {adds[1]}").rows]:
            raise
