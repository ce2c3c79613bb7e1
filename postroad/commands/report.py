"""postroad report: one page of what became of the mail of a day or a month, to send around or to print."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from postroad.commands.audit import since_ms


def report(
    since: Annotated[str, typer.Option(help="From then on: 24h, 30d, ISO 8601 with zone, or a date (UTC).")] = "24h",
    until: Annotated[str, typer.Option(help="Up to then, written likewise; default: now.")] = "",
    tenant: Annotated[str, typer.Option(help="Of this tenant alone.")] = "",
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("report.html"),
) -> None:
    """Write one self-contained HTML page: volumes, ends, sites, reasons, latency, reputation, conservation."""
    from rich.console import Console

    from postroad.cli import CommandError, _warehouse

    try:
        from analytics.report import gather, page
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        raise CommandError("the report's charts need matplotlib: pip install 'postroad[analysts]'") from None

    now = time.time_ns() // 1_000_000
    begin, end = since_ms(since, now), since_ms(until, now) if until else now
    try:
        with Console(stderr=True).status("asking ClickHouse") as status:
            facts = gather(
                _warehouse(), datetime.fromtimestamp(begin / 1000, UTC), datetime.fromtimestamp(end / 1000, UTC), tenant,
                note=lambda name: status.update(f"asking ClickHouse: {name}"),
            )  # fmt: skip
            status.update("drawing")
            text = page(facts)
    except ValueError as error:
        raise CommandError(str(error)) from None
    out.write_text(text, encoding="utf-8")
    print(
        f"{out}: {facts.ended:,} messages that ended from {facts.since:%Y-%m-%d %H:%M} to {facts.until:%Y-%m-%d %H:%M} UTC"
    )
