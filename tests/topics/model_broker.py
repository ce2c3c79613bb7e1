"""A broker in memory that loses, repeats and delays: logs, a consumer group, requests that are answered when a test says so.

Everything happens in steps of the caller's: a request of a worker lies in `Broker.flight` until it `land`s (is appended or
committed) and until it is `answer`ed, each on its own. Dropping a request whose sender lives would mean that its client sends it
again, which is the same as a later `land`; that of a dead sender may be dropped for good, or land after its sender's death.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiokafka.errors import MessageSizeTooLargeError

SESSION, HEARTBEAT = 4.0, 1.0  # seconds, as all times here


class Clock:
    """The time of everything; in place of module `time` where the code under test asks for it. `now`: small, for timers that
    are due at a time must not be missed by the rounding of floats."""

    def __init__(self) -> None:
        self.now = 0.0

    def wall_ms(self) -> int:
        return 1_700_000_000_000 + int(self.now * 1000)

    def monotonic(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return int(self.now * 1e9)


@dataclass
class Record:
    """A record as a consumer sees it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    timestamp: int = 0


@dataclass(eq=False)
class Request:
    """What a worker has asked of the broker. `number`: of the producer, in its partition; a retry has the same."""

    sender: Any
    work: Callable[[], Any]  # does it, returns the answer; raises what the broker says no with
    reply: asyncio.Future[Any]
    place: Any = None  # requests of one sender to one place land in order
    landed: bool = False
    answer: Any = None
    error: Exception | None = None

    def land(self) -> None:
        if not self.landed:
            self.landed = True
            try:
                self.answer = self.work()
            except MessageSizeTooLargeError as exc:
                self.error = exc


@dataclass
class Group:
    """A consumer group with the eager protocol. `plan` says who gets a partition, of the members in the order they came."""

    clock: Clock
    partitions: int
    plan: Callable[[int, list[Any]], Any] = lambda partition, members: members[partition % len(members)]
    generation: int = 0
    heard: dict[Any, float] = field(default_factory=dict)
    owners: dict[int, Any] = field(default_factory=dict)
    committed: dict[tuple[str, int], int] = field(default_factory=dict)
    _joined: dict[Any, asyncio.Future[None]] | None = None  # None: stable
    _until: float = 0.0

    def rebalance(self) -> None:
        """Every member has to join again."""
        if self._joined is None:
            self._joined, self._until = {}, self.clock.now + 2 * SESSION

    def look(self) -> None:
        """Members that were not heard of for a session, or did not join in time, are members no more."""
        waiting = self._joined or {}
        gone = [m for m, at in self.heard.items() if m not in waiting and self.clock.now > at + SESSION]
        if self._joined is not None and self.clock.now > self._until:
            gone = [m for m in self.heard if m not in waiting]
        for member in gone:
            del self.heard[member]
            self.rebalance()
        if self._joined and self._joined.keys() >= self.heard.keys():
            self._complete(self._joined)

    def _complete(self, joined: dict[Any, asyncio.Future[None]]) -> None:
        self.generation += 1
        self._joined, self.heard = None, dict.fromkeys(joined, self.clock.now)
        members = list(joined)
        self.owners = {partition: self.plan(partition, members) for partition in range(self.partitions)}
        for reply in joined.values():
            if not reply.done():
                reply.set_result(None)

    def join(self, member: Any) -> asyncio.Future[None]:
        self.rebalance()
        assert self._joined is not None
        self.heard[member] = self.clock.now
        self._joined[member] = member.loop.create_future()
        return self._joined[member]

    def heartbeat(self, member: Any) -> str:
        """What the coordinator answers: "ok", "rebalance" or "unknown"."""
        if member not in self.heard:
            return "unknown"
        self.heard[member] = self.clock.now
        return "ok" if self._joined is None else "rebalance"

    def gone(self, member: Any) -> None:
        """The connection of a member that waits to join has broken."""
        if self._joined is not None and self._joined.pop(member, None):
            self.heard.pop(member, None)

    def commit(self, member: Any, generation: int, offsets: dict[tuple[str, int], int]) -> bool:
        if member not in self.heard or generation != self.generation:
            return False
        self.committed.update(offsets)
        return True


class Broker:
    """`refuses(topic, value)`: whether a topic is too small for it. `on_append`, `on_commit`: what a test checks at each."""

    def __init__(self, clock: Clock, partitions: int):
        self.clock, self.partitions, self.group = clock, partitions, Group(clock, partitions)
        self.logs: dict[tuple[str, int], list[Record]] = defaultdict(list)
        self.flight: list[Request] = []
        self.refuses: Callable[[str, bytes | None], bool] = lambda topic, value: False
        self.on_append: Callable[[Any, list[Record]], None] = lambda sender, records: None
        self.on_commit: Callable[[dict[tuple[str, int], int]], None] = lambda offsets: None

    def append(self, sender: Any, topic: str, partition: int, items: list[Any]) -> int:
        """One record batch, whole or not at all; its base offset."""
        if any(self.refuses(topic, value) for _, value, _ in items):
            raise MessageSizeTooLargeError
        log = self.logs[topic, partition]
        records = [Record(topic, partition, len(log) + i, *item) for i, item in enumerate(items)]
        log.extend(records)
        self.on_append(sender, records)
        return records[0].offset

    def ask(self, sender: Any, work: Callable[[], Any], place: Any) -> asyncio.Future[Any]:
        reply = sender.loop.create_future()
        if not sender.dead:
            self.flight.append(Request(sender, work, reply, place))
        return reply

    def commit(self, member: Any, generation: int, offsets: dict[tuple[str, int], int]) -> bool:
        done = self.group.commit(member, generation, offsets)
        if done:
            self.on_commit(offsets)
        return done

    # -- what a test decides ---------------------------------------------------------------------------------------
    def land(self, request: Request) -> None:
        """It, and what its sender has asked of the same place before it."""
        for other in list(self.flight):
            if other.sender is request.sender and other.place == request.place:
                other.land()
            if other is request:
                break
        self.flight = [r for r in self.flight if not (r.landed and r.sender.dead)]

    def answer(self, request: Request) -> None:
        """The sender hears of it; a frozen one when it goes on."""
        self.land(request)
        if request in self.flight:
            self.flight.remove(request)
            if not request.reply.done():
                if request.error:
                    request.reply.set_exception(request.error)
                else:
                    request.reply.set_result(request.answer)

    def died(self, sender: Any, lost: Callable[[Request], bool]) -> None:
        """Its connections are gone; what is in the broker's hands already may still land."""
        self.group.gone(sender)
        self.flight = [r for r in self.flight if r.sender is not sender or not (r.landed or lost(r))]
