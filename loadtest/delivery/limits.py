"""Limits: eight sites with different caps, three send workers, one leaves and one joins. Musts: no cap is ever exceeded in any
window, as the farm sees it, and where mail waits at least 90 % of the cap that binds is used."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from loadtest.delivery.rig import Rig, caps_toml
from loadtest.delivery.windows import Caps, by_source, use, violations
from loadtest.mxfarm import Behaviour, Host, Site
from topics.catalogue import OUTBOUND

WORKERS = 3
SPAN_S, SHORT_S = 300.0, 40.0
SETTLE_S = 5.0  # from the first message on: connections open, rates rise
MOVES_S = 5.0  # after a worker has left or joined, in the short form
MIN_USE = 0.9
REPLY_MS = 100.0  # of sites whose connections are the cap
FEWEST = 50  # events that a cap has room for: three spans have six edges, one more or less at each is a tenth
ROOM = 1000  # a cap that never binds

# What binds is told by the name.
CAPS = {
    "rate-1": Caps(5, ROOM, 1, 100),
    "rate-5": Caps(5, ROOM, 5, 50),
    "rate-20": Caps(10, ROOM, 20, 100),
    "rate-40": Caps(10, ROOM, 40, 20),
    "connections-1": Caps(1, ROOM, ROOM, 100),
    "connections-4": Caps(4, ROOM, ROOM, 100),
    "new-12": Caps(10, 12, ROOM, 2),
    "new-60": Caps(10, 60, ROOM, 1),
}


def sites() -> list[Site]:
    """One host each."""
    return [
        Site(name, (Host(f"mx.{name}.test", f"127.0.1.{n}"),), (f"{name}.test",),
             Behaviour(delay_ms=REPLY_MS if name.startswith("connections") else 0))
        for n, name in enumerate(CAPS, 1)
    ]  # fmt: skip


def most(caps: Caps, seconds: float) -> int:
    """More messages than a site can take in that time."""
    by_rate = caps.per_second * seconds
    by_new = caps.new_per_minute * caps.messages_per_connection * (seconds / 60 + 1)
    by_connections = caps.connections * seconds / (2 * REPLY_MS / 1000)
    return int(1.3 * min(by_rate, by_new, by_connections)) + 20


def binding(caps: Caps, seconds: float) -> float:
    """Events that the cap which binds has room for in that time."""
    by_new, by_rate = caps.new_per_minute * seconds / 60, caps.per_second * seconds
    return min(by_new, by_rate)


def run(folder: Path, short: bool) -> dict[str, Any]:
    """The figures `cap_violations` and `cap_use_min`; prints a line for each site."""
    span = SHORT_S if short else SPAN_S
    shaping = caps_toml({
        name: {
            "connections": caps.connections, "new_connections_per_minute": caps.new_per_minute,
            "messages_per_second": caps.per_second, "messages_per_connection": caps.messages_per_connection,
        } for name, caps in CAPS.items()
    })  # fmt: skip
    with Rig(folder, sites(), shaping=shaping, send_workers=WORKERS, partitions=2 * WORKERS) as rig:
        wanted = [name for name, caps in CAPS.items() for _ in range(most(caps, span + 2 * SETTLE_S))]
        random.Random(5).shuffle(wanted)  # sites whose mail comes one after the other would wait for each other
        began = time.monotonic()
        rig.write(OUTBOUND.send(rig.routed(number, name)) for number, name in enumerate(wanted))
        print(f"  {len(wanted):,} messages written in {time.monotonic() - began:.1f} s")
        rig.sleep(SETTLE_S)
        start = time.monotonic()
        rig.sleep(span / 3)
        leaves = time.monotonic()
        print(f"  send-2 left with status {rig.send[2].stop()}")
        left = time.monotonic()
        rig.sleep(start + span * 2 / 3 - left)
        joins = time.monotonic()
        rig.send[2].start()
        print(f"  send-2 joined in {rig.send[2].wait_ready():.1f} s", flush=True)
        joined = time.monotonic()
        rig.sleep(max(start + span, joined + 3 * MOVES_S) - joined)
        end = time.monotonic()
        seen, violated, least = by_source(rig.farm.connections()), 0, 1.0
    # Of 300 s two moves of partitions may well cost their share; of 40 s they are most
    steady = [(start, leaves), (left + MOVES_S, joins), (joined + MOVES_S, end)]
    judged = [one for one in steady if one[0] < one[1]] if short else [(start, end)]
    for (name, source), connections in sorted(seen.items()):
        caps = CAPS[name]
        used = use(connections, caps, judged)
        few = binding(caps, sum(last - first for first, last in judged)) < FEWEST
        least = least if few else min(least, used)
        mails = sum(len(connection.mails) for connection in connections)
        print(
            f"  {name:14} {source}  {mails:6,} messages, {len(connections):5,} connections, {used:4.0%} of the cap used"
        )
        for violation in violations(connections, caps):
            violated += 1
            print(f"    VIOLATED {violation}")
    silent = CAPS.keys() - {name for name, _ in seen}
    if silent:
        print(f"  no connection at all to {', '.join(sorted(silent))}")
    return {"cap_violations": violated, "cap_use_min": 0.0 if silent else round(least, 3)}


def broken(result: dict[str, Any]) -> list[str]:
    """The musts that do not hold."""
    found = []
    if result["cap_violations"]:
        found.append(f"{result['cap_violations']} caps were exceeded")
    if result["cap_use_min"] < MIN_USE:
        found.append(f"{result['cap_use_min']:.0%} of a cap was used, at least {MIN_USE:.0%}")
    return found
