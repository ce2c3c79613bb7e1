"""postroad analytics: the tables in ClickHouse made, compared with the topic, put right."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postroad import settings
from postroad.commands.audit import since_ms
from postroad.commands.printing import safe

if TYPE_CHECKING:
    from analytics.clickhouse import Warehouse
    from analytics.verify import Report

app = typer.Typer(no_args_is_help=True, help="Tables in ClickHouse: migrate, compare with the topic, repair, keep.")
DAY = typer.Option(metavar="YYYY-MM-DD", help="A day of events, UTC.")
JSON = typer.Option("--json", help="One JSON object.")


@app.command()
def migrate(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the statements, change nothing.")] = False,
    wait_s: Annotated[float, typer.Option("--wait", help="For another migrator, seconds.")] = 60.0,
) -> None:
    """Bring the database to the newest layout: what is missing is applied, once."""
    from analytics import migrate as migrations

    cluster = settings.load().clickhouse_cluster
    with _engine() as warehouse:
        if dry_run:
            steps = migrations.plan(warehouse, note=print, cluster=cluster)
            for step in steps:
                print(f"-- {step.name}")
                print("".join(f"{statement};\n" for statement in step.statements))
            print(f"-- {len(steps)} to apply; nothing was changed" if steps else "-- nothing to apply")
            return
        applied = migrations.migrate(warehouse, note=print, cluster=cluster, wait_s=wait_s)
    print(f"applied: {', '.join(applied) or 'nothing, all were there'}")


@app.command()
def verify(
    since: Annotated[
        str, typer.Option(help="Of the topic from then on: 2h, 7d, ISO 8601 with zone, or a date; default: all.")
    ] = "",
    day: Annotated[str, DAY] = "",
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Compare every row with mail.events, up to what the sink has committed, and hours and messages with the rows. Exit status 1 when
    anything differs."""
    with _engine(reads=True) as warehouse:
        report = _compare(warehouse, since_ms(since, time.time_ns() // 1_000_000) if since else 0, _day(day))
    _tell(report, as_json)
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def repair(day: Annotated[str, DAY], as_json: Annotated[bool, JSON] = False) -> None:
    """Make a day of events equal to the topic, where the topic still has it, and hours and messages to the events."""
    which = _day(day)
    if which is None:
        raise typer.BadParameter("say which day: --day 2026-01-31")
    with _engine() as warehouse:
        found = _compare(warehouse, 0, which, repair=True)
        after = _compare(warehouse, 0, which)
    if not as_json:
        _tell(found, False)
        print("after the repair:")
    _tell(after, as_json)
    if not after.ok:
        raise typer.Exit(1)


@app.command()
def backfill(
    since: Annotated[str, DAY] = "",
    until: Annotated[str, typer.Option(metavar="YYYY-MM-DD", help="The day after the last.")] = "",
) -> None:
    """Make hours and messages anew from events, day by day: after a migration that adds one, or another load of events. May be
    stopped and run again, beside running sinks."""
    from analytics.retention import days_of
    from analytics.rollups import rebuild

    first, end = _day(since) or date.min, _day(until) or date.max
    cluster = settings.load().clickhouse_cluster
    with _engine() as warehouse:
        days = [day for day in days_of(warehouse, cluster) if first <= day < end]
        with bar("days from events") as advance:
            for number, day in enumerate(days):
                advance(number, len(days))
                rebuild(warehouse, day, cluster)
    print(
        f"made anew from events: {f'{len(days)} days, {days[0]} to {days[-1]}' if days else 'nothing, there is no such day'}"
    )


@app.command()
def retain(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say which days, drop none.")] = False,
) -> None:
    """Drop the days of events and messages that are older than `events_days`; hours stay."""
    from analytics import retention

    known = settings.load()
    with _engine() as warehouse:
        days = retention.retain(warehouse, known.events_days, known.clickhouse_cluster, dry_run=dry_run)
    verb = "to drop" if dry_run else "dropped"
    print(f"{verb}: {', '.join(map(str, days)) or f'nothing, no day is older than {known.events_days} days'}")


@app.command()
def reader(
    tenant: Annotated[str, typer.Argument(help="Whose rows, and no others.")],
    name: Annotated[str, typer.Option(help="Of the user.")],
) -> None:
    """Print what makes a user who can only read, and only the rows of one tenant: lines of postroad.toml for the local ClickHouse, or
    statements for the administrator of a server. Nothing is changed; the password is shown once."""
    from analytics import access
    from postroad.cli import CommandError

    known = settings.load()
    password = secrets.token_urlsafe(24)
    try:
        if known.clickhouse.startswith("clickhouse"):
            with _engine() as warehouse:
                made = access.statements(warehouse, tenant, name, password, known.clickhouse_cluster)
            lines = [f"{text};" for text in made]
        else:
            lines = access.table(tenant, name, password)
    except ValueError as error:
        raise CommandError(str(error)) from None
    print("\n".join(lines))
    print(f"the password of {name}: {password}", file=sys.stderr)


@contextlib.contextmanager
def _engine(reads: bool = False) -> Iterator[Warehouse]:
    """The ClickHouse of this installation. A local one (chdb) answers queries of others while its stack runs; for all else its
    folder is opened, which a running stack does not allow."""
    from analytics.clickhouse import WarehouseError, connect

    known = settings.load()
    folder = str(known.data_dir.absolute() / "chdb")
    warehouse = connect((known.warehouse if reads else known.clickhouse) or folder)
    with contextlib.closing(warehouse):
        try:
            yield warehouse
        except WarehouseError as error:
            if known.clickhouse or reads or "one process" not in str(error):
                raise
            raise WarehouseError(
                f"{error}; stop `postroad up` first: a local ClickHouse is changed by one process"
            ) from error


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no day: write 2026-01-31") from None


def _compare(warehouse: Warehouse, since: int, day: date | None, *, repair: bool = False) -> Report:
    from agents.events_sink import NAME
    from analytics.verify import compare
    from topics.catalogue import DAY_MS
    from topics.installation import Installation
    from topics.offsets import committed

    known = settings.load()
    installation = Installation(**known.installation())
    today = time.time_ns() // 1_000_000 // DAY_MS
    since = max(since, (today - known.events_days + 1) * DAY_MS)  # what is older, `retain` may have dropped

    async def run(progress: Callable[[int, int], object]) -> Report:
        return await compare(
            installation, warehouse, await committed(installation, NAME), since,
            day=day, repair=repair, cluster=known.clickhouse_cluster, masking=known.masking(), progress=progress,
        )  # fmt: skip

    with bar("comparing with mail.events") as advance:
        return asyncio.run(run(advance))


@contextlib.contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, nothing where that is no terminal: `advance(done, total)`."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)

        def advance(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield advance


def _tell(report: Report, as_json: bool) -> None:
    if as_json:
        told: dict[str, Any] = {
            "ok": report.ok, "spans": {str(p): list(span) for p, span in report.spans.items()}, "records": report.records,
            "rows": report.rows, "unstorable": report.unstorable, "counts": dict(report.counts), "behind": report.behind,
            "differences": [each._asdict() for each in report.differences],
        }  # fmt: skip
        print(json.dumps(told))
        return
    for partition, (first, end) in sorted(report.spans.items()):
        print(f"partition {partition}: offsets {first:,} to {end - 1:,}")
    dead = f", {report.unstorable:,} cannot be stored (dead letters)" if report.unstorable else ""
    print(f"{report.records:,} records in the topic{dead}; {report.rows:,} rows in the table")
    for each in report.differences:
        place = f"partition {each.place[0]}, offset {each.place[1]}  " if each.place else ""
        print(safe(f"  {each.kind}: {place}{each.detail}".rstrip()))
    for kind, count in report.counts.items():
        print(f"{count:,} {kind}{' (put right)' if report.repaired else ''}")
    if report.behind:
        print(f"{report.behind:,} cells are of hours that rows came to lately, and not rolled up yet")
    if report.ok:
        print("equal")
    elif not report.repaired:
        days = ", ".join(map(str, sorted(report.days)[:10]))
        print(f"NOT equal: `postroad analytics repair --day DAY` puts a day right; days compared: {days}")
