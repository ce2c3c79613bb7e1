"""Slow neighbours: a hundred sites that hang beside a healthy one. Must: it keeps 90 % of the rate that it has alone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from loadtest.delivery.rig import Rig, caps_toml
from loadtest.mxfarm import Behaviour, Host, Site
from topics.catalogue import OUTBOUND

HANGING = 100
EACH = 20  # messages to each of them: twice its connections
MESSAGES, SHORT_MESSAGES = 6_000, 600
PER_S = 100  # of the healthy site: what any site has by default
MIN_RATIO = 0.9
STALLED_S = 30.0
SETTLE_S = 8.0


def sites() -> list[Site]:
    """Half of those that hang take a connection and say nothing, half do not even answer a SYN."""
    hanging = [
        Site(f"hangs-{n}", (Host(f"mx.hangs-{n}.test", f"127.0.2.{n + 1}"),), (f"hangs-{n}.test",),
             Behaviour(mode="silent" if n % 2 else "unreachable"))
        for n in range(HANGING)
    ]  # fmt: skip
    return [Site("healthy", (Host("mx.healthy.test", "127.0.3.1"),), ("healthy.test",)), *hanging]


def rate(rig: Rig, messages: int, first: int) -> float:
    """Messages a second that the healthy site gets, from the first tenth to the last of `messages` written now."""
    before = rig.farm.receipts.by_site()["healthy"]
    rig.write(OUTBOUND.send(rig.routed(first + n, "healthy")) for n in range(messages))
    seen, moved = 0, time.monotonic()
    while seen < messages:
        rig.sleep(0.5)
        if (now := rig.farm.receipts.by_site()["healthy"] - before) > seen:
            seen, moved = now, time.monotonic()
        elif time.monotonic() - moved > STALLED_S:
            print(f"  {seen:,} of {messages:,} messages arrived, then none for {STALLED_S:g} s")
            break
    times = sorted(receipt.time for receipt in rig.farm.receipts.answered() if receipt.site == "healthy")[before:]
    if len(times) < messages * 0.9:
        return 0.0
    first_tenth, last_tenth = messages // 10, messages * 9 // 10
    return (last_tenth - first_tenth) * 1000 / max(1, times[last_tenth - 1] - times[first_tenth])


def run(folder: Path, short: bool) -> dict[str, Any]:
    """The figure `healthy_ratio`."""
    messages = SHORT_MESSAGES if short else MESSAGES
    with Rig(folder, sites(), shaping=caps_toml({"healthy": {"messages_per_second": PER_S}})) as rig:
        rate(rig, 200, 0)  # connections, first imports
        alone = rate(rig, messages, 1_000_000)
        rig.write(OUTBOUND.send(rig.routed(2_000_000 + n, f"hangs-{n % HANGING}")) for n in range(HANGING * EACH))
        rig.sleep(SETTLE_S)
        among = rate(rig, messages, 3_000_000)
        print(f"  alone {alone:.1f}/s, beside {HANGING} sites that hang {among:.1f}/s")
    return {"healthy_ratio": round(among / alone, 3) if alone else 0.0}


def broken(result: dict[str, Any]) -> list[str]:
    """The musts that do not hold."""
    ratio = result["healthy_ratio"]
    return [] if ratio >= MIN_RATIO else [f"the healthy site had {ratio:.0%} of its rate, at least {MIN_RATIO:.0%}"]
