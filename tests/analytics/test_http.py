import asyncio
import json

import aiohttp
import pytest
from event_rows import event, rows

from analytics import queries
from analytics.clickhouse import WarehouseError, connect
from analytics.http import MAX_BODY, read_only, serve
from analytics.migrate import migrate
from analytics.sink import Sink


@pytest.fixture
async def facade(chdb_url):
    warehouse = connect(chdb_url, "http_test")
    await asyncio.to_thread(migrate, warehouse)
    warehouse.command("TRUNCATE TABLE events")
    sink = Sink(warehouse, "g")
    sink.recover({0: 0})
    sink.write(rows([event("m1"), event("m2"), event("m1", "delivered", 5, attempt=1)]))
    runner = await serve(warehouse, 0)
    host, port = runner.addresses[0]
    yield f"http://{host}:{port}"
    await runner.cleanup()
    warehouse.close()


async def test_queries_by_get_and_post_in_any_format(facade):
    async with aiohttp.ClientSession(facade) as http:
        assert await (await http.get("/ping")).text() == "Ok.\n"
        assert await (await http.get("/", params={"query": "SELECT count() FROM events"})).text() == "3\n"
        answer = await http.post(
            "/", data="SELECT kind, count() AS n FROM events GROUP BY kind ORDER BY kind FORMAT JSONCompact"
        )
        assert answer.headers["X-ClickHouse-Format"] == "JSONCompact"
        assert json.loads(await answer.text())["data"] == [["accepted", 2], ["delivered", 1]]
        split = await http.post("/", params={"query": "SELECT 1 +", "default_format": "CSV"}, data=b"1; -- two")
        assert await split.text() == "2\n"


REFUSED = [
    "INSERT INTO events (message_id) VALUES ('x')", "DROP TABLE events", "TRUNCATE TABLE events", "ALTER TABLE events DELETE WHERE 1", "SET readonly = 0",
    "SELECT 1; DROP TABLE events", "/* SELECT */ DROP TABLE events", "SELECT 1 INTO OUTFILE '/tmp/postroad-outfile'", "SELECT 1 INTO/**/OUTFILE 'x'",
    "SELECT file('/etc/hostname')", "SELECT `file`('/etc/hostname')", "SELECT \"file\" /* */ ('/etc/hostname')", "SELECT file\n('/etc/hostname')",
    "SELECT * FROM file('/etc/hostname', 'LineAsString')", "SELECT \"\\x66ile\"('/etc/hostname')", "SELECT 1 # '\n, file('/etc/hostname') -- '",
    "SELECT $a$'$a$, file('/etc/hostname'), '", "SELECT ‘'’, file('/etc/hostname'), ''", "WITH x AS (SELECT 1) INSERT INTO events (message_id) SELECT 'x'",
    "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')", "CREATE TABLE t (x UInt8) ENGINE = Memory", "SYSTEM SHUTDOWN", "EXPLAIN SELECT file('/etc/hostname')",
    "SELECT 1 SETTINGS readonly = 0", "SELECT nonsense", "(((", "SELECT '", ";",
]  # fmt: skip


@pytest.mark.parametrize("sql", REFUSED)
async def test_what_writes_or_reads_files_is_refused(facade, sql):
    async with aiohttp.ClientSession(facade) as http:
        for answer in (await http.post("/", data=sql.encode()), await http.get("/", params={"query": sql})):
            assert 400 <= answer.status < 500
            assert await answer.text()
        assert await (await http.post("/", data="SELECT count() FROM events")).text() == "3\n"


async def test_other_ways_in_are_closed(facade):
    async with aiohttp.ClientSession(facade) as http:
        assert (await http.post("/", data=b"SELECT '" + b"x" * MAX_BODY + b"'")).status == 413
        assert (await http.post("/", data=b"\xff\xfe")).status == 400
        assert (await http.get("/", params={"query": "SELECT 1", "default_format": "CSV SETTINGS x"})).status == 400
        assert (await http.get("/", params={"query": "SELECT 1"}, headers={"Host": "evil.example:80"})).status == 403
        assert (await http.put("/", data="SELECT 1")).status == 405


def test_a_statement_is_taken_whole():
    assert (
        read_only("  SELECT 'DROP TABLE x; INTO OUTFILE file(1)' -- why ; not\n;")
        == "SELECT 'DROP TABLE x; INTO OUTFILE file(1)'"
    )


async def test_another_process_reads_through_it(facade):
    reader = connect(facade, "http_test")
    (total, _) = (await asyncio.to_thread(queries.run, reader, "conservation", since="2026-01-01T00:00:00Z")).dicts()
    assert (total["accepted"], total["delivered"], total["in_flight"]) == (2, 1, 1)
    (first, *_) = (await asyncio.to_thread(queries.run, reader, "timeline", message="m1")).dicts()
    assert first["at"].isoformat() == "2026-03-01T12:00:00+00:00"
    with pytest.raises(WarehouseError, match="nonsense"):
        await asyncio.to_thread(reader.query, "SELECT nonsense")
    with pytest.raises(WarehouseError, match="queries only"):
        reader.command("DROP TABLE events")


def test_nobody_there():
    with pytest.raises(WarehouseError, match="postroad up"):
        connect("http://127.0.0.1:1").query("SELECT 1")


@pytest.mark.parametrize("url", ["", "chdb://folder", "postgres://x/y", "chdb:///"])
def test_urls_that_name_no_warehouse(url):
    with pytest.raises(ValueError):
        connect(url)
