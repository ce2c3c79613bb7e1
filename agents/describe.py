"""`python -m agents.describe`: docs/metrics.md, made of what the collectors of a process tell when each has something to tell."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from faust.types import TP
from prometheus_client.metrics_core import Metric

from agents.door import Keys
from agents.exporter import Counters
from agents.machine import Machine
from agents.mail import NAMES, Mail, Resting
from agents.stores import Stores
from postroad.departure import Departures
from topics.metrics import Metrics

PAGE = Path(__file__).parents[1] / "docs/metrics.md"
HEAD = """# Metrics

Every process with the setting `metrics` (host:port) tells these at `/metrics`, and beside them `/livez`, `/readyz` and `/version`.
This page is generated: `python -m agents.describe`. What a worker counts per stage is `postroad_<name>_total{stage}`; the names are below.

| Metric | Type | Labels | Unit | What it is |
|---|---|---|---|---|
"""
#: What stages and doors count (`Metrics.count`), told as postroad_<name>_total.
COUNTED = {
    "records": "records of finished batches", "batches": "finished batches", "held": "waits for a store, the schema registry or what a handler needs",
    "dead": "records that went to the dead letters", "passed_over": "records that were finished before a restart", "performed": "effects begun",
    "crowded": "messages put off because many wait for their site", "flagged": "effects that may have happened before",
    "dropped": "results that came when the partition was another worker's", "cycles": "cycles of a stage of effects",
    "orphans": "accepted messages without an end (conservation)", "two_ends": "messages with two ends", "strays": "attempts without a message",
    "audit_behind": "ticks of a partition in which audit said nothing, because it was behind", "accepted": "mails taken by a door", "refused": "mails or calls refused by a door",
    "put_off": "mails that a door told to come again", "failed": "sessions that failed", "connections": "connections taken by a door",
    "refused_connections": "connections refused by a door", "sign_ins": "sign-ins", "failed_sign_ins": "failed sign-ins",
    "adopted": "effects that went on through a rebalance",
    "cancelled": "effects that were cancelled because their partition went",
    "lost_late": "rebalances before which connections were not closed, or not in time",
    "dropped_batches": "batches that came to nothing because the partition was another worker's",
    "ended": "ends that audit has seen",
    "failed_ticks": "ticks of a stage that failed",
    "parts": "parts in which batches were written",
    "prepare_timeouts": "preparations that took too long",
    "webhook_dead": "webhook posts given up",
    "taken": "bounces and complaints taken", "forged": "reports with a forged return path", "refused_recipients": "recipients refused by a door",
}  # fmt: skip
UNITS = {"_seconds": "seconds", "_bytes": "bytes", "_records": "records", "_total": "1"}


class _Database:
    def property_int_value(self, name: str) -> int:
        return 1


def families() -> list[Metric]:
    """One of each that there is, by name."""
    metrics, now, here = Metrics(), time.time(), TP("topic", 0)
    metrics.counts.update(dict.fromkeys(COUNTED, 1))
    metrics.batch(1, 1.0)
    metrics.lag, metrics.oldest, metrics.committed = {here: 1}, {here: now}, {here: now}
    metrics.waiting["hold"], metrics.queued = 1, lambda: {b"site#0": 1}
    mail, keys, departures = Mail(), Keys(), Departures()
    message: Any = {"stream": "transactional", "route": {"site": "site", "source": "source"}}
    mail.accepted(message)
    for kind in NAMES.keys() - {"accepted"}:
        mail.step(kind, message)
    keys.ends = lambda: [("tenant", "key", 1)]
    departures.note_rest("source-suspended", "site", "source", 1 << 62)
    departures.note_rest("warm-up-paused", "site", "source", 1 << 62)
    machine = Machine(Path.cwd(), "door")
    machine.ends_at(0.0)
    stores = Stores(
        [SimpleNamespace(stage_name="stage", rebalancing_count=1, recovering=int, databases=lambda: {0: _Database()})]
    )
    collectors = (
        Counters([("stage", metrics)], lambda day: [("source", "site", 1, 1)]), mail, keys, Resting(departures), machine, stores,
    )  # fmt: skip
    return sorted((family for one in collectors for family in one.collect()), key=lambda family: family.name)


def page(found: Iterable[Metric]) -> str:
    """The text of docs/metrics.md."""
    lines = []
    for family in found:
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = ", ".join(label for label in family.samples[0].labels if label != "le")
        unit = next((unit for ending, unit in UNITS.items() if name.endswith(ending)), "1")
        counted = COUNTED.get(family.name.removeprefix("postroad_")) if family.type == "counter" else None
        lines.append(f"| `{name}` | {family.type} | {labels} | {unit} | {counted or family.documentation} |\n")
    return HEAD + "".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(families()), "utf-8")
    print(f"written: {PAGE.name}", file=sys.stderr)
