"""What is told of groups and tables, of real RocksDBs."""

from types import SimpleNamespace

import rocksdict

from agents.stores import Stores


def told(*stages):
    return {
        (one.name, *one.labels.values()): one.value for family in Stores(stages).collect() for one in family.samples
    }


def stage(databases, remaining=lambda: 7):
    return SimpleNamespace(stage_name="send", rebalancing_count=3, databases=lambda: databases, recovering=remaining)


def test_tables_are_told_by_partition_and_one_that_is_closed_is_left_out(tmp_path):
    databases = {n: rocksdict.Rdict(str(tmp_path / str(n))) for n in (0, 1)}
    for n in range(1000):
        databases[0][n] = b"x" * 100
    databases[0].flush()
    databases[1].close()
    found = told(stage(databases))
    databases[0].close()
    assert found["postroad_rebalances_total", "send"] == 3
    assert found["postroad_recovery_remaining_records", "send"] == 7
    assert found["postroad_table_keys", "send", "0"] == 1000
    assert found["postroad_rocksdb_disk_bytes", "send", "0"] > 1000
    assert found["postroad_rocksdb_memory_bytes", "send", "0"] > 0
    assert not [key for key in found if key[-1] == "1"]


def test_partitions_that_come_while_it_counts_hide_only_what_is_counted():
    def remaining():
        raise RuntimeError("dictionary changed size during iteration")

    assert told(stage({}, remaining)) == {("postroad_rebalances_total", "send"): 3}
