"""`postroad audit`: does every accepted message have one end, or is it on its way? Exit status 1 when one is not."""

from __future__ import annotations

import asyncio
import json
import re
import time
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import typer

from postroad import ledger, settings
from postroad.commands.printing import safe
from postroad.ledger import Finding, Report

DAY_MS = 86_400_000
END_MS = 253_402_300_800_000  # the year 10000, where datetime ends
SHOWN = 50  # findings of a kind
_UNITS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": DAY_MS}
_ADVICE = {
    "orphans": "no step for longer than their state allows: `postroad timeline ID` shows the last one; is the stage behind it running "
    "(lag of its group), is the message in `postroad dead-letters list`?",
    "two ends": "`postroad timeline ID` shows both; classify alone writes ends: look for a second installation on the same topics",
    "attempts and steps of what was never accepted": "`postroad timeline ID` shows them; was a topic made anew, or restored from "
    "another installation?",
}


def since_ms(text: str, now_ms: int) -> int:
    """The time that `--since` names: 90s, 30m, 2h, 7d before now; ISO 8601 with a zone; or a date (UTC). Raises BadParameter."""
    if found := re.fullmatch(r"(\d{1,6})([smhd])", text):
        return max(0, now_ms - int(found[1]) * _UNITS[found[2]])
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no time: write 2h, 7d, 2026-01-31 or 2026-01-31T10:00:00Z") from None
    if moment.tzinfo is None:
        if len(text) != len("2026-01-31"):
            raise typer.BadParameter(f"{text!r} has no zone: write {text}Z for UTC")
        moment = moment.replace(tzinfo=UTC)
    return max(0, round(moment.timestamp() * 1000))


def audit(
    since: Annotated[
        str, typer.Option(help="Accepted from then on: 2h, 7d, ISO 8601 with zone, or a date (UTC).")
    ] = "1d",
    tenant: Annotated[str, typer.Option(help="Of this tenant alone.")] = "",
    source: Annotated[
        Literal["both", "clickhouse", "topics"], typer.Option(help="Whom to ask; both are compared.")
    ] = "both",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Count: accepted = ended + in flight. Exit status 1 when a message was lost, ended twice, or was never accepted."""
    now = time.time_ns() // 1_000_000
    reports = _ask(source, since_ms(since, now), tenant, now)
    if len(reports) == 2:
        _explain(*reports)
    differences = ledger.differences(*reports) if len(reports) == 2 else []
    right = all(report.ok for report in reports) and not differences
    if as_json:
        print(
            json.dumps({"ok": right, "differences": differences, "sources": [_as_json(report) for report in reports]})
        )
    else:
        for report in reports:
            _show(report)
        for line in differences:
            print(safe(f"the sources differ: {line}"))
        if differences:
            print(
                "  is events_sink running, and its lag small? What both have for longer than the transit time must be equal."
            )
        print("in order" if right else "NOT in order")
    if not right:
        raise typer.Exit(1)


def _ask(source: str, since: int, tenant: str, now: int) -> list[Report]:
    from analytics.audit import from_clickhouse, from_topics
    from analytics.clickhouse import connect
    from postroad.cli import CommandError
    from topics.catalogue import EVENTS
    from topics.installation import Installation

    known = settings.load()
    if source == "both":  # ClickHouse remembers more
        since = max(since, now - EVENTS.retention_ms + DAY_MS)
    reports = []
    if source != "clickhouse":
        installation = Installation(**known.installation())
        reports.append(asyncio.run(from_topics(installation, since, tenant, now, known.allowed())))
    if source != "topics":
        if not known.warehouse:
            raise CommandError("no ClickHouse to ask: set POSTROAD_CLICKHOUSE, or say --source topics")
        reports.append(from_clickhouse(connect(known.warehouse), since, tenant, now, known.allowed()))
    return reports


def _explain(topics: Report, clickhouse: Report) -> None:
    """ClickHouse knows nothing of dead letters."""
    letters = {found.id: found.letter for found in topics.explained}
    waiting = [found._replace(letter=letters[found.id]) for found in clickhouse.orphans if found.id in letters]
    clickhouse.explained += waiting
    clickhouse.orphans = [found for found in clickhouse.orphans if found.id not in letters]


def _as_json(report: Report) -> dict[str, Any]:
    lists = {name: [found._asdict() for found in each] for name, each in _lists(report).items()}
    counts = [
        {"tenant": tenant, "stream": stream, **count._asdict()} for (tenant, stream), count in sorted(report.counts.items())
    ]  # fmt: skip
    return {"source": report.source, "counts": counts, "unreadable": report.unreadable, **lists}


def _lists(report: Report) -> dict[str, list[Finding]]:
    return {
        "orphans": report.orphans,
        "two_ends": report.two_ends,
        "strays": report.strays,
        "explained": report.explained,
    }


def _show(report: Report) -> None:
    from postroad.cli import _show as show

    rows: list[tuple[Any, ...]] = [("(all)", "", *report.total)]
    rows += [(*group, *count) for group, count in sorted(report.counts.items())]
    print(f"From {report.source}: accepted = ended + in flight")
    show(["tenant", "stream", "accepted", "ended", "in flight"], rows)
    if report.unreadable:
        print(f"{report.unreadable:,} records do not decode; what reads them makes dead letters of them")
    for (title, advice), found in zip(_ADVICE.items(), (report.orphans, report.two_ends, report.strays), strict=True):
        if found:
            _list(title, advice, found)
    if report.explained:
        _list(
            "waiting in a dead letter",
            "`postroad dead-letters show LETTER`, then replay or discard it",
            report.explained,
        )
    print()


def _list(title: str, advice: str, found: list[Finding]) -> None:
    from postroad.cli import _show as show

    print(f"{len(found):,} {title}: {advice}")
    rows = [(one.id, one.tenant, one.stream, one.state, _time(one.since_ms), one.letter) for one in found[:SHOWN]]
    show(["message", "tenant", "stream", "state", "since", "letter"], rows)
    if len(found) > SHOWN:
        print(f"... and {len(found) - SHOWN:,} more: --json lists them all")


def _time(ms: int) -> str:
    """For people; a record may say anything."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(" ", "milliseconds") if ms < END_MS else f"{ms} ms"
