"""postroad queue: the sites that mail waits for, how long, and what they said last."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from postroad.commands.printing import cut

DAYS = 14  # longer than mail is tried


def queue(
    site: Annotated[str, typer.Option(help="This site alone.")] = "",
    tenant: Annotated[str, typer.Option(help="Of this tenant alone.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show by site what waits or is on its way there: how many, the oldest, when the first is tried, the last reply."""
    from analytics import queries
    from postroad.cli import CommandError, _show, _warehouse

    now = datetime.now(UTC)
    try:
        found = queries.run(_warehouse(), "queue", site=site, tenant=tenant, since=now - timedelta(days=DAYS)).dicts()
    except ValueError as error:
        raise CommandError(str(error)) from None
    if as_json:
        for row in found:
            print(
                json.dumps(
                    {name: _moment(value) if isinstance(value, datetime) else value for name, value in row.items()}
                )
            )
        return
    rows = [
        (row["site"] or "(not known yet)", row["waiting"], row["deferred"], _moment(row["oldest"]), _moment(row["next"]) or "-",
         row["reason"], cut(f"{row['reply_code'] or ''} {row['reply']}".strip()))
        for row in found
    ]  # fmt: skip
    _show(["site", "waiting", "deferred", "oldest", "next", "why", "last reply"], rows)


def _moment(at: Any) -> str:
    """ISO 8601 in UTC, empty for none."""
    moment = at if at.tzinfo else at.replace(tzinfo=UTC)  # 18.16's driver gives UTC without saying so
    return moment.isoformat(timespec="seconds") if moment.timestamp() else ""
