"""`make demo`: set up a farm and a road, send 2,000 submissions through it, account for every message.

Last line: RESULT {...}. Exit status 1 when a message is lost, doubled or still in flight, or anything is not as planned.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from analytics import queries
from loadtest.demo.checks import Account, Expected, percentile
from loadtest.demo.ledger import Life
from loadtest.demo.load import SETTINGS, SHAPING, Load
from loadtest.demo.road import Road, fresh, program

ROLLED_S = 90.0  # `hours` follows the events by at most a minute
EXAMPLES = (
    ("latency",),
    ("bounce_reasons_by_site", "--tenant", "harbour-books"),
    ("attempts_per_delivery",),
)


def main() -> int:
    """Returns the exit status."""
    return program("demo", __doc__, demo)


def demo(folder: Path, console: Console) -> int:
    """One run; prints all it finds."""
    began = time.monotonic()
    with fresh(folder):
        console.print("starting the farm and `postroad up`")
        with Road(folder, SETTINGS, shaping=SHAPING) as road:
            console.print(f"ready in {road.ready_s:.1f} s; settings: {road.folder / 'postroad.toml'}")
            load = Load(road, console)
            load.prepare()
            sending = time.monotonic()
            with load.producing():
                complete = load.wait()
            console.print(
                f"{load.ended:,} messages have ended, {time.monotonic() - sending:.1f} s after the first was written"
            )
            if not complete:
                console.print("[bold red]nothing moves any more; what follows is what there is[/]")
                road.print_logs()
            account, lives, dead = load.settle()
            rolled = _rolled(road, sum(account.ends.values()))
            if not rolled:
                console.print(
                    f"[bold red]`hours` has not all ends after {ROLLED_S:g} s; what follows is what there is[/]"
                )
            _show_ends(console, road)
            _show_latency(console, lives, load.expected())
            _show_examples(console, road)
            _show_account(console, account, len(load.expected()), len(load.acknowledged))
        result = {
            "accepted": account.accepted,
            **{end: account.ends[end] for end in ("delivered", "bounced", "dropped", "rejected", "expired", "cancelled")},
            "in_flight": len(account.in_flight), "lost": len(account.lost), "duplicates": account.duplicates,
            "dead_letters": len(dead), "seconds": round(time.monotonic() - began, 1),
        }  # fmt: skip
    print("RESULT", json.dumps(result))
    return 1 if account.in_flight or account.lost or account.duplicates or account.differs or not rolled else 0


def _rolled(road: Road, ends: int) -> bool:
    """Wait until the rollup that the tables below are made of has every end."""
    deadline = time.monotonic() + ROLLED_S
    while True:
        found = queries.run(road.warehouse, "ends_by_reason")
        if sum(row["messages"] for row in found.dicts()) >= ends:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)


def _show_ends(console: Console, road: Road) -> None:
    for title, name in (
        ("Ends by reason", "ends_by_reason"),
        ("Ends by site (none: it ended before route)", "ends_by_site"),
    ):
        answer = queries.run(road.warehouse, name)
        table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
        for column in answer.columns:
            table.add_column(column)
        for row in answer.rows:
            table.add_row(*map(str, row))
        console.print(table, "")


def _show_latency(console: Console, lives: Mapping[str, Life], wanted: Mapping[str, Expected]) -> None:
    delivered = {id: life.latency_ms for id, life in lives.items() if life.end == "delivered"}
    freely = [ms for id, ms in delivered.items() if id in wanted and not wanted[id].waits]
    for title, values in (
        ("all", list(delivered.values())),
        ("without those that had to wait (send_at, quota, slow sites)", freely),
    ):
        p50, p95, p99 = (percentile(values, share) for share in (0.5, 0.95, 0.99))
        console.print(
            f"accepted -> delivered, {title}: p50 {p50:,} ms, p95 {p95:,} ms, p99 {p99:,} ms ({len(values):,} messages)"
        )
    console.print()


def _show_examples(console: Console, road: Road) -> None:
    for arguments in EXAMPLES:
        console.print(f"[bold]$ postroad query {' '.join(arguments)}[/]")
        console.print(escape(road.cli("query", *arguments)))


def _show_account(console: Console, account: Account, wanted: int, records: int) -> None:
    parts = " + ".join(f"{number:,} {end}" for end, number in account.ends.most_common())
    console.print(
        f"conservation: {records:,} records acknowledged by Kafka -> {wanted:,} messages; accepted {account.accepted:,} = "
        f"{parts} + {len(account.in_flight):,} in flight",
        soft_wrap=True,
    )
    if account.lost:
        console.print(f"[bold red]lost:[/] {', '.join(account.lost[:10])}")
    for what, which in (("two ends", account.twice), ("delivered twice without a flag", account.unflagged)):
        if which:
            console.print(f"[bold red]{what}:[/] {', '.join(which[:10])}")
    for line in account.differs:
        console.print(f"[bold red]differs:[/] {escape(line)}")
    if not (account.lost or account.duplicates or account.differs):
        console.print(
            "farm and ledger agree: every message called delivered is there once, with two valid DKIM signatures, nothing "
            "else is, and every submission ended as planned"
        )


if __name__ == "__main__":
    sys.exit(main())
