"""The tables `messages`, one row a message with its current state, and `feedback`, when something came back after its end.

Each step of a message has a version, and the step with the highest is its state. An end is above all else, then round, attempt, kind
and time count, in this order; so it does not matter in which order, how often or by how many sinks rows are written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from analytics.clickhouse import Columns
from analytics.native import Codes, Column, Lists, Numbers, Texts
from postroad.events import ENDS, FEEDBACK

TABLE, FEEDBACK_TABLE = "messages", "feedback"
# Numbers of the kinds in the Enum of 001_events.sql; feedback is no step.
STEPS = {kind: number for number, kind in enumerate(
    ("accepted", "validated", "scored", "held", "released", "cleared", "routed", "scheduled", "deferred",
     "delivered", "bounced", "dropped", "rejected", "expired", "cancelled"), 1)}  # fmt: skip
_ENDED, _ROUND, _ATTEMPT, _KIND = 1 << 62, 1 << 52, 1 << 42, 1 << 37  # what is left is time: 4 years, in ms
_MOST, _LATEST = 1023, _KIND - 1
_RANKS = {kind: number * _KIND + (_ENDED if kind in ENDS else 0) for kind, number in STEPS.items()}
_LISTED, _LISTED_ENDS, _LISTED_FEEDBACK = (
    ", ".join(f"'{kind}'" for kind in kinds) for kinds in (STEPS, sorted(ENDS), sorted(FEEDBACK))
)
_SAME = ("message_id", "accepted_at", "accepted_ms", "tenant", "submission_id", "stream", "round", "attempt", "recipient_domain",
         "site", "pool", "source", "reason", "rule", "reply_code", "enhanced_code", "due_at", "size", "tags")  # fmt: skip
_RENAMED = {"state": "kind", "state_at": "ts", "state_ms": "ts_ms"}
_ORIGINS = {name: name for name in _SAME} | _RENAMED
COLUMNS = (*_SAME, *_RENAMED, "ended", "version")
_OF_FEEDBACK = {
    "message_id": "message_id",
    "accepted_at": "accepted_at",
    "kind": "kind",
    "evidence": "evidence",
    "at": "ts",
}
FEEDBACK_COLUMNS = tuple(_OF_FEEDBACK)

VERSION = (
    f"toUInt64((kind IN ({_LISTED_ENDS})) * {_ENDED}"
    f" + least(toUInt64(round), {_MOST}) * {_ROUND} + least(toUInt64(attempt), {_MOST}) * {_ATTEMPT}"
    f" + toUInt64(toInt8(kind)) * {_KIND} + toUInt64(least(greatest(latency_ms, toInt64(0)), toInt64({_LATEST}))))"
)
"""The version of a row of `events`, in SQL."""


def steps(where: str) -> str:
    """Each step of a message among the rows of `events` that `where` names, in the order of COLUMNS."""
    return (
        f"SELECT {', '.join(_SAME)}, kind AS state, ts AS state_at, ts_ms AS state_ms, toUInt8(kind IN ({_LISTED_ENDS})) AS ended,"
        f" {VERSION} AS version FROM events WHERE ({where}) AND kind IN ({_LISTED})"
    )


def select(where: str) -> str:
    """The newest of these for each message."""
    return f"SELECT * FROM ({steps(where)}) ORDER BY version DESC LIMIT 1 BY accepted_at, message_id"


def feedback(where: str) -> str:
    """What came back among the rows of `events` that `where` names, in the order of FEEDBACK_COLUMNS."""
    told = ", ".join(f"{origin} AS {name}" for name, origin in _OF_FEEDBACK.items())
    return f"SELECT {told} FROM events WHERE ({where}) AND kind IN ({_LISTED_FEEDBACK})"


def feedback_of(events: Columns) -> dict[str, Column]:
    """Columns of `feedback` from columns of `events`; empty where nothing came back."""
    rows = np.flatnonzero(_by_kind(events["kind"], lambda kind: kind in FEEDBACK))
    return {name: _take(events[origin], rows) for name, origin in _OF_FEEDBACK.items()}


def columns_of(events: Columns) -> dict[str, Column]:
    """Columns of `messages` from columns of `events` (analytics/rows.py): the newest state of each message in them. Empty: none of them
    is a step of a message."""
    ranks = _by_kind(events["kind"], lambda kind: _RANKS.get(kind, -1))
    number = {
        name: np.asarray(events[name], np.int64)
        for name in ("ts", "ts_ms", "accepted_at", "accepted_ms", "round", "attempt")
    }
    waited = (number["ts"] - number["accepted_at"]) * 1000 + number["ts_ms"] - number["accepted_ms"]
    versions = (
        ranks
        + np.clip(waited, 0, _LATEST)
        + np.minimum(number["round"], _MOST) * _ROUND
        + np.minimum(number["attempt"], _MOST) * _ATTEMPT
    )
    order = np.lexsort((np.arange(len(ranks)), -versions))[::-1]  # of equal ones the first comes last
    order = order[ranks[order] >= 0]
    ids = events["message_id"]
    named: Sequence[Any] = ids.each() if isinstance(ids, Texts) else cast("Sequence[Any]", ids)
    newest = {named[row]: row for row in order.tolist()}
    chosen = np.array(list(newest.values()), np.int64)
    out = {name: _take(events[origin], chosen) for name, origin in _ORIGINS.items()}
    out["version"] = versions[chosen]
    out["ended"] = (versions[chosen] >= _ENDED).astype(np.int64)
    return out


def _by_kind(kinds: Column, value: Callable[[str], int]) -> Numbers:
    """A number for each kind of a column."""
    if isinstance(kinds, Codes):
        return np.array([value(symbol) for symbol in kinds.symbols], np.int64)[kinds.numbers]
    return np.array([value(kind) for kind in cast("Sequence[str]", kinds)], np.int64)


def _take(column: Column, rows: Numbers) -> Column:
    if isinstance(column, Texts | Codes | Lists | np.ndarray):
        return column.take(rows)
    return [column[row] for row in rows.tolist()]
