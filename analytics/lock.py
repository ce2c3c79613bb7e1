"""A lock that one process at a time holds on a database, and that ends with its holder.

    with held(warehouse, "migrate", wait_s=60.0, note=print): ...

ClickHouse has no locks, but on a server two queries of one user cannot have one id. So the holder runs a query of that id, which
sleeps; when the holder dies, its connection closes and the server ends the query at once. A table as a lock would
stay behind after kill -9. What it does not exclude: more than an hour, other users of the server, and other hosts of a cluster (migrate.py: what
it guards may be run twice). A folder of chdb belongs to one process, so there a lock within the process does.

    Locked                  another one holds it still after `wait_s`
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator

import clickhouse_driver.errors

from analytics.clickhouse import ServerWarehouse, Warehouse, WarehouseError

POLL_S = 0.2
# The first part answers at once, and says that the lock is ours; the second sleeps a quarter of a second a block, for an hour.
_SLEEP = "SELECT toUInt8(0) AS n UNION ALL SELECT sleep(0.25) AS n FROM system.numbers LIMIT 14400"
_SETTINGS = {"max_block_size": 1, "max_execution_time": 0}
_TAKEN = 216  # QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING

_here: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


class Locked(WarehouseError):
    """Another process holds the lock; the text says what to do."""


@contextlib.contextmanager
def held(
    warehouse: Warehouse, purpose: str, wait_s: float = 60.0, note: Callable[[str], object] = lambda text: None
) -> Iterator[None]:
    """Hold the lock `purpose` of the warehouse's database. `note` is told once when it has to wait. Raises Locked, WarehouseError."""
    name = f"postroad-{purpose}:{warehouse.database}"
    deadline = time.monotonic() + wait_s
    took = _take(warehouse, name)
    if took is None:
        note(f"another process holds {name}: waiting for up to {wait_s:g} s")
    while took is None:
        if time.monotonic() > deadline:
            raise Locked(
                f"another process has held {name} for {wait_s:g} s: wait until it has ended and try again;"
                " system.processes shows it under that query_id"
            )
        time.sleep(POLL_S)
        took = _take(warehouse, name)
    try:
        yield
    finally:
        took()


def _take(warehouse: Warehouse, name: str) -> Callable[[], object] | None:
    """What gives the lock back, None where another one has it."""
    if not isinstance(warehouse, ServerWarehouse):
        lock = _here[f"{name}@{getattr(warehouse, 'folder', '')}"]
        return lock.release if lock.acquire(blocking=False) else None
    client = warehouse.client("default")
    try:
        sleeping = client.execute_iter(_SLEEP, settings=_SETTINGS, query_id=name)
        next(sleeping)
    except (clickhouse_driver.errors.Error, OSError, EOFError) as error:
        client.disconnect()
        if getattr(error, "code", 0) == _TAKEN:
            return None
        text = str(error).split("Stack trace:")[0].strip()
        raise WarehouseError(f"ClickHouse at {warehouse.address}: {text}") from error

    def give_back() -> None:
        nonlocal sleeping
        client.disconnect()
        sleeping = None

    return give_back
