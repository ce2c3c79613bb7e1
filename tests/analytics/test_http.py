import asyncio
import json
import re

import aiohttp
import pytest
from event_rows import event, rows

from analytics import queries
from analytics.clickhouse import WarehouseError, connect
from analytics.http import MAX_BODY, read_only, serve
from analytics.migrate import migrate
from analytics.sink import Sink
from analytics.sql import without_literals

REFUSED_CALLS = re.compile(r"\b(file|url)[`\"\s]*\(", re.I)  # as analytics.http.refused_functions makes it


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
    "SELECT * FROM python('x')", "SELECT * FROM executable('x', 'CSV', 'a String')", "SELECT * FROM `merge` ('http_test', 'events')",
    "SELECT * FROM filesystem('/etc')", "SELECT 1 SETTINGS readonly = 0", "SELECT nonsense", "(((", "SELECT '", ";",
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


async def said(facade, raw, seconds=5.0, end=False):
    """What the port answers to bytes, as far as it closes the connection or `seconds` have passed."""
    host, port = facade.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(raw)
        if end:
            writer.write_eof()
        async with asyncio.timeout(seconds):
            return await reader.read(2000)
    except (TimeoutError, ConnectionError):
        return b""
    finally:
        writer.close()


HOSTILE = {
    "garbage": (b"\x16\x03\x01\x02\0\x01\0\xff\xfe\0\r\n\r\n", b"400"),
    "nul in the path": (b"GET /\0 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", b"40"),
    "huge header": (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000 + b"\r\n\r\n", b"400"),
    "many headers": (b"GET /ping HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 50_000 + b"\r\n", b"400"),
    "huge path": (b"GET /?query=" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b"400"),
    "header that is no UTF-8": (b"GET /?query=SELECT+1 HTTP/1.1\r\nHost: \xff\xfe\r\nConnection: close\r\n\r\n", b"40"),
    "another method": (b"DELETE / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", b"405"),
    "CONNECT": (b"CONNECT evil.test:25 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", b"40"),
    "two lengths": (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
    "negative length": (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", b"400"),
    "length of a terabyte": (b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 1000000000000\r\n\r\n" + b"x" * MAX_BODY * 2, b"413"),
    "escapes that are no UTF-8": (b"GET /?query=SELECT%20%27%ff%fe%27 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", b""),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
async def test_hostile_requests_are_refused_and_the_next_one_is_answered(facade, what):
    raw, status = HOSTILE[what]
    answer = await said(facade, raw)
    assert answer.startswith(b"HTTP/1."), what
    assert answer.split()[1].startswith(status) and not answer.split()[1].startswith(b"5"), answer[:200]
    assert b"Traceback" not in answer
    async with aiohttp.ClientSession(facade) as http:
        assert await (await http.get("/", params={"query": "SELECT count() FROM events"})).text() == "3\n"


async def test_clients_that_dawdle_hold_up_nobody_and_are_cut_off(facade, monkeypatch):
    monkeypatch.setattr("analytics.http.BODY_S", 0.3)
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nSELECT"
    slow = [asyncio.create_task(said(facade, raw)) for raw in [head] * 40 + [b"GET / HT"] * 40]
    await asyncio.sleep(0.1)
    async with aiohttp.ClientSession(facade) as http:
        async with asyncio.timeout(5):
            assert await (await http.get("/", params={"query": "SELECT 1"})).text() == "1\n"
    async with asyncio.timeout(5):
        answers = await asyncio.gather(*slow[:40])
    assert all(answer.startswith(b"HTTP/1.1 408") for answer in answers)
    for task in slow:
        task.cancel()


async def test_a_query_without_end_is_ended(facade, monkeypatch):
    """readonly = 1 lets nobody lift the limits of a query either."""
    async with aiohttp.ClientSession(facade) as http:
        refused = await http.post("/", data="SELECT count() FROM numbers(1000) SETTINGS max_execution_time = 0")
        assert refused.status == 400
        refused = await http.post("/", data="SELECT range(100000000) FROM numbers(1000) FORMAT Null")
        assert refused.status == 400 and "TOO_MANY_ROWS_OR_BYTES" in await refused.text()


@pytest.mark.timeout(20)  # each takes 10 ms; read anew behind every quote, minutes
@pytest.mark.parametrize("piece", ["/* ", "'\\\\", '"\\\\', "`\\`", "--", "' \"`", ";", "(", " FORMAT", "file "])
def test_statements_that_are_long_to_read_are_not(piece):
    text = "SELECT " + piece * (MAX_BODY // len(piece))
    try:
        assert read_only(text, REFUSED_CALLS)
    except ValueError as error:
        assert str(error)


@pytest.mark.parametrize(
    "sql", ["SELECT 'a; DROP TABLE events", "SELECT 1 /* ; DROP TABLE events", 'SELECT "a; DROP TABLE events']
)
def test_what_is_not_closed_ends_with_the_text(sql):
    assert "DROP" not in without_literals(read_only(sql, REFUSED_CALLS)) or sql.count('"')


def test_a_statement_is_taken_whole():
    assert (
        read_only("  SELECT 'DROP TABLE x; INTO OUTFILE file(1)' -- why ; not\n;", REFUSED_CALLS)
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


async def test_clickhouse_connect_speaks_to_it(facade):
    """What analysts' programs and Grafana's plug-in send: settings, sessions, Native and Arrow answers, bound parameters."""
    clickhouse_connect = pytest.importorskip("clickhouse_connect")
    host, port = facade.removeprefix("http://").split(":")

    def use():
        with clickhouse_connect.get_client(host=host, port=int(port), database="http_test") as client:
            assert client.query("SELECT kind, count() FROM events GROUP BY kind ORDER BY kind").result_rows == [
                ("accepted", 2), ("delivered", 1),
            ]  # fmt: skip
            bound = "SELECT count() FROM events WHERE message_id = {id:String} AND has({kinds:Array(String)}, toString(kind))"
            for id, kinds, found in (
                ("m1", ["delivered", "it's"], 1),
                ("m1' OR 1 --", ["accepted"], 0),
                ("m2", ["accepted"], 1),
            ):
                assert client.query(bound, parameters={"id": id, "kinds": kinds}).result_rows == [(found,)]
            with client.query_rows_stream("SELECT number, toString(number) FROM numbers(100000)") as rows:
                assert sum(row[0] for row in rows) == 4_999_950_000
            for write in (
                lambda: client.insert("events", [["x"]], column_names=["message_id"]),
                lambda: client.command("DROP TABLE events"),
            ):
                with pytest.raises(clickhouse_connect.driver.exceptions.DatabaseError):
                    write()
            assert client.query("SELECT count() FROM events").result_rows == [(3,)]

    await asyncio.to_thread(use)


async def test_parameters_are_bound_by_the_engine(facade):
    async with aiohttp.ClientSession(facade) as http:
        asked = {"query": "SELECT {text:String} AS a, {n:UInt8} AS b", "param_n": "7"}
        for text in ("plain", "it's", "a b", "{n:UInt8}", "ü", "'; DROP TABLE events --"):
            answer = await http.get("/", params={**asked, "param_text": text, "default_format": "JSONCompact"})
            assert json.loads(await answer.text())["data"] == [[text, 7]]
        for wrong in ({"param_n": "many", "param_text": ""}, {"param_n": "7"}):
            answer = await http.get("/", params={"query": asked["query"], **wrong})
            assert answer.status == 400 and "Code: " in await answer.text()
