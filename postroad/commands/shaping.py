"""`postroad shaping`: is the file right, and what holds for a site."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from postroad import settings
from postroad.commands.printing import safe
from postroad.shaping.automatic import Rule
from postroad.shaping.policy import Policy, ShapingError, load
from postroad.shaping.warmup import Plan

app = typer.Typer(no_args_is_help=True, help="Limits per site, source and tenant, and the rules that change them.")


@app.command()
def check(
    file: Annotated[
        Path | None, typer.Argument(help="Default: the setting `shaping`; the shipped file if it is empty.")
    ] = None,
) -> None:
    """Look for every fault of a file. Exit status 0: it may go into force."""
    given = file or settings.load().shaping
    policy = _policy(given)
    print(f"{given or 'the shipped defaults'}: in order, version {policy.version}")


@app.command()
def show(
    site: Annotated[
        str, typer.Argument(help="Its name in the file, or the site of a message: part of its MX hosts' names.")
    ],
    source: Annotated[str, typer.Option(help="Limits of this egress source.")] = "",
) -> None:
    """Show what holds for a site, where each limit is from, and which rules look at its replies."""
    policy = _policy(settings.load().shaping)
    name = policy.site_of(site)
    print(safe(f"site {name}{f', source {source}' if source else ''}, shaping version {policy.version}"))
    rows = [(key, _shown(key, value), where) for key, value, where in policy.explain(site, source)]
    _print(["key", "value", "from"], rows)
    if plan := policy.warmup(source):
        print(safe(f"\nwarm-up of {source}: {_plan(plan)}"))
    print()
    rules = [(rule.name, _what(rule), _when(rule), policy.rule_origins[rule.name]) for rule in policy.rules_of(site)]
    _print(["rule", "does", "when", "from"], rules)


def _policy(file: Path | None) -> Policy:
    """Its policy; every fault on a line of its own, and exit status 1, where there is none."""
    try:
        return load(file, settings.load().limits())
    except ShapingError as error:
        for line in str(error).splitlines():
            print(safe(line), file=sys.stderr)
        raise typer.Exit(1) from None


def _what(rule: Rule) -> str:
    how = f" to {rule.factor:g} of it" if rule.action.startswith("reduce") else ""
    return f"{rule.action}{how} for {_time(rule.for_s)}"


def _when(rule: Rule) -> str:
    patterns = " or ".join(pattern.text for pattern in rule.patterns)
    phases = f" in {', '.join(sorted(rule.phases))}" if rule.phases else ""
    often = f", {rule.threshold} times in {_time(rule.window_s)}" if rule.threshold > 1 else ""
    return f"{patterns}{phases}{often}"


def _plan(plan: Plan) -> str:
    first = ", ".join(f"{messages:,}" for messages in plan.days[:5])
    return (
        f"{len(plan.days)} days from {plan.start}, to each site {first}{', ...' if len(plan.days) > 5 else ''}; "
        f"paused above {plan.bounces_max:.2%} bounces or {plan.complaints_max:.2%} complaints"
    )


def _time(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


def _shown(key: str, value: Any) -> str:
    """As the file has it."""
    if isinstance(value, tuple):
        return " ".join(_shown(key, item) for item in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if key in ("idle", "broken_tls") or key.endswith((".delays", ".greylist")) or key.startswith("timeouts."):
        return _time(value)
    return "unlimited" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _print(columns: list[str], rows: Iterable[tuple[str, ...]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(safe(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else 200).print(table)
