"""postroad explain: every decision about one message, in words, with the rule behind it."""

from __future__ import annotations

from datetime import UTC
from typing import Annotated, Any

import typer

from postroad import ids
from postroad.commands.printing import safe, time_of

WORDS = {
    "accepted": "was accepted", "validated": "was found to be sendable", "scored": "was scored", "held": "was held for an operator",
    "released": "was let go", "cleared": "may go to its recipient", "routed": "was routed", "scheduled": "was made to wait",
    "deferred": "was tried, and is to be tried again", "delivered": "was delivered", "bounced": "bounced", "dropped": "was dropped",
    "rejected": "was rejected", "expired": "expired", "cancelled": "was cancelled", "reported": "was reported on afterwards",
}  # fmt: skip


def explain(message: Annotated[str, typer.Argument(help="Its id, as `postroad timeline` takes it.")]) -> None:
    """Tell every decision about a message, with its rule, in the order of time. Exit status 1 where nobody knows it."""
    from analytics import queries
    from postroad.cli import CommandError, _warehouse

    try:
        ids.accepted_at(message)
    except ValueError as error:
        raise CommandError(str(error)) from None
    found = queries.run(_warehouse(), "timeline", message=message).dicts()
    if not found:
        raise CommandError(f"no events of message {message}")
    for row in found:
        for line in told(row):
            print(safe(line))


def told(row: dict[str, Any]) -> list[str]:
    """The lines of one event, as the query `timeline` gives it."""
    at = row["at"].replace(tzinfo=UTC).timestamp() * 1000 + row["ms"]
    number = f" (attempt {row['attempt']})" if row["mx_host"] else ""
    said = f"{time_of(at)}.{row['ms']:03d}  {row['stage']}: it {WORDS[row['kind']]}{number}"
    lines = [said + (f": {row['reason']}" if row["reason"] and row["reason"] != row["kind"] else "")]
    tried = [row["mx_host"], f"[{row['mx_address']}]" if row["mx_address"] else ""]
    spoken = (
        f"{' '.join(filter(None, tried))}, {row['tls'] or 'without TLS'}, {row['duration_ms']} ms"
        if row["mx_host"]
        else ""
    )
    phases = ", ".join(f"{name} {ms}" for name, ms in zip(row["phases"], row["phase_ms"], strict=False))
    due = row["due_at"].replace(tzinfo=UTC).timestamp()
    parts = {
        "rule": row["rule"], "site": row["site"], "source": row["source"], "spoke to": spoken, "phases (ms)": phases,
        "reply": " ".join(str(row[part]) for part in ("reply_code", "enhanced_code", "reply") if row[part]),
        "shaping": row["shaping"], "not before": time_of(round(due * 1000)) if due else "", "detail": row["detail"],
        "note": "may be a duplicate" if row["possible_duplicate"] else "",
    }  # fmt: skip
    return lines + [f"    {what + ':':<12} {text}" for what, text in parts.items() if text]
