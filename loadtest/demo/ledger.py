"""What the installation says happened: events in ClickHouse, and the dead letters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from analytics.clickhouse import Warehouse
from postroad.events import ENDS
from topics.catalogue import DEAD_LETTERS
from topics.client import Client
from topics.installation import Installation

# An event that a crash wrote twice is one: the same message, kind, round and attempt.
STEPS = """
SELECT message_id, toString(kind), any(reason), max(possible_duplicate), any(site), min(latency_ms)
FROM events WHERE has({kinds:Array(String)}, toString(kind)) GROUP BY message_id, kind, round, attempt
"""
PROGRESS = "SELECT uniqExactIf(message_id, kind = 'accepted'), uniqExactIf(message_id, has({ends:Array(String)}, toString(kind))) FROM events"


@dataclass
class Life:
    """One message. `ends`: "kind/reason" of each; `flagged`: some event says possible_duplicate; `latency_ms`: from
    accepted to delivered, 0 where it was not."""

    accepted: bool = False
    ends: list[str] = field(default_factory=list)
    flagged: bool = False
    site: str = ""
    latency_ms: int = 0

    @property
    def end(self) -> str:
        """Kind of its end, empty in flight."""
        return self.ends[0].partition("/")[0] if self.ends else ""


def lives(warehouse: Warehouse) -> dict[str, Life]:
    """Every message that has an event, by its id. Raises WarehouseError."""
    rows = warehouse.query(STEPS, {"kinds": ["accepted", "deferred", *sorted(ENDS)]}).rows
    return gather(rows)


def gather(rows: list[tuple[Any, ...]]) -> dict[str, Life]:
    """Lives from the rows of STEPS."""
    found: dict[str, Life] = {}
    for message_id, kind, reason, flagged, site, latency_ms in rows:
        life = found.setdefault(message_id, Life())
        life.flagged = life.flagged or bool(flagged)
        life.site = site or life.site
        if kind == "accepted":
            life.accepted = True
        elif kind in ENDS:
            life.ends.append(f"{kind}/{reason}")
            life.latency_ms = latency_ms if kind == "delivered" else 0
    return found


def progress(warehouse: Warehouse) -> tuple[int, int]:
    """Messages accepted, and messages that have ended. Raises WarehouseError."""
    accepted, ended = warehouse.query(PROGRESS, {"ends": sorted(ENDS)}).rows[0]
    return int(accepted), int(ended)


async def dead_letters(installation: Installation) -> set[str]:
    """Records that were put aside, each once: "topic[partition]@offset"."""
    async with Client(installation) as client:
        return {record.key.decode() async for record, _ in client.read(DEAD_LETTERS)}
