"""postroad warmup: how far the sources that warm up are, by site, and which of them rest."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from postroad import settings
from postroad.shaping.policy import load
from postroad.shaping.warmup import EPOCH, Plan

COMPLAINTS_DAYS = 7  # mail of so many days is asked for complaints, which come days after it
# Every attempt counts, as in send; one that was told twice, once
WARMUP = """
SELECT source, site,
    uniqExactIf((message_id, round, attempt), ts >= {today:DateTime} AND shaping != '' AND kind IN ('delivered', 'bounced', 'deferred', 'expired')) AS used,
    uniqExactIf(message_id, ts >= {today:DateTime} AND shaping != '' AND kind = 'bounced' AND has({hard:Array(String)}, reason)) AS bounced,
    uniqExactIf(message_id, kind = 'delivered') AS sent,
    uniqExactIf(message_id, toString(kind) = 'complained') AS complained
FROM events WHERE ts >= {since:DateTime} AND has({sources:Array(String)}, source) AND site != ''
GROUP BY source, site ORDER BY source, used DESC, site
"""


def warmup(
    source: Annotated[str, typer.Option(help="This egress source alone.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show by source and site where warm-up is: the day of the plan, what it allows, what was sent today (UTC), and what rests, and why."""
    from postroad.bounces.reasons import REASONS
    from postroad.cli import CommandError, _show, _warehouse

    plans = load(settings.load().shaping, settings.load().limits()).warming
    if source and source not in plans:
        raise CommandError(f'no source {source!r} warms up: give it a plan, [warmup."{source}"] in shaping.toml')
    plans = {name: plan for name, plan in plans.items() if source in ("", name)}
    if not plans:
        raise CommandError("no source warms up: no [warmup.NAME] in shaping.toml (setting `shaping`)")
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    asked = {
        "today": today, "since": today - timedelta(days=COMPLAINTS_DAYS), "sources": sorted(plans),
        "hard": [name for name, reason in REASONS.items() if reason.bounce_class == "hard"],
    }  # fmt: skip
    found = progress(plans, _warehouse().query(WARMUP, asked).dicts(), (today.date() - EPOCH).days)
    if as_json:
        for row in found:
            print(json.dumps(row))
        return
    rows = [
        (row["source"], row["site"] or "-", f"{row['day']} of {row['days']}", _count(row["allowance"]), _count(row["used"]),
         row["bounced"], f"{row['complained']} of {row['sent']:,}", row["state"])
        for row in found
    ]  # fmt: skip
    _show(
        ["source", "site", "day", "allowed", "used", "bounced", f"complained in {COMPLAINTS_DAYS} days", "state"], rows
    )


def progress(plans: dict[str, Plan], counts: list[dict[str, Any]], day: int) -> list[dict[str, Any]]:
    """A row for each source and site: its plan on a UTC day (since 1970) beside what `WARMUP` has counted. A source that has sent nothing
    has one row, without a site. `state`: "warm", "not begun", "paused: why", "full" until midnight, or empty."""
    by_source: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in counts:
        by_source[row["source"]].append(row)
    nothing: dict[str, Any] = {"site": "", "used": 0, "bounced": 0, "sent": 0, "complained": 0}
    found = []
    for source, plan in sorted(plans.items()):
        rows = by_source.get(source, [nothing])
        sent, complained = (sum(row[key] for row in rows) for key in ("sent", "complained"))
        why_all = plan.paused(sent, 0, complained)  # complaints are about a source, not a site
        for row in rows:
            at = plan.progress(day, row["used"])
            why = plan.paused(row["used"], row["bounced"], 0) or why_all
            state = "warm" if at.allowance is None else "not begun" if at.day == 0 else ""
            if not state:
                state = (
                    f"paused: {why}" if why else "full" if at.allowance is not None and at.used >= at.allowance else ""
                )
            found.append(
                {"source": source, "day": at.day, "days": at.days, "allowance": at.allowance, "state": state}
                | {key: row[key] for key in nothing}
            )
    return found


def _count(number: int | None) -> str:
    return "all" if number is None else f"{number:,}"
