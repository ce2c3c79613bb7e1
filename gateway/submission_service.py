"""`postroad gateway smtp`: the submission door as a process of its own, any number of replicas, until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gateway.accept import Acceptor
from gateway.callers import Callers
from gateway.inbound import Unavailable
from gateway.service import AGAIN_S, tell_ready
from gateway.submission import Submissions
from gateway.tls import context
from gateway.writer import KafkaProducer
from postroad.content import Contents
from postroad.settings import Settings
from topics.catalogue import BROADCASTS, KEY_USES, RATE_USES, SUBMISSIONS
from topics.installation import Installation


async def run(settings: Settings, opened: Callable[[Submissions], None] = lambda door: None) -> None:
    """Take mail at the settings `submission` and `submission_tls`. It listens when Kafka has told who may come in. `opened`: called once it
    does. Raises OSError where a port is taken or the certificate cannot be read."""
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    logging.getLogger("mail.log").setLevel(logging.CRITICAL)  # aiosmtpd's: a line for each command of each client
    name = settings.submission_host or settings.ehlo
    tls = context(
        settings.submission_certificate, settings.submission_key, settings.data_dir.absolute(), name, "submission"
    )
    installation = Installation(**settings.installation())
    producer = KafkaProducer(installation, (SUBMISSIONS, BROADCASTS, KEY_USES, RATE_USES))
    callers = Callers(settings, installation, producer, "smtp")
    contents = Contents(settings.content, settings.content_inline_max, cache_bytes=0)
    acceptor = Acceptor(producer, contents)
    door = Submissions(settings, callers.tenants, callers.identity, callers.limits, acceptor, tls=tls)
    tasks: list[asyncio.Task[Any]] = [
        asyncio.create_task(_ready(callers, producer)),
        asyncio.create_task(stopping.wait()),
    ]
    starting, stopped = tasks
    try:
        await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
        if stopping.is_set():
            return
        await starting
        beside = [asyncio.ensure_future(do()) for do in callers.for_ever()]
        tasks += beside
        for address, own in ((settings.submission, None), (settings.submission_tls, tls)):
            if address:
                host, _, port = address.rpartition(":")
                await door.open(host.strip("[]"), int(port), own)
        opened(door)
        tell_ready(
            f"takes mail to send at {' and '.join(filter(None, (settings.submission, settings.submission_tls)))}"
        )
        await asyncio.wait([stopped, *beside], return_when=asyncio.FIRST_COMPLETED)
        await door.close(settings.grace_s)
        for task in beside:
            if task.done():
                task.result()  # it failed: a supervisor starts us again
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(callers.stop(), producer.stop())


async def _ready(callers: Callers, producer: KafkaProducer) -> None:
    await callers.ready()
    while True:
        with suppress(Unavailable):
            return await producer.start()
        await asyncio.sleep(AGAIN_S)
