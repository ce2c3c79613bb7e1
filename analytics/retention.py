"""Let old days of events and messages go: whole partitions, which costs nothing. Rollups are small and stay.

18.16 has no TTL, and undoes a DROP PARTITION when it is killed within minutes: run it daily, then it is done the next day.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

from analytics import messages, sink
from analytics.clickhouse import Warehouse
from analytics.cluster import LOCAL, physical

TABLES = (sink.TABLE, messages.TABLE)  # a partition of each is a day


def days_of(warehouse: Warehouse, cluster: str = "", table: str = sink.TABLE) -> list[date]:
    """The days that a table has rows of, oldest first (on a cluster those of this host). Raises WarehouseError."""
    found = warehouse.query(
        "SELECT DISTINCT partition FROM system.parts WHERE database = {database:String} AND table = {table:String} AND active",
        {"database": warehouse.database, "table": table + (LOCAL if cluster else "")},
    )
    return sorted(datetime.strptime(partition, "%Y%m%d").replace(tzinfo=UTC).date() for (partition,) in found.rows)


def retain(
    warehouse: Warehouse,
    keep_days: int,
    cluster: str = "",
    *,
    now: Callable[[], float] = time.time,
    dry_run: bool = False,
) -> list[date]:
    """Drop the days of events and messages that ended more than `keep_days` days ago; returns them. Raises WarehouseError."""
    oldest = datetime.fromtimestamp(now(), UTC).date() - timedelta(days=keep_days)
    dropped = set()
    for table in TABLES:
        for day in [day for day in days_of(warehouse, cluster, table) if day < oldest]:
            dropped.add(day)
            if not dry_run:
                warehouse.command(
                    f"ALTER TABLE {physical(table, warehouse.database, cluster)} DROP PARTITION {day:%Y%m%d}"
                )
    return sorted(dropped)
