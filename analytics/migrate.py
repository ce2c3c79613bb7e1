"""Bring a database to the newest layout: numbered files in migrations/, forward only.

A file is applied once and noted in the table `migrations`, with a checksum of its statements: an applied file that has
changed since (comments may) is refused. One migrator at a time works on a database (lock.py), another one waits. A file may still
be run again, after a crash in its middle, so each of its statements must be repeatable (IF NOT EXISTS; a column that is there
already is passed over here, for 18.16 has no IF NOT EXISTS for columns). A first line `-- requires: 22.8` passes the file over on
an older server; it is applied when the server has been upgraded. On a cluster statements are rendered by cluster.py.

docs/runbooks/analytics.md says how to change tables under code that runs: expand, then contract.

    MigrationError          a file was changed after it was applied, or cannot be rendered for a cluster
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from analytics import cluster as clusters
from analytics.clickhouse import ChdbWarehouse, ServerWarehouse, Warehouse, WarehouseError
from analytics.lock import held
from analytics.sql import statements

FOLDER = Path(__file__).parent / "migrations"
Note = Callable[[str], object]
_NAME = re.compile(r"(\d{3})_\w+\.sql")
_REQUIRES = re.compile(r"-- requires: (\d+)\.(\d+)\s*$", re.M)
_ADDS = re.compile(r"ALTER TABLE (\w+) ADD COLUMN (\w+) ")
_MISSING = re.compile(r"\bCode: (60|81)\b")  # UNKNOWN_TABLE, UNKNOWN_DATABASE
_APPLIED = """
CREATE TABLE IF NOT EXISTS migrations (number UInt16, name String, applied_at DateTime('UTC'), checksum String)
ENGINE = MergeTree ORDER BY number
""".strip()


class MigrationError(WarehouseError):
    """The files and what was applied do not belong together; the text says what to do."""


class Migration(NamedTuple):
    """One file. `requires`: the oldest server version that can run it."""

    number: int
    name: str
    requires: tuple[int, int]
    text: str

    @property
    def checksum(self) -> str:
        """Of the statements; comments and line breaks do not count."""
        told = ";".join(" ".join(statement.split()) for statement in statements(self.text))
        return hashlib.sha256(told.encode()).hexdigest()


class Step(NamedTuple):
    """What is to be done for one file, or for the table of what was applied (`migration` None): statements, in order."""

    name: str
    statements: list[str]
    migration: Migration | None = None


class _Done(NamedTuple):
    """An applied file, as the database knows it; `checksum` is empty where it was applied before there were any."""

    name: str
    at: datetime
    checksum: str


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
    warehouse: Warehouse,
    folder: Path = FOLDER,
    note: Note = lambda text: None,
    *,
    cluster: str = "",
    wait_s: float = 60.0,
) -> list[str]:
    """Create the database, apply what is missing; returns the names applied. `note` is told what is passed over and waited for.

    Raises MigrationError, Locked, and WarehouseError when a statement fails; the file is then not noted as applied.
    """
    told: list[str] = []
    if not plan(warehouse, folder, told.append, cluster=cluster):
        for each in told:
            note(each)
        return []
    warehouse.create_database()
    applied = []
    with held(warehouse, "migrate", wait_s, note):
        for step in plan(
            warehouse, folder, note, cluster=cluster
        ):  # anew: another one may have done it while we waited
            for statement in step.statements:
                _apply(warehouse, statement)
            if step.migration is not None:
                warehouse.command(_noting(step.migration))
                applied.append(step.name)
    return applied


def plan(
    warehouse: Warehouse, folder: Path = FOLDER, note: Note = lambda text: None, *, cluster: str = ""
) -> list[Step]:
    """What `migrate` would do now; changes nothing. Empty: nothing. Raises MigrationError, WarehouseError."""
    done = _applied(warehouse)
    steps = []
    if done is None:
        made = [
            clusters.create_database(warehouse.database, cluster),
            *_rendered(_APPLIED, "migrations", warehouse, cluster),
        ]
        steps.append(Step("database", made))
    elif adopted := _adopted(warehouse, folder, done):
        steps.append(Step("checksums", adopted))
    text = _version(warehouse, there=done is not None)
    version = tuple(int(part) for part in text.split(".")[:2])
    for migration in migrations(folder):
        if (known := (done or {}).get(migration.number)) is not None:
            _compare(migration, known)
        elif version < migration.requires:
            needed = ".".join(map(str, migration.requires))
            note(f"migration {migration.name} passed over: it requires ClickHouse {needed}, this is {text}")
        else:
            told = [
                each
                for statement in statements(migration.text)
                for each in _rendered(statement, migration.name, warehouse, cluster)
            ]
            steps.append(Step(migration.name, told, migration))
    return steps


def _rendered(statement: str, file: str, warehouse: Warehouse, cluster: str) -> list[str]:
    try:
        return clusters.render(statement, warehouse.database, cluster)
    except ValueError as error:
        raise MigrationError(f"migration {file}: {error}") from None


def _applied(warehouse: Warehouse) -> dict[int, _Done] | None:
    """What was applied, by number; None where there is no database yet, or nothing in it."""
    try:
        columns = [row[0] for row in warehouse.query("DESCRIBE TABLE migrations").rows]
        checksum = "max(checksum)" if "checksum" in columns else "''"
        rows = warehouse.query(
            f"SELECT number, any(name), min(applied_at), {checksum} FROM migrations GROUP BY number"
        ).rows
    except WarehouseError as error:
        if _MISSING.search(str(error)):
            return None
        raise
    return {number: _Done(*rest) for number, *rest in rows}


def _compare(migration: Migration, known: _Done) -> None:
    if known.checksum not in ("", migration.checksum):
        raise MigrationError(
            f"migration {migration.name} was applied on {known.at:%Y-%m-%d %H:%M} UTC"
            f"{f' as {known.name}' if known.name != migration.name else ''} with other statements than the file has now:"
            " an applied file is never changed. Put it back as it was, and write what is to change into a new file"
        )


def _adopted(warehouse: Warehouse, folder: Path, done: dict[int, _Done]) -> list[str]:
    """The statements that give a checksum to what was applied before there were any."""
    columns = [row[0] for row in warehouse.query("DESCRIBE TABLE migrations").rows]
    add = [] if "checksum" in columns else ["ALTER TABLE migrations ADD COLUMN checksum String"]
    return add + [
        _noting(each) for each in migrations(folder) if each.number in done and not done[each.number].checksum
    ]


def _noting(migration: Migration) -> str:
    return (
        f"INSERT INTO migrations (number, name, applied_at, checksum) SELECT toUInt16({migration.number}),"
        f" '{migration.name}', now(), '{migration.checksum}'"
    )


def _version(warehouse: Warehouse, there: bool) -> str:
    """Of the engine. `there`: our database exists, and can be asked."""
    if not there and isinstance(warehouse, ServerWarehouse):
        client = warehouse.client("default")
        try:
            return str(client.execute("SELECT version()")[0][0])
        finally:
            client.disconnect()
    asked = (
        ChdbWarehouse(warehouse.folder, "default") if not there and isinstance(warehouse, ChdbWarehouse) else warehouse
    )
    try:
        return str(asked.query("SELECT version()").rows[0][0])
    finally:
        if asked is not warehouse:
            asked.close()


def _apply(warehouse: Warehouse, statement: str) -> None:
    try:
        warehouse.command(statement)
    except WarehouseError:
        adds = _ADDS.match(statement)
        if adds is None or adds[2] not in [row[0] for row in warehouse.query(f"DESCRIBE TABLE {adds[1]}").rows]:
            raise
