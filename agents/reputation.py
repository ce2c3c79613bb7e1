"""Reputation: what classify has counted of a subject, in all its partitions, becomes a step: ok, warn or hold.

mail.reputation -> control.standings, mail.events

A step is decided soon after its counts have changed, and once a minute where it is none or counts of today matter, since rates wear
off and a hold ends without new mail. An operator's pin lies beside it in control.standings and goes first; decisions go on below.
"""

from __future__ import annotations

from collections.abc import Iterator

from agents.application import application
from avro.records import Grade, Reputation
from postroad.events import noted
from postroad.reputation import (
    DAY_MS,
    DAYS,
    LEVELS,
    Step,
    decayed,
    decide,
    from_buckets,
    merged,
    named,
    shown,
    today,
)
from tables.standings import PARTS, PENDING, STEPS, Stood, key_of
from topics.catalogue import EVENTS, REPUTATION, STANDINGS, Output
from topics.metrics import Metrics
from topics.stage import Stage
from topics.state import View

NAME = "reputation"
TICK_SECONDS, AGAIN_SECONDS = 1.0, 60.0
AT_ONCE, STEPS_MOST = 200, 10_000
KEPT_MS = (DAYS + 2) * DAY_MS

stage = Stage(NAME, reads=[REPUTATION], writes=[EVENTS, STANDINGS], tables=[PARTS, PENDING, STEPS])
__getattr__ = application(stage)
_turns: dict[tuple[str, int], bytes] = {}  # table and partition: the key that is next
metrics = Metrics()  # steps to warn and to hold, and recoveries: as in agents/audit.py for graphs, not for sums


@stage.on(REPUTATION)
def hear(told: Reputation, state: View) -> None:
    """The counts of one partition. Raises ValueError for what no worker of classify writes."""
    subject = named(told["subject"])
    partitions = state.services.settings.partitions
    if not 0 <= told["partition"] < partitions:
        raise ValueError(f"partition {told['partition']} of {partitions}: classify has no such partition")
    history = from_buckets(told["buckets"])
    state.parts.put(key_of(subject, told["partition"]), history, state.now + KEPT_MS)
    state.pending.put(subject, b"")


@stage.every(TICK_SECONDS)
def judge(state: View) -> Iterator[Output]:
    """Subjects whose counts have changed."""
    for key in _turn("pending", state, AT_ONCE):
        state.pending.delete(key)
        yield from _judge(key.decode(), state)


@stage.every(AGAIN_SECONDS)
def look_again(state: View) -> None:
    """Those that time alone can change."""
    for key in _turn("steps", state, STEPS_MOST):
        state.pending.put(key, b"")


def _turn(name: str, state: View, limit: int) -> list[bytes]:
    """The next `limit` subjects of a table: strangers can make many of the kinds that come first."""
    table, place = getattr(state, name), (name, state.partition)
    first = _turns.get(place, b"")
    keys = [key for key, _ in table.scan(first, limit)]
    if len(keys) < limit:
        keys += [key for key, _ in table.scan(b"", limit - len(keys)) if key < first]
    _turns[place] = keys[-1] + b"\0" if keys else b""
    return keys


def _judge(subject: str, state: View) -> Iterator[Output]:
    limits, now = state.services.settings.thresholds(), state.now
    kind = subject.partition(":")[0]
    parts = (state.parts.get(key_of(subject, n)) for n in range(state.services.settings.partitions))
    history = merged((part for part in parts if part is not None), now)
    stood: Stood | None = state.steps.get(subject)
    before = stood.step() if stood else Step()
    step, day = decide(kind, history, before, limits, now), today(history, now)
    found = Stood(LEVELS.index(step.level), step.since, step.judged_from, now // DAY_MS, int(day.complained))
    numbers = shown(kind, decayed(history, now, limits.half_life_ms, before.judged_from))
    if step.level != before.level:
        risen = found.level > (stood.level if stood else 0)
        metrics.count(step.level if risen else "recovered")
        tenant = subject.partition(":")[2] if kind == "tenant" else ""
        yield EVENTS.send(noted(tenant, now, NAME, f"reputation:{subject}:{before.since}:{step.level}",
                                reason=f"reputation-{step.level}", rule=subject, detail=numbers))  # fmt: skip
    tells = found.level > 0 or found.complained > 0
    if stood is None or found != stood:
        if tells:
            grade: Grade = {
                "subject": subject, "level": step.level, "since": step.since, "reason": numbers, "day": found.day,
                "sent_today": int(day.sent), "bounced_today": int(day.bounced(kind)), "complained_today": found.complained,
            }  # fmt: skip
            yield STANDINGS.send(grade)
        elif stood is not None and (stood.level or stood.complained):
            yield STANDINGS.send({"subject": subject, "level": "ok", "since": step.since})._replace(value=None)
    if tells or step.judged_from > now - KEPT_MS:
        state.steps.put(subject, found)
    elif stood is not None:
        state.steps.delete(subject)
