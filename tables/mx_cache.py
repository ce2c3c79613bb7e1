"""validate, route: where mail of a domain goes, as DNS said. Key: domain in A-labels. Kept for the answer's TTL.

What was asked for a batch is written with the batch, so that a batch that is done again comes to the same decisions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from postroad.dns import MxAnswer, decode_mx, encode
from topics.state import Table, View

PATIENCE_S = 1.0  # one dead name server holds its whole batch; a busy loop is not to look like one
ASKED_MAX = 500  # queries of one batch

MX_CACHE: Table[MxAnswer] = Table(1, "mx_cache", encode, decode_mx, expires=True)


async def ask(domains: Iterable[str], state: View) -> None:
    """For `prepare`: ask the resolver for what is not kept, together; answers go to `state.found`. Who is not answered
    soon, or not asked, is put off; the answer meanwhile comes to the resolver's cache."""

    async def one(domain: str) -> None:
        state.found[domain] = await state.services.resolver.mx(domain)

    unknown = [domain for domain in domains if _kept(domain, state) is None]
    try:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*map(one, unknown[:ASKED_MAX]))
    except TimeoutError:
        pass


def answer(domain: str, state: View) -> MxAnswer | None:
    """For a handler: the answer of this batch, which is kept for its time, or a kept one. None: there was none in time."""
    found: MxAnswer | None = state.found.get(domain)
    if found is None:
        return _kept(domain, state)
    if found.kind != "temporary" and found.expires_at > state.now:
        state.mx_cache.put(domain, found, found.expires_at)
    return found


def _kept(domain: str, state: View) -> MxAnswer | None:
    """The table's own expiry is to the minute, an answer's to the millisecond."""
    kept: MxAnswer | None = state.mx_cache.get(domain)
    return kept if kept is not None and kept.expires_at > state.now else None
