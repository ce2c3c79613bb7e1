"""The mail of reports, fetched before classify decides on them."""

from __future__ import annotations

import asyncio
from typing import Any

from avro.records import Report
from postroad import feedback
from postroad.content import ContentMissing, ContentUnavailable
from topics.stage import Hold
from topics.state import View

FETCHES = 8  # of a batch at once
KEPT = 1_000  # more than a batch has
_read: dict[tuple[str, str], feedback.Feedback] = {}  # what blobs say, by hash: a batch that is tried again goes on


async def read_reports(todo: list[tuple[Any, Report]], state: View) -> None:
    """`found[offset]`: the mail of each report, or what it says where that is a blob, for few are in memory at once."""
    few, away = asyncio.Semaphore(FETCHES), list[ContentUnavailable]()

    async def content(record: Any, report: Report) -> None:
        here = report["content"]
        name = here["hash"], here.get("blob") or ""
        async with few:
            try:
                if (found := _read.get(name)) is None and not away:
                    found = await state.services.contents.get(here)
                    found = _kept(name, found) if here.get("inline") is None else found
                state.found[record.offset] = found
            except ContentMissing as exc:
                state.found[record.offset] = exc
            except ContentUnavailable as exc:
                away.append(exc)

    await asyncio.gather(*(content(record, report) for record, report in todo))
    if away:
        raise Hold(f"the content store is away: {away[0]}") from away[0]


def _kept(name: tuple[str, str], mail: bytes) -> Any:
    try:
        _read[name] = said = feedback.read(mail)
    except Exception as exc:  # the report's own trouble: its handler raises it
        return exc
    if len(_read) > KEPT:
        del _read[next(iter(_read))]
    return said
