"""send: what an attempt has used of its limits, kept for the next owner of the partition."""

from __future__ import annotations

from avro.records import Message
from postroad.departure import place_of, source_key
from postroad.limits import DAY_MS
from postroad.outcomes import Expired, Parked, Sent
from tables import rate_limits, warmup
from tables.warmup import Warmed
from topics.state import View


def keep(message: Message, outcome: Sent | Parked | Expired, state: View) -> None:
    """What a take-over charges; rates, windows and warm-up of each source that was tried."""
    for table, key, value in state.services.departures.charges(state.partition):
        if table == "windows":
            state.windows.put(key, value, state.now + rate_limits.WINDOWS_KEPT_MS)
        else:
            state.warmup.put(key, Warmed(*value), state.now + warmup.KEPT_MS)
    for sent in outcome.each() if isinstance(outcome, Sent) else ():
        if (found := sent.leave) is None:
            continue
        if found.has_begun:
            found.done()
        else:  # no host has heard of it
            found.give_back()
        rates, windows = state.services.departures.kept(found, state.now)
        for key, tat in rates:
            state.rate_limits.put(key, tat, state.now + rate_limits.KEPT_MS)
        for key, packed in windows:
            state.windows.put(key, packed, state.now + rate_limits.WINDOWS_KEPT_MS)
        if found.warm is not None and not found.is_lost:
            key, day = source_key(place_of(message), found.source.name), state.now // DAY_MS
            kept = state.warmup.get(key) or Warmed(day, 0, 0)
            before = kept.bounced if kept.day == found.warm.head else 0
            state.warmup.put(
                key, Warmed(found.warm.head, found.warm.used, before + sent.bounced), state.now + warmup.KEPT_MS
            )
