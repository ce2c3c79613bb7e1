"""postroad region: prepare a second cluster as the target of a mirror, take over in it, and bring what the mirror had not."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

from postroad import settings
from postroad.commands.audit import since_ms

if TYPE_CHECKING:
    from topics.installation import Installation

app = typer.Typer(no_args_is_help=True, help="A second region: `docs/runbooks/region-lost.md`.")
SINCE = "Mail accepted from then on: 2h, 7d, ISO 8601 with zone, or a date (UTC)."


@app.command()
def prepare() -> None:
    """Create the topics of this region's cluster as a mirror needs them, before it begins."""
    from postroad.cli import CommandError
    from postroad.commands import takeover

    try:
        created = asyncio.run(takeover.prepare(_here()))
    except takeover.RegionError as error:
        raise CommandError(str(error)) from None
    print(f"{len(created)} topics created; the mirror may begin")


@app.command("take-over")
def take_over(
    since: Annotated[str, typer.Option(help=SINCE)] = "7d",
    again: Annotated[str, typer.Option(help="Lists, decisions and reports are read again from so long ago.")] = "10m",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Make this region the active one. Its mirror must have stopped, the other region be off, and no worker run here yet."""
    from postroad.cli import CommandError
    from postroad.commands import takeover

    now = time.time_ns() // 1_000_000
    try:
        done = asyncio.run(takeover.take_over(_here(), now, since_ms(since, now), since_ms(again, now)))
    except takeover.RegionError as error:
        raise CommandError(str(error)) from None
    if as_json:
        print(json.dumps(vars(done)))
        return
    print(
        f"{done.resumed:,} messages go on, flagged as possible duplicates; {done.resubmitted:,} submissions are read again"
    )
    print(f"{sum(done.dropped.values()):,} entries of tables were true in the other region alone and are dropped")
    if done.nowhere:
        print(f"{len(done.nowhere):,} messages were accepted, and no record of them is here: `postroad region missing` of the other "
              f"region's log brings them\n  {' '.join(done.nowhere[:20])}")  # fmt: skip
    print("start the workers")


@app.command()
def missing(
    of: Annotated[str, typer.Option("--from", help="host:port,... of the lost region's Kafka, when it answers again.")],
    since: Annotated[str, typer.Option(help=SINCE)] = "7d",
    resubmit: Annotated[
        bool, typer.Option(help="Write them here: with their first ids, flagged as possible duplicates.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a submission.")] = False,
) -> None:
    """List the submissions that the lost region had accepted and that are not here. Exit status 1 while there are some."""
    from dataclasses import replace

    from postroad.commands import takeover
    from topics.client import Client

    here, now = _here(), time.time_ns() // 1_000_000

    async def work() -> list[takeover.Lacking]:
        found = await takeover.missing(replace(here, bootstrap=of), here, now, since_ms(since, now))
        if resubmit:
            async with Client(here) as client:
                for one in found:
                    await takeover.resubmit(client, one)
        return found

    found = asyncio.run(work())
    lack = [one for one in found if not one.known]
    messages = sum(len(one.ids) for one in lack)
    for one in lack:
        named = {
            "tenant": one.submission["tenant"],
            "submission_id": one.submission["submission_id"],
            "messages": one.ids,
        }
        print(
            json.dumps(named) if as_json else f"{named['tenant']}\t{named['submission_id']}\t{len(one.ids)} recipients"
        )
    if not as_json:
        print(f"{len(lack):,} submissions, {messages:,} messages" + (", written here" if resubmit else ""))
        if others := len(found) - len(lack):
            print(
                f"{others:,} submissions lack in the log alone: their messages are here"
                + (", written here" if resubmit else "")
            )
    if found and not resubmit:
        raise typer.Exit(1)


def _here() -> Installation:
    from topics.installation import Installation

    return Installation(**settings.load().installation())
