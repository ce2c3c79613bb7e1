"""schedule: what waits, by tenant and site, so that an order touches only what it is about; and how far each order has come.

`sites`: key = tenant, NUL, site (empty where it is not known yet), NUL, message id; value = the time in ms under which the message is
in `due`. Names are cut to `NAME_MAX`. Of a message that an older release put there or took away it may be wrong: an entry
without one in `due` counts for nothing, a message without an entry comes by its time.

`applied`: key = order_id; value = the time of the order and the place in `sites` behind what it has passed.

`flushed`: key = message id; value = the time in ms of the order that has let it go. Kept for a day: clocks differ by less.
"""

from __future__ import annotations

from typing import NamedTuple, TypedDict

from avro.records import Message, Order, Scheduled
from postroad.orders import NAME_MAX, Orders, scope_of, site_of
from tables import due
from tables.values import shape, to_int, to_json
from topics.state import Table, View

SEEKS = 100  # of one `find`: a site is looked for under each tenant that has something waiting
AT_ONCE = 200
FLUSHED_KEPT_MS = 86_400_000


class Applied(TypedDict):
    """`at`: of the order; `over`: nothing is left; `cursor`: hex of the key of `sites` to go on from."""

    at: int
    over: bool
    cursor: str


class Found(NamedTuple):
    """`entries`: (key, time in `due`); `cursor`: where to go on; `over`: there was nothing from the cursor on."""

    entries: list[tuple[bytes, int]]
    cursor: bytes
    over: bool


SITES: Table[int] = Table(5, "sites", to_int, int, cached=False)
APPLIED: Table[Applied] = Table(6, "applied", to_json, shape(Applied))
FLUSHED: Table[int] = Table(7, "flushed", to_int, int, expires=True, cached=False)


def key(message: Message) -> bytes:
    """Key in `sites`."""
    return _part(message["tenant"]) + _part(site_of(message)) + message["message_id"].encode()


def id_in(key: bytes) -> str:
    """The message id inside a key of `sites`."""
    return key[-26:].decode()


def forget(entry: Scheduled, until: int, state: View) -> None:
    """It does not wait any more: gone from all tables that know where."""
    message_id = entry["message"]["message_id"]
    state.due.delete(due.key(until, message_id))
    state.waiting.delete(message_id)
    state.sites.delete(key(entry["message"]))


def flush_of(entry: Scheduled, known: Orders, state: View) -> Order | None:
    """The flush by which an entry that comes goes on at once. An order lets a message go once: where the clock of whoever
    parks it is behind, it would seem to have waited since before the order, and go round and round; its time is put right."""
    message = entry["message"]
    flush = known.flushed(message, site_of(message), entry["at"], state.now)
    if flush is None or (let_go := state.flushed.get(message["message_id"])) is None:
        return flush
    entry["at"] = max(entry["at"], let_go + 1)
    return known.flushed(message, site_of(message), entry["at"], state.now)


def flushed(message: Message, order: Order, state: View) -> None:
    """The order has let it go."""
    state.flushed.put(message["message_id"], order["at"], state.now + FLUSHED_KEPT_MS)


def next_of(order: Order, state: View) -> list[tuple[bytes, int]] | None:
    """What the order is about and has not passed yet, some of it; it has passed that then. None: it is over. One of another time
    is another order, of an earlier one too: it may be from a machine whose clock is behind."""
    applied: Applied | None = state.applied.get(order["order_id"])
    if applied is None or applied["at"] != order["at"]:
        applied = {"at": order["at"], "over": False, "cursor": ""}
    elif applied["over"]:
        return None
    found = find(order, bytes.fromhex(applied["cursor"]), state)
    state.applied.put(order["order_id"], {**applied, "over": found.over, "cursor": found.cursor.hex()})
    return found.entries


def find(order: Order, cursor: bytes, state: View) -> Found:
    """The next entries in the scope of a flush or a bounce, in the order of keys, at most AT_ONCE. `cursor`: empty at first.

    `over` is said only of a call that has found nothing at its very first look: a tick may see less than there is (topics/pure.py).
    """
    site, tenant, _ = scope_of(order)
    prefix = (_part(tenant) if tenant else b"") + (_part(site) if tenant and site else b"")
    wanted = b"" if tenant else _part(site)
    place, entries, n = cursor or prefix, list[tuple[bytes, int]](), 1
    for look in range(SEEKS):
        rows = state.sites.scan(place, limit=n)
        if not rows or not rows[0][0].startswith(prefix):
            return Found(entries, place, look == 0)
        for found, until in rows:
            if not found.startswith(prefix):
                return Found(entries, place, False)
            if wanted and (ahead := _ahead(found, wanted)):
                place, n = ahead, 1
                break
            entries.append((found, until))
            place = found + b"\0"
        else:
            n = min(4 * n, AT_ONCE - len(entries))
        if len(entries) >= AT_ONCE:
            break
    return Found(entries, place, False)


def _part(name: str) -> bytes:
    return name[:NAME_MAX].replace("\0", "").encode() + b"\0"


def _ahead(found: bytes, wanted: bytes) -> bytes | None:
    """The first key that may be of the site `wanted`, where `found` is of another."""
    tenant, _, rest = found.partition(b"\0")
    site = rest[: rest.find(b"\0") + 1]
    if site == wanted:
        return None
    return tenant + b"\0" + wanted if site < wanted else tenant + b"\1"
