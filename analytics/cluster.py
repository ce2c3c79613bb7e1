"""The statements of a migration as a cluster wants them: ON CLUSTER, a replicated table on every shard, a distributed one before it.

A file says `CREATE TABLE events (...) ENGINE = ReplacingMergeTree ...`; on cluster c that becomes `events_local`, whose engine is
ReplicatedReplacingMergeTree, and `events`, a Distributed table over it that everybody reads and writes. Rows go to the shard that
their message id names; in a table without one, the shard that the sorting key names: two rows of one key, which a
ReplacingMergeTree makes one, are always on one shard. Wanted: ClickHouse 22.8 or later, macros {shard} and {replica} on every host.

docs/runbooks/analytics.md says which settings the user of a cluster needs. Nothing here was ever run on a cluster: tests check
the text, and that both engines can parse it.
"""

from __future__ import annotations

import re

from analytics.clickhouse import name
from analytics.sql import quote

LOCAL = "_local"
SHARED = ("migrations",)  # every host has all of it, so that each knows what was applied
_CREATE = re.compile(r"CREATE TABLE (?:IF NOT EXISTS )?(\w+)\b(?:\s+AS\s+(\w+)\b)?")
_ENGINE = re.compile(r"\bENGINE\s*=\s*(\w*MergeTree)\b(?:\s*\(([^()]*)\))?")
_ORDER = re.compile(r"\bORDER BY\s*(\((?:[^()]|\([^()]*\))*\)|\w+)")
_MESSAGE = re.compile(r"[(,]\s*message_id\s")
_ALTER = re.compile(r"ALTER TABLE (\w+)\s+")
_COLUMN = re.compile(r"(ADD|MODIFY|DROP) COLUMN (?:IF (?:NOT )?EXISTS )?")
_DROP = re.compile(r"DROP TABLE (?:IF EXISTS )?(\w+)\s*")


def on_cluster(cluster: str) -> str:
    """The clause, with a space before it; empty without a cluster."""
    return f" ON CLUSTER {quote(cluster)}" if cluster else ""


def physical(table: str, database: str, cluster: str) -> str:
    """What ALTER TABLE and OPTIMIZE TABLE want for the rows of `table`: its quoted name, and the clause."""
    return f"{name(database)}.{name(table + LOCAL)}{on_cluster(cluster)}" if cluster else name(table)


def create_database(database: str, cluster: str) -> str:
    """The statement."""
    return f"CREATE DATABASE IF NOT EXISTS {name(database)}{on_cluster(cluster)}"


def render(statement: str, database: str, cluster: str) -> list[str]:
    """The statements to run in place of one of a migration; without a cluster the same. Raises ValueError for one that cannot be rendered."""
    if not cluster or re.match(r"(INSERT|SELECT)\b", statement):
        return [statement]
    if found := _CREATE.match(statement):
        return _created(statement, found, database, cluster)
    if found := _ALTER.match(statement):
        return _altered(found[1], statement[found.end() :], database, cluster)
    if found := _DROP.fullmatch(statement):
        return [
            f"DROP TABLE IF EXISTS {name(database)}.{name(table)}{on_cluster(cluster)}"
            for table in (found[1], found[1] + LOCAL)
        ]
    raise ValueError(
        f"cannot be rendered for cluster {cluster}: {statement[:100]!r}; write CREATE TABLE ... ENGINE = ...MergeTree,"
        " ALTER TABLE, DROP TABLE or INSERT"
    )


def _created(statement: str, found: re.Match[str], database: str, cluster: str) -> list[str]:
    table, model = found[1], found[2]
    engine, order = _ENGINE.search(statement), _ORDER.search(statement)
    if engine is None or order is None:
        raise ValueError(f"table {table} cannot be replicated: it wants ENGINE = ...MergeTree and ORDER BY")
    of, on = name(database), on_cluster(cluster)
    shared = table in SHARED
    path = f"/clickhouse/tables/{'all' if shared else '{shard}'}/{database}/{table if shared else table + LOCAL}"
    arguments = [quote(path), quote("{shard}-{replica}" if shared else "{replica}")]
    arguments += [engine[2]] if engine[2] else []
    body = statement[found.end() : engine.start()].strip()
    kept = f"{of}.{name(table if shared else table + LOCAL)}"
    local = (
        f"CREATE TABLE IF NOT EXISTS {kept}{on} {f'AS {of}.{name(model + LOCAL)}' if model else ''}{body}\n"
        f"ENGINE = Replicated{engine[1]}({', '.join(arguments)}){statement[engine.end() :]}"
    )
    if shared:
        return [local]
    shard = (
        "cityHash64(message_id)"
        if _MESSAGE.search(body)
        else f"cityHash64({order[1].removeprefix('(').removesuffix(')')})"
    )
    before = (
        f"CREATE TABLE IF NOT EXISTS {of}.{name(table)}{on} AS {kept}\n"
        f"ENGINE = Distributed({quote(cluster)}, {quote(database)}, {quote(table + LOCAL)}, {shard})"
    )
    return [local, before]


def _altered(table: str, change: str, database: str, cluster: str) -> list[str]:
    """Columns exist in both tables; indices, partitions and rows in the replicated one alone. What is added is added behind first,
    what is dropped in front."""
    of, on = name(database), on_cluster(cluster)
    column = _COLUMN.match(change)
    if column is None:
        return [f"ALTER TABLE {of}.{name(table + LOCAL)}{on} {change}"]
    exists = {"ADD": "IF NOT EXISTS ", "DROP": "IF EXISTS ", "MODIFY": ""}[column[1]]
    repeatable = f"{column[1]} COLUMN {exists}{change[column.end() :]}"
    names = [table + LOCAL, table]
    return [
        f"ALTER TABLE {of}.{name(each)}{on} {repeatable}" for each in (names[::-1] if column[1] == "DROP" else names)
    ]
