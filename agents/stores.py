"""What the stages of a process tell of their groups and tables (agents/exporter.py): `postroad_rebalances_total{stage}`, `postroad_recovery_remaining_records{stage}`,
and of each RocksDB `postroad_table_keys`, `postroad_rocksdb_memory_bytes` and `postroad_rocksdb_disk_bytes{stage,partition}`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import rocksdict
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_IN_MEMORY = ("rocksdb.cur-size-all-mem-tables", "rocksdb.block-cache-usage", "rocksdb.estimate-table-readers-mem")
_PLACE = ["stage", "partition"]


class Stage(Protocol):
    """What is asked of an app. `databases`: its RocksDB by partition; empty where it has none, or has not started."""

    rebalancing_count: int

    @property
    def stage_name(self) -> str: ...
    def databases(self) -> Mapping[int, Any]: ...
    def recovering(self) -> int: ...


class Stores(Collector):
    """Asked in another thread: RocksDB answers there, and one that is closed meanwhile is left out."""

    def __init__(self, stages: Sequence[Stage]):
        self._stages = stages

    def collect(self) -> Iterable[Metric]:
        """As it is now."""
        begun = CounterMetricFamily("postroad_rebalances_total", "rebalances of its group that it took part in", labels=["stage"])  # fmt: skip
        behind = GaugeMetricFamily(
            "postroad_recovery_remaining_records", "of changelogs, still to be read before it begins", labels=["stage"]
        )
        keys = GaugeMetricFamily("postroad_table_keys", "keys of a stage's tables, estimated", labels=_PLACE)
        memory = GaugeMetricFamily("postroad_rocksdb_memory_bytes", "of write buffers, block cache and table readers", labels=_PLACE)  # fmt: skip
        disk = GaugeMetricFamily("postroad_rocksdb_disk_bytes", "of its files of sorted keys", labels=_PLACE)
        for stage in self._stages:
            begun.add_metric([stage.stage_name], stage.rebalancing_count)
            try:
                behind.add_metric([stage.stage_name], stage.recovering())
            except RuntimeError:  # partitions come or go at this moment
                pass
            for partition, db in sorted(stage.databases().items()):
                try:
                    found = [
                        int(db.property_int_value(one) or 0)
                        for one in ("rocksdb.estimate-num-keys", "rocksdb.total-sst-files-size", *_IN_MEMORY)
                    ]
                except rocksdict.DbClosedError:
                    continue
                place = [stage.stage_name, str(partition)]
                keys.add_metric(place, found[0])
                disk.add_metric(place, found[1])
                memory.add_metric(place, sum(found[2:]))
        return [family for family in (begun, behind, keys, memory, disk) if family.samples]
