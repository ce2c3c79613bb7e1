"""A reader: a user of ClickHouse who sees the rows of one tenant, and can only read.

With chdb, the interface of analytics/http.py knows readers by name and password (setting `clickhouse_readers`). The engine itself filters
every table that they read (`setting`), in a connection whose settings cannot be changed.

A server of 22.8 or later gets a user with row policies (`statements`), to be run by its administrator. 18.16 has no filter of rows:
what such a user may be given is the answer of a query, `postroad query NAME --tenant T --out FILE`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from dataclasses import dataclass

from analytics.clickhouse import ServerWarehouse, Warehouse, WarehouseError, name
from analytics.cluster import on_cluster
from analytics.sql import quote
from postroad.settings import Settings

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
DEFAULT = "default"  # whom ClickHouse's clients take for the user when none is named
ROW_POLICIES = (22, 8)
READER_S = 20  # for one query
# Tables of `system` that tell nothing of anybody and that clients ask for
_HARMLESS = frozenset({"one", "numbers", "settings", "functions", "time_zones", "data_type_families", "formats"})


@dataclass(frozen=True, slots=True)
class Reader:
    """Who may read: the rows of `tenant`, all when it is empty. `password_sha256`: hex; empty: no password is asked for."""

    tenant: str
    password_sha256: str

    def knows(self, password: str) -> bool:
        """Whether this is the password."""
        return not self.password_sha256 or hmac.compare_digest(digest(password), self.password_sha256)


def digest(password: str) -> str:
    """SHA-256 of a password in hex: they are long random ones, so a slow hash would add nothing."""
    return hashlib.sha256(password.encode()).hexdigest()


def readers(settings: Settings) -> dict[str, Reader]:
    """Who may read the local engine, by name; `default` among them."""
    secret = settings.clickhouse_http_secret
    default = Reader("", digest(secret[0].get_secret_value()) if secret else "")
    named = settings.clickhouse_readers.items()
    return {DEFAULT: default} | {name: Reader(known.tenant, known.password_sha256) for name, known in named}


def setting(warehouse: Warehouse, tenant: str) -> str:
    """What has the engine show of every table only the rows that the tenant may see, for `ChdbWarehouse.raw`: of tables of our
    database that have a tenant its own rows, of all others none. Raises WarehouseError."""
    if not tenant:
        return ""
    found = warehouse.query("SELECT database, name FROM system.tables ORDER BY database, name").rows
    own = {(warehouse.database, table) for table in _tables(warehouse)}
    harmless = {("system", table) for table in _HARMLESS}
    rows = {
        f"{database}.{table}": f"tenant = {quote(tenant)}" if (database, table) in own else "0"
        for database, table in found
        if (database, table) not in harmless
    }
    filtered = ", ".join(f"{quote(table)}: {quote(where)}" for table, where in rows.items())
    # The filter comes first, counts of what was read before it are not told, and nobody is kept from the engine for long
    return (
        f"additional_table_filters = {{{filtered}}}, optimize_move_to_prewhere = 0, output_format_write_statistics = 0,"
        f" max_execution_time = {READER_S}, "
    )


def _tables(warehouse: Warehouse) -> list[str]:
    """Of the tables of our database those whose rows are somebody's."""
    found = warehouse.query(
        "SELECT DISTINCT table FROM system.columns WHERE database = {database:String} AND name = 'tenant' ORDER BY table",
        {"database": warehouse.database},
    )
    return [table for (table,) in found.rows]


def _check(tenant: str, reader: str) -> None:
    if not tenant:
        raise ValueError("a reader without a tenant would see all: name one")
    if not NAME.fullmatch(reader) or reader == DEFAULT:
        raise ValueError(
            f"{reader!r} cannot be a reader: a letter, then letters, digits, _ and -, up to 64; not {DEFAULT}"
        )


def table(tenant: str, reader: str, password: str) -> list[str]:
    """The lines of postroad.toml that make the user of a local engine. Raises ValueError for a name that is none."""
    _check(tenant, reader)
    return [
        f"[clickhouse_readers.{reader}]",
        f"tenant = {json.dumps(tenant, ensure_ascii=False)}",
        f'password_sha256 = "{digest(password)}"',
    ]


def statements(warehouse: Warehouse, tenant: str, reader: str, password: str, cluster: str = "") -> list[str]:
    """What makes the user on a server, or on every host of a cluster. Raises ValueError for a name that is none, WarehouseError also
    for a server that has no row policies."""
    _check(tenant, reader)
    if isinstance(warehouse, ServerWarehouse):
        ((version,),) = warehouse.query("SELECT version()").rows
        if tuple(map(int, version.split(".")[:2])) < ROW_POLICIES:
            raise WarehouseError(
                f"ClickHouse {version} cannot keep a user to the rows of a tenant (wanted: {'.'.join(map(str, ROW_POLICIES))});"
                " give such a user the answers: postroad query NAME --tenant TENANT --out FILE"
            )
    user, where = name(reader), on_cluster(cluster)
    # Of a cluster also those of each shard: its definition wants a <secret>, or the shards take the reader for another user
    tables = [f"{name(warehouse.database)}.{name(table)}" for table in _tables(warehouse)]
    made = [
        f"CREATE USER {user}{where} IDENTIFIED WITH sha256_hash BY '{digest(password)}'"
        f" SETTINGS readonly = 1, max_execution_time = {READER_S}, max_memory_usage = 2000000000, max_result_bytes = 200000000",
    ]
    made += [
        f"CREATE ROW POLICY {user}{where} ON {table} FOR SELECT USING tenant = {quote(tenant)} TO {user}"
        for table in tables
    ]
    # Granted only once all policies are there: after a statement that failed the user sees nothing
    return made + [f"GRANT{where} SELECT ON {table} TO {user}" for table in tables]
