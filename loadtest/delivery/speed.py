"""Speed: what a delivered message costs the send worker, 2 KB with RSA and Ed25519. Must: at most 0.8 ms of CPU."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from deploy.local.child import cpu_s
from loadtest.delivery.rig import Rig, caps_toml
from loadtest.mxfarm import Host, Site
from topics.catalogue import OUTBOUND

MESSAGES, SHORT_MESSAGES = 20_000, 2_000
WARM_UP = 500
SITES = 20
MAX_MS = 0.8
STALLED_S = 30.0


def sites() -> list[Site]:
    """Enough for no cap to bind."""
    return [
        Site(f"fast-{n}", (Host(f"mx.fast-{n}.test", f"127.0.4.{n + 1}"),), (f"fast-{n}.test",)) for n in range(SITES)
    ]


def run(folder: Path, short: bool) -> dict[str, Any]:
    """The figure `send_cpu_ms`: user and system time of the process, by the kernel, for each message at the farm."""
    messages = SHORT_MESSAGES if short else MESSAGES
    caps = {"messages_per_second": 1000, "new_connections_per_minute": 1000}
    with Rig(folder, sites(), shaping=caps_toml({site.name: caps for site in sites()})) as rig:
        _deliver(rig, 0, WARM_UP)
        before, began = cpu_s(rig.send[0].pid), time.monotonic()
        done = _deliver(rig, WARM_UP, messages)
        used, took = cpu_s(rig.send[0].pid) - before, time.monotonic() - began
        sizes = sorted(receipt.size for receipt in rig.farm.receipts.answered())
        last = next(reversed(rig.farm.receipts.answered()))
        signatures = rig.farm.receipts.raw(last).lower().count(b"\r\ndkim-signature:") + rig.farm.receipts.raw(
            last
        ).lower().startswith(b"dkim-signature:")
    each = used * 1000 / max(1, done)
    print(f"  {done:,} messages, median {sizes[len(sizes) // 2]:,} bytes, {signatures} signatures, {done / took:.0f}/s")
    print(f"  CPU of send: {each:.3f} ms each")
    return {"send_cpu_ms": round(each, 3) if done == messages and signatures == 2 else 0.0}


def _deliver(rig: Rig, first: int, messages: int) -> int:
    """How many of so many new messages have arrived; all, unless nothing comes any more."""
    before = len(rig.farm.receipts)
    rig.write(OUTBOUND.send(rig.routed(n, f"fast-{n % SITES}")) for n in range(first, first + messages))
    seen, moved = 0, time.monotonic()
    while seen < messages and time.monotonic() - moved < STALLED_S:
        rig.sleep(0.2)
        if (now := len(rig.farm.receipts) - before) > seen:
            seen, moved = now, time.monotonic()
    return seen


def broken(result: dict[str, Any]) -> list[str]:
    """The musts that do not hold."""
    each = result["send_cpu_ms"]
    if not each:
        return ["not every message arrived with two signatures"]
    return [] if each <= MAX_MS else [f"a message costs send {each:g} ms of CPU, at most {MAX_MS:g}"]
