"""postroad demo-data: a month of events with incidents in it, for a newcomer to find."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer


def demo_data(
    days: Annotated[int, typer.Option(min=1, max=366)] = 30,
    messages: Annotated[int, typer.Option(help="About six times as many events.")] = 5_000_000,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    end: Annotated[str, typer.Option(help="Where it ends: ISO 8601 with zone, or a date (UTC); default: now.")] = "",
    into_used: Annotated[bool, typer.Option("--into-used", help="Though the database holds events of mail.")] = False,
) -> None:
    """Fill ClickHouse with a month of invented mail, and tell what is wrong in it."""
    from rich.progress import Progress

    from analytics.clickhouse import connect
    from analytics.demo import UsedDatabase, load
    from analytics.migrate import migrate
    from analytics.queries import moment
    from postroad import settings
    from postroad.cli import CommandError

    if not (url := settings.load().clickhouse):
        raise CommandError(
            "no ClickHouse to write to: set POSTROAD_CLICKHOUSE to a server (clickhouse://host/database), or to a folder of "
            "its own for chdb (chdb:///path)"
        )
    try:
        until = moment(end) if end else datetime.now(UTC)
        warehouse = connect(url)
        migrate(warehouse)
        with Progress(transient=True) as progress:
            task = progress.add_task("hours", total=1.0)
            made = load(
                warehouse, days=days, messages=messages, seed=seed, end=until, into_used=into_used,
                note=lambda share: progress.update(task, completed=share),
            )  # fmt: skip
    except (UsedDatabase, ValueError) as error:
        raise CommandError(str(error)) from None
    print(f"{made.messages:,} messages, {made.events:,} events, up to {made.month.end:%Y-%m-%d %H:%M} UTC. Find out:")
    for incident in made.month.incidents:
        print(f"  {incident.begins:%Y-%m-%d %H:%M} to {incident.ends:%Y-%m-%d %H:%M}: {incident.says}")
