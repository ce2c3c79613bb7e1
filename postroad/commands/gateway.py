"""postroad gateway: what takes mail and calls from outside, each a process of its own."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import typer

from postroad import settings

app = typer.Typer(no_args_is_help=True, help="What takes mail from outside.")


@app.callback()
def gateway() -> None:
    """What takes mail from outside."""


@app.command()
def inbound() -> None:
    """Run the inbound MX at the setting `inbound`: takes bounces and complaints, until SIGTERM."""
    from agents.door import Door
    from gateway.service import run
    from postroad import logs
    from postroad.cli import CommandError

    current = settings.load()
    if not current.inbound:
        raise CommandError("the setting inbound is empty: name the host:port to take mail at, such as 0.0.0.0:25")
    logs.set_up("inbound", current)
    log = logging.getLogger(__name__)
    if not current.return_path_secret:
        log.warning(
            "return_path_secret is not set: anybody can work out the key, and forge bounces; set one secret for all"
        )
    door = Door(current, "inbound", current.inbound_certificate)

    def opened(mx: Any) -> None:
        door.opened(mx.counts, mx.listens)

    try:
        asyncio.run(run(current, opened))
    finally:
        door.end()


@app.command()
def smtp() -> None:
    """Take mail to send at the settings `submission` and `submission_tls`, until SIGTERM: programs sign in with a key (`postroad keys`)."""
    from agents.door import Door
    from gateway.submission_service import run
    from postroad import logs
    from postroad.cli import CommandError

    current = settings.load()
    if not current.submission and not current.submission_tls:
        raise CommandError(
            "the settings submission and submission_tls are empty: name a host:port to take mail at, such as 0.0.0.0:587"
        )
    logs.set_up("smtp", current)
    door = Door(current, "smtp", current.submission_certificate)

    def opened(host: Any) -> None:
        door.opened(host.counts, host.listens, host.identity.ends)

    try:
        asyncio.run(run(current, opened))
    finally:
        door.end()


@app.command()
def api() -> None:
    """Answer REST at the setting `api`, until SIGTERM."""
    import uvloop

    from agents.door import Door
    from analytics.clickhouse import connect
    from gateway.api.service import run
    from postroad import logs
    from postroad.cli import CommandError
    from postroad.commands.domains import resolver

    current = settings.load()
    if not current.api:
        raise CommandError("the setting api is empty: name the host:port to answer at, such as 127.0.0.1:8080")
    logs.set_up("api", current)
    door = Door(current, "api", current.api_certificate)

    def opened(service: Any) -> None:
        door.opened(service.door.counts, service.listens, service.callers.identity.ends)

    warehouse = connect(current.warehouse) if current.warehouse else None
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(current, warehouse, resolver, opened))
    finally:
        door.end()
