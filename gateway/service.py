"""`postroad gateway inbound`: the inbound MX as a process of its own, until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from avro.records import Tenant
from gateway.inbound import Inbound, Unavailable
from gateway.tls import context
from gateway.writer import KafkaWriter
from postroad.content import Contents
from postroad.settings import READY_FILE, Settings
from topics.catalogue import TENANTS
from topics.follower import Follower
from topics.installation import Installation

log = logging.getLogger(__name__)
AGAIN_S = 1.0


async def run(settings: Settings, opened: Callable[[Inbound], None] = lambda inbound: None) -> None:
    """Take mail at the setting `inbound`. It listens when Kafka has told the tenants: before, their domains would be refused
    for good. `opened`: called once it does. Raises OSError where the port is taken or the certificate cannot be read."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    logging.getLogger("mail.log").setLevel(logging.CRITICAL)  # aiosmtpd's: a line for each command of each peer
    host, _, port = settings.inbound.rpartition(":")
    name = settings.inbound_host or settings.return_path_host or settings.ehlo
    tls = context(settings.inbound_certificate, settings.inbound_key, settings.data_dir.absolute(), name)
    installation = Installation(**settings.installation())
    tenants, writer = Follower[Tenant](installation, TENANTS), KafkaWriter(installation)
    inbound = Inbound(settings, tenants, Contents(settings.content, settings.content_inline_max), writer, tls=tls)
    starting = asyncio.create_task(_ready(tenants, writer))
    stopped = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
        if not stopping.is_set():
            await starting
            await inbound.open(host.strip("[]"), int(port))
            opened(inbound)
            tell_ready(f"takes bounces and complaints at {settings.inbound}")
            await stopped
            await inbound.close(settings.grace_s)
    finally:
        for task in (starting, stopped):
            task.cancel()
        await asyncio.gather(tenants.stop(), writer.stop())


async def _ready(tenants: Follower[Tenant], writer: KafkaWriter) -> None:
    await tenants.ready()
    while True:
        with suppress(Unavailable):
            return await writer.start()
        await asyncio.sleep(AGAIN_S)


def tell_ready(what: str) -> None:
    """To people, and to the supervisor that waits for it."""
    log.info("READY: %s", what)
    if path := os.environ.get(READY_FILE):
        Path(path).write_text(str(os.getpid()), "ascii")
