"""What `postroad warmup` asks, on both engines: attempts of today by source and site, each once; complaints of the days before."""

from datetime import UTC, datetime, timedelta

from event_rows import NOON_MS, event, rows

from analytics.sink import Sink
from postroad.commands.warmup import WARMUP

NOON = datetime.fromtimestamp(NOON_MS / 1000, UTC)
TODAY = NOON.replace(hour=0)
DAY_MS = 86_400_000


def tried(message, kind, after_ms=0, **fields):
    return event(message, kind, after_ms, **{"attempt": 1, "source": "a", "site": "big", "shaping": "v1", **fields})


def test_attempts_of_today_count_once_each(warehouse):
    told = [
        tried("m1", "delivered"), tried("m2", "bounced", reason="user-unknown"), tried("m3", "bounced", reason="spam"),
        tried("m4", "deferred"), tried("m4", "deferred", 1000, round=1, attempt=2), tried("m5", "delivered", site="small"),
        tried("m6", "delivered", -DAY_MS, accepted_at=NOON_MS), tried("m7", "delivered", source="b"),
        tried("m8", "expired", shaping=""),  # while it waited: nothing was tried
        tried("m1", "reported", 500, reason="shaping"),
    ]  # fmt: skip
    sink = Sink(warehouse, "g")
    sink.recover({0: 0})
    sink.write(rows([*told, *(each | {"at": each["at"] + 5} for each in told)]))
    asked = {"today": TODAY, "since": TODAY - timedelta(days=7), "sources": ["a", "x'y"], "hard": ["user-unknown"]}
    assert warehouse.query(WARMUP, asked).rows == [("a", "big", 5, 1, 2, 0), ("a", "small", 1, 0, 1, 0)]
