"""postroad plan: what a load needs, and which limit bites first."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

from postroad import planner


def plan(
    per_day: Annotated[str, typer.Option(help="Messages a day: 10k, 10M, 20B.")],
    peak: Annotated[
        str, typer.Option(help="Messages at the peak: 500/s, 100k/min; default: four times the mean.")
    ] = "",
    size: Annotated[str, typer.Option(help="Bytes of a mail: 2k, 1.5M (k is 1,024).")] = "2k",
    retention: Annotated[str, typer.Option(help="Events in ClickHouse for so long: 12h, 30d, 8w.")] = "30d",
    formulas: Annotated[
        bool, typer.Option("--formulas", help="Also every formula and figure, with its origin.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Compute what a load needs (workers, partitions, disks, sources) from measured figures; name the limit that bites first."""
    from postroad.cli import CommandError, _show

    try:
        found = planner.plan(planner.load(per_day, peak, size, retention))
    except planner.PlanError as error:
        raise CommandError(str(error)) from None
    first = found.limits[0]
    assumed = [name for name, figure in planner.figures().items() if figure.basis == "assumed"]
    if as_json:
        limits = [dataclasses.asdict(limit) | {"headroom": round(limit.headroom, 3)} for limit in found.limits]
        told = dataclasses.asdict(found) | {"limits": limits, "first_limit": first.name, "assumed": assumed}
        if formulas:
            told |= {"formulas": dict(planner.FORMULAS), "figures": planner.table()}
        print(json.dumps(told))
        return
    load = found.load
    print(f"{load.per_day:,.0f} messages a day, {load.peak:,.1f}/s at the peak, {load.size:,.0f} bytes each, "
          f"events for {load.retention:g} days\n")  # fmt: skip
    warm = (
        f"{found.warm_up_days} days"
        if found.warm_up_days <= len(planner.DAYS)
        else f"the whole plan of {len(planner.DAYS)} days"
    )
    rows = [
        ("cells (installations beside each other)", f"{found.cells:,}"),
        ("partitions of a keyed topic, each cell", f"{found.partitions:,}"),
        *((f"workers of {stage}", f"{count:,}") for stage, count in sorted(found.workers.items(), key=lambda w: -w[1])),
        ("front doors (REST)", f"{found.doors:,}"),
        ("memory of workers and doors", _bytes(found.memory)),
        ("Kafka brokers", f"{found.brokers:,}"),
        ("disk of Kafka, all copies", _bytes(found.kafka_bytes)),
        ("disk of RocksDB", _bytes(found.rocksdb_bytes)),
        ("ClickHouse", f"{found.clickhouse_shards:,} shards, {found.clickhouse_servers:,} servers"),
        ("disk of ClickHouse, all copies", _bytes(found.clickhouse_bytes)),
        ("egress sources", f"{found.sources:,}"),
        ("warm-up of them together", warm),
        ("network a month, SMTP out", _bytes(found.smtp_bytes_month)),
        ("network a month, inside Kafka", _bytes(found.kafka_bytes_month)),
    ]  # fmt: skip
    _show(["what", "how much"], rows)
    print(f"\nbites first: {first.name}, at {first.headroom:.2f} times this load "
          f"({first.can:,.0f} of {first.must:,.0f} {first.unit})")  # fmt: skip
    print(f"assumed, not measured: {', '.join(assumed)}; equal parts of all stages but send (--formulas tells all)")
    if formulas:
        print()
        _show(["what", "formula"], list(planner.FORMULAS))
        print()
        figures = [(name, f"{each.value:g}", each.unit, each.basis if each.basis != "measured" else f"measured {each.date}: {each.command}", each.note)
                   for name, each in planner.figures().items()]  # fmt: skip
        _show(["figure", "value", "unit", "origin", "note"], figures)


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} PB"
