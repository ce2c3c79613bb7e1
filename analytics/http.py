"""ClickHouse's HTTP interface in front of chdb, for queries only: the process that writes holds the folder, others ask it.

    curl 'http://127.0.0.1:8123/?query=SELECT+count()+FROM+events'
    curl 127.0.0.1:8123 --data 'SELECT kind, count() FROM events GROUP BY kind FORMAT PrettyCompact'

GET and POST / with `query`, `param_NAME` for each `{NAME:Type}` in it, and `default_format` (TabSeparated) or a FORMAT clause, and /ping:
what curl, clickhouse-connect and Grafana's plug-in send. Other settings are passed over. Loopback only. Without readers and a password
who may connect to this machine's loopback may read; a reader (analytics/access.py), named as ClickHouse's clients do (basic
authentication, X-ClickHouse-User and -Key, `user` and `password`), sees the rows of one tenant. What could write, or read
anything but tables, is refused: by the engine (readonly = 1), and where that leaves a gap, by `read_only` here.
"""

from __future__ import annotations

import asyncio
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

from aiohttp import BasicAuth, web

from analytics.access import DEFAULT, Reader, setting
from analytics.clickhouse import ChdbWarehouse, Columns, Warehouse, WarehouseError
from analytics.sql import Rows, bind, read_json_compact, statements, without_literals

MAX_BODY = 256 * 1024
BODY_S = 10.0  # for a body to come
CONCURRENT = 4
OPEN = {DEFAULT: Reader("", "")}
READS = frozenset({"SELECT", "WITH", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "EXISTS"})
_FORMAT = re.compile(r"\sFORMAT\s+(\w+)\s*$", re.I)
# Gets past readonly = 1 in chdb: the client's side writes it
_OUTFILE = re.compile(r"\bINTO\s+OUTFILE\b", re.I)
# Of the functions that stand for a table, some read files, run programs, or read tables past their filters
_TABLES_FROM_NOTHING = frozenset(
    {"numbers", "numbers_mt", "zeros", "generateSeries", "generate_series", "values", "format", "null"}
)
# The engine's lexer knows more quotes and comments than `without_literals`: # comments, $heredocs$, curved quotes,
# escapes in quoted names. None is needed, so none is let through to be misread.
_UNREAD = re.compile(r"[#$\\]|[^\x00-\x7f]")
# Of a reader of one tenant: PREWHERE comes before the filter of rows, and its errors quote them; EXPLAIN counts all
READS_OF_TENANT = READS & {"SELECT", "WITH", "DESCRIBE", "DESC"}
_UNFILTERED = re.compile(r"\b(EXPLAIN|PREWHERE|(?<!\.)SETTINGS)\b", re.I)
CONCURRENT_OF_TENANT = 2
_LOOPBACK = re.compile(r"(127\.\d+\.\d+\.\d+|localhost|\[::1\])(:\d+)?", re.I)
_TYPES = {"JSON": "application/json", "JSONCompact": "application/json", "CSV": "text/csv", "CSVWithNames": "text/csv"}


def refused_functions(warehouse: Warehouse) -> re.Pattern[str]:
    """Calls of functions that nobody may use here: those of the engine's own list that read something else than a table of it."""
    found = {name for (name,) in warehouse.query("SELECT name FROM system.table_functions").rows} - _TABLES_FROM_NOTHING
    # Comments are gone, and names may be quoted
    return re.compile(rf"\b({'|'.join(map(re.escape, sorted(found)))})[`\"\s]*\(", re.I)


def read_only(sql: str, refused: re.Pattern[str], reads: frozenset[str] = READS) -> str:
    """The one statement in `sql`, when it begins with one of `reads`, and calls none of `refused`. Raises ValueError that says why not."""
    found = statements(sql)
    if len(found) != 1 or statements(found[0]) != found:  # the engine, too, must see one
        raise ValueError(f"one statement is asked for, there are {len(found)}")
    bare = without_literals(found[0])
    word = (re.match(r"[\s(]*(\w*)", bare) or [""])[1].upper()
    if word not in reads:
        raise ValueError(f"this interface only reads: {', '.join(sorted(reads))}; not {word or 'this'}")
    if _OUTFILE.search(bare):
        raise ValueError("this interface writes no files")
    if call := refused.search(bare):
        raise ValueError(f"this interface reads tables, not {call[1]}()")
    if unread := _UNREAD.search(bare):
        raise ValueError(f"{unread[0]!r} is allowed only inside '...'")
    return found[0]


def _refusal(status: int, text: str) -> web.Response:
    body = (text.rstrip() + "\n").encode("utf-8", "replace")  # it may quote bytes of a header that are no text
    return web.Response(status=status, body=body, content_type="text/plain", charset="utf-8")


def _who(request: web.Request) -> tuple[str, str]:
    """Name and password, as ClickHouse's clients give them. Raises ValueError."""
    if header := request.headers.get("Authorization"):
        given = BasicAuth.decode(header, "utf-8")
        return given.login or DEFAULT, given.password
    name = request.headers.get("X-ClickHouse-User") or request.query.get("user") or DEFAULT
    return name, request.headers.get("X-ClickHouse-Key") or request.query.get("password") or ""


def _code(error: WarehouseError) -> str:
    """Number and name of an error of the engine, whose text may quote what was read."""
    found = re.search(r"Code: (\d+)\..*\(([A-Z_]+)\)", str(error), re.S)
    return f"Code: {found[1]}. ({found[2]})" if found else "the query failed"


def _unknown(text: str) -> web.Response:
    answer = _refusal(401, text)
    answer.headers.update({"WWW-Authenticate": 'Basic realm="ClickHouse"', "X-ClickHouse-Exception-Code": "516"})
    return answer


def application(warehouse: ChdbWarehouse, readers: Mapping[str, Reader] = OPEN) -> web.Application:
    """The interface in front of `warehouse`, as an aiohttp application. `readers` by name; `default` is who gives none."""
    places = asyncio.Semaphore(CONCURRENT)
    refused: re.Pattern[str] | None = None
    own_places = {
        name: asyncio.Semaphore(CONCURRENT_OF_TENANT if one.tenant else CONCURRENT) for name, one in readers.items()
    }

    async def check(sql: str, reader: Reader) -> str:
        """The statement that may be run. Raises ValueError, WarehouseError."""
        nonlocal refused
        if refused is None:
            refused = await asyncio.to_thread(refused_functions, warehouse)
        statement = read_only(sql, refused, READS_OF_TENANT if reader.tenant else READS)
        if reader.tenant and (word := _UNFILTERED.search(without_literals(statement))):
            raise ValueError(f"{word[0].upper()} is not for the readers of one tenant")
        return statement

    async def ping(request: web.Request) -> web.Response:
        return web.Response(text="Ok.\n")

    async def query(request: web.Request) -> web.Response:
        # A page in a browser of this machine could reach us through a name of its own (DNS rebinding).
        if not _LOOPBACK.fullmatch(request.host):
            return _refusal(403, f"this interface answers on loopback only, not as {request.host}")
        try:
            name, password = _who(request)
        except ValueError as error:
            return _unknown(f"this is no basic authentication: {error}")
        reader = readers.get(name)
        if reader is None or not reader.knows(password):
            return _unknown(f"{name}: no such user, or not the password")
        try:
            async with asyncio.timeout(BODY_S):
                body = await request.read()
        except TimeoutError:
            return _refusal(408, f"the query did not come within {BODY_S:g} s")
        try:
            sql = "\n".join(filter(None, (request.query.get("query", ""), body.decode())))
            if not sql.strip():
                return web.Response(text="Ok.\n")
            statement = await check(sql, reader)
        except UnicodeDecodeError:
            return _refusal(400, "the query is not UTF-8")
        except ValueError as error:
            return _refusal(403, f"refused: {error}")
        except WarehouseError as error:
            return _refusal(400, str(error))
        given = {
            name.removeprefix("param_"): value for name, value in request.query.items() if name.startswith("param_")
        }
        form = request.query.get("default_format", "TabSeparated")
        if named := _FORMAT.search(statement):
            form, statement = named[1], statement[: named.start()]
        if not re.fullmatch(r"\w+", form):
            return _refusal(400, f"{form!r} is not the name of a format")
        try:
            async with own_places[name], places:
                # Asked each time: a table may be new
                own = await asyncio.to_thread(setting, warehouse, reader.tenant)
                answer = await asyncio.to_thread(warehouse.raw, statement, form, given, own)
        except WarehouseError as error:
            return _refusal(400, _code(error) if reader.tenant else str(error))
        headers = {"X-ClickHouse-Format": form, "Content-Type": _TYPES.get(form, "text/plain") + "; charset=UTF-8"}
        return web.Response(body=answer, headers=headers)

    app = web.Application(client_max_size=MAX_BODY)
    app.router.add_get("/ping", ping)
    app.router.add_get("/", query)
    app.router.add_post("/", query)
    return app


async def serve(warehouse: ChdbWarehouse, port: int = 8123, readers: Mapping[str, Reader] = OPEN) -> web.AppRunner:
    """Answer on 127.0.0.1:`port` (0: a free one, in `runner.addresses`) until `await runner.cleanup()`. Raises OSError when the port is taken."""
    runner = web.AppRunner(application(warehouse, readers), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner


class HttpWarehouse:
    """A `Warehouse` that only reads, through this interface or a server's own; `connect("http://127.0.0.1:8123")`."""

    def __init__(self, url: str, database: str) -> None:
        parts = urllib.parse.urlsplit(url)
        self.url, self.database = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", database
        self._headers = {}
        if parts.username:
            user, password = (urllib.parse.unquote(part or "") for part in (parts.username, parts.password))
            self._headers = {"X-ClickHouse-User": user, "X-ClickHouse-Key": password}

    def query(self, sql: str, params: Mapping[str, Any] | None = None) -> Rows:
        arguments = urllib.parse.urlencode({"database": self.database, "default_format": "JSONCompact"})
        request = urllib.request.Request(
            f"{self.url}/?{arguments}", bind(sql, params).encode(), self._headers, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return read_json_compact(answer.read())
        except urllib.error.HTTPError as error:
            raise WarehouseError(f"{self.url}: {error.read(4000).decode(errors='replace').strip()}") from error
        except OSError as error:
            raise WarehouseError(f"{self.url} cannot be reached ({error}): is `postroad up` running?") from error

    def command(self, sql: str, params: Mapping[str, Any] | None = None) -> None:
        raise WarehouseError(f"{self.url} is for queries only")

    def insert(self, table: str, columns: Columns, query_id: str | None = None) -> None:
        raise WarehouseError(f"{self.url} is for queries only")

    def quiesce(self, prefix: str, timeout_s: float = 60.0) -> None:
        raise WarehouseError(f"{self.url} is for queries only")

    def create_database(self) -> None:
        raise WarehouseError(f"{self.url} is for queries only")

    def close(self) -> None:
        """Nothing is held open."""
