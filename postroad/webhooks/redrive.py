"""What is delivered again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from avro.records import Notification

MANY, BYTES_MAX = 10_000, 32 << 20  # of one redrive: notifications, bytes of their bodies


class Dead:
    """Those whose last try was the end of them, as far as tries were taken, in the order of the topic. `since`, `until`: ms, when they were
    made; `types`: none named is all. `bounded`: for a process of many tenants; `more`: there are some beyond MANY or BYTES_MAX."""

    def __init__(self, since: int, until: int, types: Sequence[str], bounded: bool = True):
        self._since, self._until, self._types, self._bounded = since, until, types, bounded
        self._found: dict[str, Notification] = {}
        self._bytes = 0
        self.more = False

    def take(self, one: Notification) -> None:
        """The next try."""
        id, size = one["notification_id"], len(one.get("body", ""))
        known = self._found.get(id)
        left = self._bytes - (len(known.get("body", "")) if known else 0)
        of_kind = self._since <= one["at"] < self._until and (not self._types or one["type"] in self._types)
        if one.get("outcome") != "dead" or not of_kind:
            self._found.pop(id, None)
            self._bytes = left
        elif self._bounded and (left + size > BYTES_MAX or (known is None and len(self._found) >= MANY)):
            self.more = True
        else:
            self._found[id], self._bytes = one, left + size

    def again(self, now: int) -> list[Notification]:
        """As they are to be delivered from `now` (ms) on."""
        return [
            {"notification_id": one["notification_id"], "webhook_id": one["webhook_id"], "tenant": one["tenant"], "type": one["type"],
             "at": now, "body": one.get("body", "")}
            for one in self._found.values()
        ]  # fmt: skip


def dead(tries: Iterable[Notification], since: int, until: int, types: Sequence[str], now: int) -> list[Notification]:
    """What is to be delivered again of `tries`, in the order of the topic."""
    found = Dead(since, until, types, bounded=False)
    for one in tries:
        found.take(one)
    return found.again(now)
