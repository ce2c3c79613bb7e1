"""postroad query: the named queries of analytics/queries, answered in the form that is asked for."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, cast

import typer

from postroad.commands.audit import since_ms

Form: TypeAlias = Literal["table", "csv", "json", "parquet"]
SPAN = "without --since the last seven days are looked at"


def query(
    name: Annotated[str, typer.Argument(help="Its name; without one, all are listed.")] = "",
    tenant: Annotated[str, typer.Option(help="Of this tenant alone.")] = "",
    since: Annotated[str, typer.Option(help="2h, 7d, ISO 8601 with zone, or a date (UTC); default: 7d.")] = "",
    until: Annotated[str, typer.Option(help="The same; default: now.")] = "",
    param: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Any other parameter; may be repeated.")
    ] = None,
    form: Annotated[Form, typer.Option("--format", help="json: one object a line.")] = "table",
    out: Annotated[Path | None, typer.Option(help="Write to this file and not to the terminal.")] = None,
    listing: Annotated[bool, typer.Option("--list", help="Names of all, and what they answer.")] = False,
    describe: Annotated[
        bool, typer.Option("--describe", help="What it answers, its parameters and columns, an example.")
    ] = False,
) -> None:
    """Answer one of the named queries of analytics/queries."""
    from analytics import formats, queries
    from analytics.clickhouse import WarehouseError
    from postroad.cli import CommandError, _show, _warehouse

    if listing or not name:
        for known in queries.names():
            print(f"{known}: {queries.summary(known)}")
        return
    try:
        if describe:
            print(queries.describe(name))
            return
        asked = queries.read_params(name, param or [])
        asked |= {
            key: value for key, value in (("tenant", tenant), ("since", _time(since)), ("until", _time(until))) if value
        }
        found = queries.run(_warehouse(), name, **asked)
        if out and form == "table" and out.suffix in (".csv", ".json", ".parquet"):
            form = cast(Form, out.suffix[1:])
        if not found.rows:
            print("no rows" + (f"; {SPAN}" if "since" not in asked else ""), file=sys.stderr)
        if form == "table":
            if out:
                raise CommandError("a table is for the terminal: --out goes with --format csv, json or parquet")
            _show(found.columns, found.rows)
        elif out:
            with out.open("wb") as file:
                formats.write(found, form, file)
        elif form == "parquet" and sys.stdout.isatty():
            raise CommandError("Parquet is not for a terminal: name a file with --out")
        else:
            formats.write(found, form, sys.stdout.buffer)
    except ValueError as error:
        hint = ": --param NAME=VALUE gives it" if "is missing" in str(error) else ""
        raise CommandError(f"{error}{hint}") from None
    except WarehouseError as error:
        if "UNKNOWN_DATABASE" not in str(error):
            raise
        raise CommandError(
            "there is no data: check POSTROAD_CLICKHOUSE, or make some with `postroad demo-data`"
        ) from error


def _time(text: str) -> str:
    """2h and 7d as the time that they name; all else as it is."""
    if not text[-1:].isalpha() or not text[:-1].isdecimal():
        return text
    return datetime.fromtimestamp(since_ms(text, time.time_ns() // 1_000_000) / 1000, UTC).isoformat()
