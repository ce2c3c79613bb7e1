"""What is delivered again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from avro.records import Notification


def dead(tries: Iterable[Notification], since: int, until: int, types: Sequence[str], now: int) -> list[Notification]:
    """Those of `tries`, in the order of the topic, whose last is dead, as they are to be delivered from `now` (ms) on."""
    last = {one["notification_id"]: one for one in tries}
    return [
        {"notification_id": one["notification_id"], "webhook_id": one["webhook_id"], "tenant": one["tenant"], "type": one["type"],
         "at": now, "body": one.get("body", "")}
        for one in last.values()
        if one.get("outcome") == "dead" and since <= one["at"] < until and (not types or one["type"] in types)
    ]  # fmt: skip
