"""send: what an attempt has used of its limits, kept for the next owner of the partition."""

from __future__ import annotations

from avro.records import Message
from postroad.departure import place_of, source_key
from postroad.limits import DAY_MS
from postroad.outcomes import Sent
from tables import rate_limits, warmup
from tables.warmup import Warmed
from topics.state import View


def keep(message: Message, outcome: Sent, state: View) -> None:
    """Rates, windows and warm-up of each source that was tried."""
    for sent in outcome.each():
        if (found := sent.leave) is None:
            continue
        found.done()
        rates, windows = state.services.departures.kept(found, state.partition, state.now)
        for key, tat in rates:
            state.rate_limits.put(key, tat, state.now + rate_limits.KEPT_MS)
        for key, packed in windows:
            state.windows.put(key, packed, state.now + rate_limits.WINDOWS_KEPT_MS)
        if found.warm is not None:
            key, day = source_key(place_of(message), found.source.name), state.now // DAY_MS
            kept = state.warmup.get(key) or Warmed(day, 0, 0)
            before = kept.bounced if kept.day == found.warm.head else 0
            state.warmup.put(
                key, Warmed(found.warm.head, found.warm.used, before + sent.bounced), state.now + warmup.KEPT_MS
            )
