"""No cluster runs here: what is rendered is compared with what it must be, and both engines parse it."""

import pytest

from analytics.clickhouse import WarehouseError, connect
from analytics.cluster import physical, render
from analytics.migrate import MigrationError, migrate, migrations, plan
from analytics.sql import statements


def all_rendered():
    return [
        each
        for migration in migrations()
        for statement in statements(migration.text)
        for each in render(statement, "postroad", "c1")
    ]


def test_a_table_becomes_a_replicated_one_behind_a_distributed_one():
    replicated, distributed = render(statements(migrations()[0].text)[0], "postroad", "c1")
    assert replicated.startswith("CREATE TABLE IF NOT EXISTS `postroad`.`events_local` ON CLUSTER 'c1' (")
    assert (
        "ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/postroad/events_local', '{replica}')"
        in replicated
    )
    assert "PARTITION BY toYYYYMMDD(ts)" in replicated and "k_partition, k_offset)\nSETTINGS" in replicated
    assert distributed == (
        "CREATE TABLE IF NOT EXISTS `postroad`.`events` ON CLUSTER 'c1' AS `postroad`.`events_local`\n"
        "ENGINE = Distributed('c1', 'postroad', 'events_local', cityHash64(message_id))"
    )


def test_cells_are_where_their_key_says_and_keep_the_arguments_of_their_engine():
    made = "CREATE TABLE IF NOT EXISTS daily (day Date, tenant String, n UInt64) ENGINE = ReplacingMergeTree(n) ORDER BY (tenant, toDate(day))"
    replicated, distributed = render(made, "d", "c")
    assert (
        "ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/d/daily_local', '{replica}', n) ORDER BY"
        in replicated
    )
    assert distributed.endswith("cityHash64(tenant, toDate(day)))")


def test_columns_are_added_behind_first_and_dropped_in_front_first():
    assert render("ALTER TABLE events ADD COLUMN x String AFTER due_at", "d", "c") == [
        "ALTER TABLE `d`.`events_local` ON CLUSTER 'c' ADD COLUMN IF NOT EXISTS x String AFTER due_at",
        "ALTER TABLE `d`.`events` ON CLUSTER 'c' ADD COLUMN IF NOT EXISTS x String AFTER due_at",
    ]
    assert [each.split("`")[3] for each in render("ALTER TABLE events DROP COLUMN x", "d", "c")] == [
        "events",
        "events_local",
    ]
    assert len(render("ALTER TABLE events ADD INDEX IF NOT EXISTS i x TYPE minmax GRANULARITY 1", "d", "c")) == 1
    assert (
        physical("events", "d", "c") == "`d`.`events_local` ON CLUSTER 'c'"
        and physical("events", "d", "") == "`events`"
    )


def test_without_a_cluster_nothing_changes_and_what_cannot_be_rendered_is_named(empty, tmp_path):
    assert all(render(each, "d", "") == [each] for each in ("CREATE TABLE t (x UInt8) ENGINE = Memory", "nonsense"))
    for statement in ("CREATE TABLE t (x UInt8) ENGINE = Memory", "OPTIMIZE TABLE events", "CREATE VIEW v AS SELECT 1"):
        (tmp_path / "001_a.sql").write_text(statement)
        with pytest.raises(MigrationError, match="001_a: "):
            migrate(empty, tmp_path, cluster="c")


def test_every_migration_can_be_rendered_and_read_by_today_s_engine(chdb_url):
    warehouse = connect(chdb_url)
    for statement in all_rendered():
        if not statement.startswith(("INSERT", "SELECT")):
            assert "ON CLUSTER 'c1'" in statement
            assert warehouse.query(f"EXPLAIN AST {statement}").rows
    with pytest.raises(WarehouseError, match="Syntax error"):
        warehouse.query("EXPLAIN AST ALTER TABLE x ON CLUSTER 'c1' ADD")
    warehouse.close()


def test_the_tables_can_be_read_by_an_old_server_which_knows_no_such_cluster(running_server):
    warehouse = connect(running_server.url, "default")
    for statement in all_rendered():
        if statement.startswith("CREATE"):
            with pytest.raises(WarehouseError, match="Requested cluster 'c1' not found"):
                warehouse.command(statement)
    warehouse.close()


def test_a_plan_for_a_cluster_begins_with_what_every_host_has(empty):
    (first, *_) = plan(empty, cluster="c1")
    assert first.statements[0].endswith("ON CLUSTER 'c1'")
    assert "/clickhouse/tables/all/" in first.statements[1] and "'{shard}-{replica}'" in first.statements[1]
