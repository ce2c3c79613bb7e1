"""postroad query: the named queries of analytics/queries, answered in the form that is asked for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer


def query(
    name: Annotated[str, typer.Argument(help="Its name; without one, all are listed.")] = "",
    tenant: Annotated[str, typer.Option(help="Of this tenant alone.")] = "",
    since: Annotated[str, typer.Option(help="ISO 8601 with zone, or a date (UTC); default: seven days ago.")] = "",
    until: Annotated[str, typer.Option(help="ISO 8601 with zone, or a date (UTC); default: now.")] = "",
    param: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Any other parameter; may be repeated.")
    ] = None,
    form: Annotated[
        Literal["table", "csv", "json", "parquet"], typer.Option("--format", help="json: one object a line.")
    ] = "table",
    out: Annotated[Path | None, typer.Option(help="Write to this file and not to the terminal.")] = None,
    listing: Annotated[bool, typer.Option("--list", help="Names of all, and what they answer.")] = False,
    describe: Annotated[
        bool, typer.Option("--describe", help="What it answers, its parameters and columns, an example.")
    ] = False,
) -> None:
    """Answer one of the named queries of analytics/queries."""
    from analytics import formats, queries
    from postroad.cli import CommandError, _show, _warehouse

    if listing or not name:
        for known in queries.names():
            print(f"{known}: {queries.describe(known).splitlines()[0]}")
        return
    try:
        if describe:
            print(queries.describe(name))
            return
        asked = queries.read_params(name, param or [])
        asked |= {key: value for key, value in (("tenant", tenant), ("since", since), ("until", until)) if value}
        found = queries.run(_warehouse(), name, **asked)
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
        raise CommandError(str(error)) from None
