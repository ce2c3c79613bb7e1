"""Fairness: a tenant's transactional mail while another one sends a broadcast to the same site, whose cap the broadcast uses up.
Must: the 95th percentile of accepted -> delivered is at most 1.5 times that of a quiet site."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from avro.records import Submission
from loadtest.delivery.rig import DOMAIN, OTHER, TENANT, Rig, caps_toml
from loadtest.demo.checks import percentile
from loadtest.mxfarm import Host, Site
from topics.catalogue import BROADCASTS, SUBMISSIONS
from topics.client import Client

BROADCAST, SHORT_BROADCAST = 200_000, 5_000
RECIPIENTS = 500  # of one broadcast submission
MEASURED_S, SHORT_S = 180.0, 25.0  # of each of the two figures
PER_S = 2.0  # transactional messages; the cap leaves room for them
CAP_PER_S = 50
UNDER_WAY = 300  # of the broadcast are delivered before the second figure is measured
WARM_UP = 10
LONGEST_S = 60.0
MAX_RATIO = 1.5


def run(folder: Path, short: bool) -> dict[str, Any]:
    """The figure `fairness_ratio`, and both percentiles in ms."""
    span, broadcast = (SHORT_S, SHORT_BROADCAST) if short else (MEASURED_S, BROADCAST)
    site = Site("shared", (Host("mx.shared.test", "127.0.3.3"),), ("shared.test",))
    caps = caps_toml({"shared": {"messages_per_second": CAP_PER_S, "connections": 10}})
    with Rig(folder, [site], shaping=caps) as rig:

        def arrived() -> int:
            return sum(one.recipient.startswith("b") for one in rig.farm.receipts)

        asyncio.run(_measure(rig, "warm", WARM_UP / PER_S))
        quiet = asyncio.run(_measure(rig, "quiet", span))
        rig.write(
            BROADCASTS.send(_broadcast(first, min(RECIPIENTS, broadcast - first)))
            for first in range(0, broadcast, RECIPIENTS)
        )
        under_way = rig.sleep(LONGEST_S, until=lambda: arrived() >= UNDER_WAY)
        busy = asyncio.run(_measure(rig, "busy", span))
        rest = broadcast - arrived()
        print(f"  of the broadcast {broadcast - rest:,} of {broadcast:,} were delivered by then")
    if not under_way or rest <= 0:
        print("  the broadcast does not run beside the transactional mail: nothing was compared")
        return {"fairness_ratio": 0.0}
    before, during = percentile(quiet, 0.95), percentile(busy, 0.95)
    print(f"  p95 {before:.0f} ms quiet ({len(quiet)} messages), {during:.0f} ms during the broadcast ({len(busy)})")
    return {"fairness_ratio": round(during / before, 2), "quiet_p95_ms": round(before), "busy_p95_ms": round(during)}


async def _measure(rig: Rig, name: str, seconds: float) -> list[float]:
    """ms from Kafka's time of each submission to the farm's receipt; what does not come counts as LONGEST_S."""
    accepted: dict[str, int] = {}
    async with Client(rig.installation) as client:
        began = time.monotonic()
        for number in range(int(seconds * PER_S)):
            recipient = f"t-{name}-{number}@shared.test"
            submission: Submission = {
                "tenant": TENANT, "submission_id": f"{name}-{number}", "sender": {"address": f"news@{DOMAIN}"},
                "recipients": [{"address": recipient}], "subject": "Your order", "text": "It is on its way.\n" * 40,
            }  # fmt: skip
            accepted[recipient] = (await client.send(SUBMISSIONS.send(submission))).timestamp
            await asyncio.sleep(max(0.0, began + (number + 1) / PER_S - time.monotonic()))
    deadline = time.monotonic() + LONGEST_S
    while time.monotonic() < deadline:
        rig.check()
        arrived = {one.recipient: one.time for one in rig.farm.receipts.answered() if one.recipient in accepted}
        if len(arrived) == len(accepted):
            break
        await asyncio.sleep(0.2)
    return [float(arrived[r] - at) if r in arrived else LONGEST_S * 1000 for r, at in accepted.items()]


def _broadcast(first: int, count: int) -> Submission:
    return {
        "tenant": OTHER, "submission_id": f"broadcast-{first}", "stream": "broadcast",
        "sender": {"address": f"offers@{DOMAIN}"}, "subject": "What is new", "text": "Look at this.\n" * 90,
        "recipients": [{"address": f"b{n}@shared.test"} for n in range(first, first + count)],
    }  # fmt: skip


def broken(result: dict[str, Any]) -> list[str]:
    """The musts that do not hold."""
    ratio = result["fairness_ratio"]
    if not ratio:
        return ["nothing was compared"]
    return [] if ratio <= MAX_RATIO else [f"transactional mail takes {ratio:g} times as long, at most {MAX_RATIO:g}"]
