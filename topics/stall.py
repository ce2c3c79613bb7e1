"""A worker that stands still though there is work: it finds out by itself and leaves, and its supervisor starts it again.

A partition has stalled when its committed offset has not moved for `stall_s` while the broker has more of it, and nothing is
waited for on purpose. What is waited for on purpose is said by whoever waits, and shown as `Metrics.waiting`:

hold, registry    a handler's `Hold`, a schema that the registry cannot give now        no limit
store             ClickHouse: no limit between two tries, `BatchStage.store_s` for one
prepare           what a batch of a pure stage needs from outside, `Stage.prepare_s`
road              a source that is held back while the road behind the stage is long (topics/road.py); others of the partition count
effect            an effect within `EffectStage.effect_s`, or one that holds the place of the next
rebalance, recovery, lease, broker    the group or the broker keeps us waiting: limit `away_s`, twice the rebalance time-out and
                  `stall_s`, counted from the last moment without any of them; recovery that goes on does not count

The end of a partition is asked of the broker, past the fetcher, which may be what is stuck. Time is counted in looks, so that
the time of a frozen process (SIGSTOP) is not held against it: it goes on, without a lease, but see below.

A loop that does not turn cannot look: `Beat`, a thread, ends the process. Code that keeps the interpreter's lock as well (a
regular expression without end) keeps that thread out too: then faulthandler's, which needs no lock, does it, with status 1.
That one goes by the machine's time, and knows of no freeze: a process that was frozen for longer than twice `stall_s` may end
so when it goes on. It has lost its partitions long before, so it is started again with nothing to lose.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import threading
import time
from collections import Counter
from typing import Any

from aiokafka.errors import KafkaError
from faust.types import TP

from topics.runner import Runner, give_up

log = logging.getLogger(__name__)

LOOKS = 12  # in `stall_s`
ASK_SECONDS = 10.0  # the question waits behind a fetch of the same connection, and for a broker that has died
BEAT_SECONDS = 1.0
STDERR = 2  # not sys.stderr, which Faust may have put a log in place of
DESCRIBED_MAX = 20


class Stalled(RuntimeError):
    """The worker does nothing though there is work; the text says where, and what it is doing."""


class Watch:
    """Looks at one app's partitions. `stall_s`, `away_s`: see above; `every_s`: between two looks, all in seconds."""

    def __init__(self, app: Any, runner: Runner, stall_s: float, away_s: float):
        self.app, self.runner, self.metrics = app, runner, runner.metrics
        self.stall_s, self.away_s, self.every_s = stall_s, away_s, stall_s / LOOKS
        self._stood: dict[TP, tuple[int | None, float]] = {}  # the committed offset, and for how long it has stood
        self._moved: dict[
            TP, tuple[int | None, float]
        ] = {}  # the committed offset, and when (Unix time) it was seen to move
        self._behind: dict[TP, int] = {}  # lag as of the last look
        self._away = 0.0
        self._recovered = -1

    async def run(self) -> None:
        """Until the app stops; leaves the process when it has stalled."""
        last = time.monotonic()
        while not self.app.should_stop:
            await asyncio.sleep(self.every_s)
            now = time.monotonic()
            elapsed, last = min(now - last, self.every_s + ASK_SECONDS), now
            try:
                await self.look(elapsed)
            except Stalled as exc:
                if not self.app.should_stop:
                    log.error("%s", exc)
                    give_up(exc)
            except Exception:  # of the watch itself: not what it is to end a worker for
                log.exception("%s: a look at what stands still failed", self.runner.stage.name)

    async def look(self, elapsed: float) -> None:
        """One look, `elapsed` seconds after the last one. Raises Stalled."""
        away, mine = self._absence(), self._mine()
        ends: dict[TP, int] = {}
        if not away:
            try:
                async with asyncio.timeout(ASK_SECONDS):
                    ends = await self.app.consumer.ends(mine)
            except (KafkaError, TimeoutError) as exc:
                away = "broker"
                log.warning("%s: the broker does not say how far its partitions go: %r", self.runner.stage.name, exc)
        if away:
            self.metrics.waiting = Counter({away: 1})
            self._away = 0.0 if self._recovers() else self._away + elapsed
            if self._away >= self.away_s:
                raise Stalled(
                    f"stage {self.runner.stage.name} has no partitions that it may work on for {self._away:.0f} s: {away}"
                )
            return
        self._away = 0.0
        self.metrics.lag = {tp: max(0, ends[tp] - (self.app.consumer.committed_offset(tp) or 0)) for tp in mine}
        self._stood = {tp: self._stand(tp, elapsed) for tp in mine}
        self._note_ages(mine)
        self.metrics.waiting = Counter(why for tp in mine if self.metrics.lag[tp] and (why := self.runner.wait_of(tp)))
        stalled = [tp for tp, (_, stood) in self._stood.items() if stood >= self.stall_s]
        if stalled:
            raise Stalled("\n".join(map(self._describe, sorted(stalled)[:DESCRIBED_MAX])))

    def _note_ages(self, mine: set[TP]) -> None:
        """Since when what is behind waits. A record that has not been read yet is at least as old as the lag is known."""
        now, consumer, before = time.time(), self.app.consumer, self._moved
        self._moved = {}
        for tp in mine:
            committed = consumer.committed_offset(tp)
            kept = before.get(tp)
            stands = kept is not None and kept[0] == committed and self._behind.get(tp, 0) > 0
            self._moved[tp] = kept if kept is not None and stands else (committed, now)
        self._behind = dict(self.metrics.lag)
        behind = [tp for tp in mine if self.metrics.lag[tp]]
        self.metrics.committed = {tp: self._moved[tp][1] for tp in behind}
        self.metrics.oldest = {tp: min(consumer.oldest(tp) or now, self._moved[tp][1]) for tp in behind}

    def _mine(self) -> set[TP]:
        consumer = self.app._consumer
        return (
            set()
            if consumer is None or not consumer.has_group
            else {tp for tp in consumer.sought() if tp.topic in self.runner.sources}
        )

    def _absence(self) -> str:
        """Why there is nothing to look at; empty where there is."""
        app, consumer = self.app, self.app._consumer
        if consumer is None or not consumer.has_group or app.rebalancing:
            return "rebalance"
        if not consumer.holds_lease():
            return "lease"
        given = {tp for tp in consumer.assignment() if tp.topic in self.runner.sources}
        return "" if given <= consumer.sought() else "recovery"

    def _recovers(self) -> bool:
        """Whether changelogs were read since the last look."""
        before, self._recovered = (
            self._recovered,
            sum(offset or 0 for offset in self.app.tables.recovery.active_offsets.values()),
        )
        return self._recovered != before

    def _stand(self, tp: TP, elapsed: float) -> tuple[int | None, float]:
        committed = self.app.consumer.committed_offset(tp)
        before, stood = self._stood.get(tp, (-1, 0.0))
        if not self.metrics.lag[tp] or committed != before or self.runner.wait_of(tp):
            return committed, 0.0
        return committed, stood + elapsed

    def _describe(self, tp: TP) -> str:
        committed, stood = self._stood[tp]
        return (
            f"stage {self.runner.stage.name}: {tp.topic}[{tp.partition}] stands at {committed or 0} for {stood:.0f} s, "
            f"lag {self.metrics.lag[tp]}: {self.app.consumer.state_of(tp) or self.runner.doing(tp)}"
        )


class Beat(threading.Thread):
    """Ends the process when its loop does not turn for `silent_s`, or does not come to its end after `end_within`."""

    def __init__(self, silent_s: float):
        super().__init__(name="beat", daemon=True)
        self.silent_s, self.beat_s = silent_s, min(BEAT_SECONDS, silent_s / 4)
        self._loop = asyncio.get_running_loop()
        self._turned, self._over = False, threading.Event()
        self._left: float | None = None

    async def turn(self) -> None:
        """Shows that the loop turns, for ever."""
        while not self._over.is_set():
            self._turned = True
            faulthandler.dump_traceback_later(2 * self.silent_s, exit=True, file=STDERR)
            await asyncio.sleep(self.beat_s / 2)

    def end_within(self, seconds: float) -> None:
        """The process is to end: at the latest in so many seconds from now."""
        self._left = seconds

    def close(self) -> None:
        """Nothing more to guard."""
        self._over.set()
        faulthandler.cancel_dump_traceback_later()

    def run(self) -> None:
        """In beats that it has seen itself: a process that was frozen is given its time."""
        silent = 0.0
        while not self._over.wait(self.beat_s) and not self._loop.is_closed():
            silent = 0.0 if self._turned else silent + self.beat_s
            self._turned = False
            if self._left is not None:
                self._left -= self.beat_s
                if self._left < 0:
                    self._end("the worker was to end and has not")
            elif silent >= self.silent_s:
                self._end(f"the event loop has been blocked for {silent:.0f} s")

    def _end(self, why: str) -> None:
        faulthandler.dump_traceback(STDERR)
        give_up(Stalled(why))
