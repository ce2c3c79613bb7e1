"""Rates over replicas: three processes of REST are asked for three times what a key may, unevenly; what passes is the key's rate.

`run(short)`: limit_error, the share by which what passed differs from the rate.
"""

from __future__ import annotations

import asyncio
import time

from deploy.local.kafka import free_port
from loadtest.doors.client import at_rate, mail, request
from loadtest.doors.rig import rig
from postroad import keys
from topics.catalogue import KEYS
from topics.client import Client

ERROR_MUST = 0.05
RATE = 150.0  # a second; of three times that most is refused, which costs little
SETTLES_S = 3.0  # levels begin full


def run(short: bool = False) -> dict[str, float]:
    """See the module."""
    seconds = 10.0 if short else 30.0
    with rig() as made:
        key, secret = keys.make("acme", ["send"], time.time_ns() // 1_000_000, rate_per_second=RATE)

        async def told() -> None:
            async with Client(made.installation) as client:
                await client.send(KEYS.send(key))

        asyncio.run(told())
        ports = [free_port() for _ in range(3)]
        for port in ports:
            made.start(port)
        mails = [request(secret, mail(number)) for number in range(2_000)]
        uneven = [ports[0], ports[0], ports[0], ports[1], ports[1], ports[2]]

        def make(number: int) -> bytes:
            return mails[number % len(mails)]

        asyncio.run(at_rate(uneven, make, 3 * RATE, SETTLES_S))
        answers = asyncio.run(at_rate(uneven, make, 3 * RATE, seconds))
    assert {one.status for one in answers} == {202, 429}
    passed = sum(one.status == 202 for one in answers) / seconds
    return {"limit_error": round(abs(passed / RATE - 1), 4), "limit_passed_per_s": round(passed, 1)}
