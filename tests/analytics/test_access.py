"""A reader of one tenant, who tries to get out."""

import asyncio
import json
import tomllib

import aiohttp
import pytest
from event_rows import event, rows
from typer.testing import CliRunner

from analytics import access
from analytics.access import Reader, digest
from analytics.clickhouse import WarehouseError, connect
from analytics.http import serve
from analytics.migrate import migrate
from analytics.sink import Sink
from postroad import cli, settings

READERS = {
    "default": Reader("", digest("all")),
    "shop": Reader("shop", digest("s3cret")),
    "o'neil": Reader("o'neil \\", digest("s3cret")),
}


@pytest.fixture
async def facade(chdb_url):
    warehouse = connect(chdb_url, "access_test")
    await asyncio.to_thread(migrate, warehouse)
    sink = Sink(warehouse, "g")
    sink.recover({0: 0})
    if not warehouse.query("SELECT count() FROM events").rows[0][0]:
        others = [event("m2", tenant="other"), event("m2", "delivered", 5, attempt=1, tenant="other")]
        sink.write(rows([event("m1", tenant="shop"), *others, event("m3", tenant="o'neil \\")]))
        sink.roll()
    runner = await serve(warehouse, 0, READERS)
    host, port = runner.addresses[0]
    async with aiohttp.ClientSession(f"http://{host}:{port}") as session:
        yield session
    await runner.cleanup()
    warehouse.close()


async def ask(facade, sql, user="shop", password="s3cret"):
    headers = {"X-ClickHouse-User": user, "X-ClickHouse-Key": password}
    async with facade.post("/", data=sql.encode(), headers=headers) as answer:
        return answer.status, await answer.text()


OWN = {
    "SELECT message_id, tenant FROM events": "m1\tshop\n",
    "SELECT tenant, sum(messages) FROM hours FINAL GROUP BY tenant": "shop\t1\n",
    "SELECT tenant FROM messages FINAL": "shop\n",
    "SELECT count() FROM events": "1\n",
    "SELECT count() FROM events WHERE EXISTS (SELECT 1 FROM messages)": "1\n",
    "SELECT count() FROM events WHERE throwIf(tenant = 'other') = 0 OR tenant = 'shop'": "1\n",
    "SELECT 1 -/**/-1": "2\n",
    "SELECT max(tenant), count() FROM (SELECT * FROM `access_test`.\"events\" AS postroad WHERE 1 OR tenant = 'other')": "shop\t1\n",
    "SELECT a.tenant, b.tenant FROM events AS a CROSS JOIN access_test.events AS b": "shop\tshop\n",
    "SELECT 'm2' IN (SELECT message_id FROM events), (SELECT max(tenant) FROM messages)": "0\tshop\n",
    "WITH RECURSIVE x AS (SELECT tenant, 1 AS n FROM events UNION ALL SELECT e.tenant, n + 1 FROM events AS e, x WHERE n < 3) SELECT * FROM x": "shop\t1\nshop\t2\nshop\t3\n",
    "SELECT tenant FROM events UNION ALL SELECT tenant FROM events": "shop\nshop\n",
    "SELECT count() FROM (SELECT * FROM events ORDER BY tenant LIMIT 10 WITH TIES)": "1\n",
    "SELECT count() FROM feedback": "0\n",
    "SELECT count() FROM migrations": "0\n",
    "SELECT count() FROM system.parts": "0\n",
    "SELECT count() FROM system.tables": "0\n",
    "SELECT count() FROM system.processes": "0\n",
    "SELECT count() FROM information_schema.tables": "0\n",
    "SELECT count() FROM INFORMATION_SCHEMA.COLUMNS": "0\n",
    "SELECT count() > 100 FROM system.settings": "1\n",
    "SELECT count() FROM numbers(3)": "3\n",
}  # fmt: skip


async def test_sees_its_own_rows_in_every_way_of_asking(facade):
    for sql, answer in OWN.items():
        assert await ask(facade, sql) == (200, answer), sql
    assert await ask(facade, "SELECT tenant FROM events", "o'neil") == (200, "o\\'neil \\\\\n")
    assert await ask(facade, "SELECT count() FROM events", "default", "all") == (200, "4\n")
    assert (await ask(facade, "SELECT count() > 4 FROM migrations", "default", "all"))[1] == "1\n"


OUT = [
    "SELECT * FROM merge('access_test', 'events')", "SELECT * FROM merge(REGEXP('.*'), 'events')", "SELECT * FROM \"merge\"/**/('access_test', 'events')",
    "SELECT * FROM mergeTreeIndex('access_test', 'events')", "SELECT * FROM loop(access_test.events) LIMIT 5", "SELECT * FROM view(SELECT * FROM events)",
    "SELECT * FROM remote('127.0.0.1', access_test.events)", "SELECT * FROM clusterAllReplicas('default', access_test.events)", "SELECT * FROM viewExplain('', '', (SELECT 1))",
    "SELECT tenant FROM events SETTINGS additional_table_filters = {}", "SELECT * FROM (SELECT tenant FROM events SETTINGS additional_table_filters = {})",
    "SELECT tenant FROM events SETTINGS enable_analyzer = 0", "SELECT tenant FROM events SETTINGS readonly = 0", "SET additional_table_filters = {}",
    "SELECT 1 FROM messages PREWHERE tenant != 'shop' AND toInt8(message_id) = 0", "SELECT tenant FROM events PREWHERE throwIf(tenant = 'other', 'leak') = 0",
    "SELECT count() FROM events PREWHERE/**/tenant = 'shop'", "SELECT 1 -/**/- '\n; SELECT 2 --'", "SELECT 1 -/**/- '\n; USE system --'", "SELECT 1 /*/**/*/ - '\n; USE system --'",
    "EXPLAIN ESTIMATE SELECT * FROM events", "SELECT * FROM (EXPLAIN ESTIMATE SELECT * FROM events)", "SHOW TABLES", "SHOW PROCESSLIST", "EXISTS events",
    "SELECT joinGet('access_test.events', 'tenant', 1)", "SELECT dictGet('x', 'y', 1)", "SELECT * FROM file('/etc/hostname', 'LineAsString')", "SELECT file('/etc/hostname')",
    "SELECT * FROM python('x')", "SELECT * FROM executable('x', 'CSV', 'a String')", "SELECT * FROM dictionary('x')", "SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'a String')",
    "INSERT INTO events (message_id) VALUES ('x')", "CREATE VIEW v AS SELECT * FROM events", "CREATE TEMPORARY TABLE t AS SELECT * FROM events", "DROP TABLE events", "KILL QUERY WHERE 1",
    "USE system", "SYSTEM DROP CACHE", "GRANT ALL ON *.* TO shop", "BACKUP TABLE events TO File('x')", "SELECT 1 INTO OUTFILE 'x'", "SELECT 1; SELECT * FROM events",
]  # fmt: skip


@pytest.mark.parametrize("sql", OUT)
async def test_does_not_get_out(facade, sql):
    status, text = await ask(facade, sql)
    assert 400 <= status < 500, text
    assert "other" not in text and "m2" not in text


async def test_errors_and_statistics_tell_nothing_of_others(facade):
    for sql in ("SELECT toInt8(message_id) FROM events", "SELECT * FROM nonsense", "SELECT throwIf(1, 'leak')"):
        status, text = await ask(facade, sql)
        assert (
            status == 400 and text.startswith("Code: ") and "m1" not in text and "leak" not in text and "/" not in text
        )
    _, text = await ask(facade, "SELECT count() FROM events FORMAT JSON")
    assert "rows_read" not in text and json.loads(text)["data"] == [{"count()": 1}]


async def test_a_table_that_is_new_is_not_open(facade, chdb_url):
    assert await ask(facade, "SELECT 1") == (200, "1\n")
    owner = connect(chdb_url, "access_test")
    try:
        for table, rows in (("late", "(tenant String, x Int8)"), ("late_too", "(x Int8)")):
            await asyncio.to_thread(owner.command, f"CREATE TABLE {table} {rows} ENGINE = MergeTree ORDER BY x")
            await asyncio.to_thread(
                owner.command,
                f"INSERT INTO {table} VALUES ({'1' if 'too' in table else chr(39) + 'other' + chr(39) + ', 1'})",
            )
            assert await ask(facade, f"SELECT count() FROM {table}") == (200, "0\n")
            assert await ask(facade, f"SELECT count() FROM {table}", "default", "all") == (200, "1\n")
    finally:
        for table in ("late", "late_too"):
            owner.command(f"DROP TABLE IF EXISTS {table}")
        owner.close()


async def test_one_reader_does_not_keep_the_others_waiting(facade):
    slow = [asyncio.create_task(ask(facade, "SELECT sleep(1)")) for _ in range(6)]
    await asyncio.sleep(0.2)
    assert await ask(facade, "SELECT 1", "default", "all") == (200, "1\n")
    assert not all(task.done() for task in slow)
    assert {status for status, _ in await asyncio.gather(*slow)} == {200}


async def test_a_whole_row_of_somebody_else_is_not_found_by_its_value(facade):
    """`x IN table` reads a table too: one row's bytes are enough to ask."""
    _, row = await ask(facade, "SELECT toString(tuple(*)) FROM migrations LIMIT 1 FORMAT TSVRaw", "default", "all")
    _, kind = await ask(facade, "SELECT toTypeName(tuple(*)) FROM migrations LIMIT 1 FORMAT TSVRaw", "default", "all")
    quoted = [part.strip().replace("'", "\\'") for part in (row, kind)]
    for table in ("migrations", "access_test.migrations", "(SELECT * FROM migrations)"):
        sql = f"SELECT CAST('{quoted[0]}', '{quoted[1]}') IN {table}"
        assert await ask(facade, sql, "default", "all") == (200, "1\n"), sql
        assert await ask(facade, sql) == (200, "0\n")


async def test_who_is_not_known_sees_nothing(facade):
    for user, password in [
        ("shop", ""),
        ("shop", "all"),
        ("default", "s3cret"),
        ("nobody", "s3cret"),
        ("shop\x00", "s3cret"),
        ("' OR 1", ""),
    ]:
        try:
            status, text = await ask(facade, "SELECT 1", user, password)
        except ValueError:  # aiohttp's client sends no NUL
            continue
        assert status == 401 and "m1" not in text
    async with facade.get("/", params={"query": "SELECT 1"}) as answer:
        assert answer.status == 401 and answer.headers["WWW-Authenticate"].startswith("Basic")
    async with facade.get("/", params={"query": "SELECT 1", "user": "shop", "password": "s3cret"}) as answer:
        assert (answer.status, await answer.text()) == (200, "1\n")
    async with facade.get(
        "/", params={"query": "SELECT count() FROM events"}, headers={"Authorization": "Basic c2hvcDpzM2NyZXQ="}
    ) as answer:
        assert (answer.status, await answer.text()) == (200, "1\n")
    for header in ("Basic", "Basic %%%", "Bearer x", "Basic c2hvcA=="):
        async with facade.get("/", params={"query": "SELECT 1"}, headers={"Authorization": header}) as answer:
            assert answer.status == 401
    async with facade.get("/ping") as answer:
        assert answer.status == 200


async def test_commands_and_clients_give_the_password_of_the_url(facade):
    url = str(facade._base_url).rstrip("/")
    rows = await asyncio.to_thread(
        connect(url.replace("//", "//shop:s3cret@"), "access_test").query, "SELECT tenant FROM events"
    )
    assert rows.rows == [("shop",)]
    with pytest.raises(WarehouseError, match="no such user"):
        await asyncio.to_thread(connect(url, "access_test").query, "SELECT 1")


def test_lines_for_the_file_of_settings(tmp_path):
    lines = access.table('shop "é"', "shop-reader", "s3cret-s3cret-s3cret")
    file = tmp_path / "postroad.toml"
    file.write_text("\n".join(['clickhouse_http_secret = ["0123456789 abcdef @/"]', *lines]), "utf-8")
    assert tomllib.loads(file.read_text("utf-8"))["clickhouse_readers"]["shop-reader"]["tenant"] == 'shop "é"'
    known = settings.read(file)
    readers = access.readers(known)
    assert readers["shop-reader"].tenant == 'shop "é"' and readers["shop-reader"].knows("s3cret-s3cret-s3cret")
    assert readers["default"].tenant == "" and not readers["default"].knows("")
    assert known.warehouse == "http://default:0123456789%20abcdef%20%40%2F@127.0.0.1:8123"
    for name in ("default", "", "a b", "x]\n[y", "é"):
        with pytest.raises(ValueError, match="cannot be a reader"):
            access.table("shop", name, "x")
    file.write_text("\n".join(lines), "utf-8")
    with pytest.raises(settings.SettingsError, match="clickhouse_http_secret"):
        settings.read(file)


def test_the_command_prints_what_makes_a_reader(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POSTROAD_CLICKHOUSE", raising=False)
    settings.load.cache_clear()
    made = CliRunner().invoke(cli.app, ["analytics", "reader", "shop", "--name", "shop-reader"])
    assert made.exit_code == 0
    password = made.stderr.split()[-1]
    (reader,) = tomllib.loads(made.stdout)["clickhouse_readers"].values()
    assert reader == {"tenant": "shop", "password_sha256": digest(password)} and len(password) >= 32
    for wrong in (["", "--name", "x"], ["shop", "--name", "default"], ["shop"]):
        assert CliRunner().invoke(cli.app, ["analytics", "reader", *wrong]).exit_code
    settings.load.cache_clear()


def test_statements_for_a_server(warehouse):
    if warehouse.query("SELECT version()").rows[0][0].startswith("18."):
        with pytest.raises(WarehouseError, match="rows of a tenant"):
            access.statements(warehouse, "shop", "shop-reader", "s3cret")
        return
    found = access.statements(warehouse, "o'neil", "shop-reader", "s3cret", cluster="c")
    assert found[0].startswith("CREATE USER `shop-reader` ON CLUSTER 'c' IDENTIFIED WITH sha256_hash BY")
    for table in ("events", "messages", "hours"):
        policy, grant = (
            next(i for i, text in enumerate(found) if f".`{table}`" in text and verb in text)
            for verb in ("POLICY", "GRANT")
        )
        assert found[policy].endswith("FOR SELECT USING tenant = 'o\\'neil' TO `shop-reader`") and policy < grant
    assert not any("migrations" in text or "feedback" in text for text in found)
    for text in found:  # the engine knows these statements
        (tree,) = warehouse.query("SELECT formatQuery({text:String}) AS text", {"text": text}).rows[0]
        assert tree
