"""Run a stage without Kafka: feed records, see outputs, dead letters and state. Ships as API for tests of stages.

    runner = Scripted(stage, services=..., now=1_700_000_000_000)
    outputs = await runner.feed(SCORED, message)
    assert runner.state.seen.get(message["message_id"]) == 0

Every record passes through the real codec on its way in and out, so a value that does not fit its schema fails here too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from topics.catalogue import DEAD_LETTERS, Output, Topic
from topics.codec import Codec
from topics.stage import EffectStage, Hold, Outputs, Stage, outputs_of
from topics.state import Memory, View
from topics.trace import Span, Tracer


@dataclass(frozen=True)
class ScriptedRecord:
    """What a handler finds as `state.record`: the fields of a Kafka record that stages look at."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass
class Scripted:
    """One partition of a stage. `now`: its clock in ms, moved by the test. `tracer`: topics.tracing's of the stage, where it is to trace."""

    stage: Stage | EffectStage
    services: Any = None
    now: int = 1_700_000_000_000
    partition: int = 0
    dead_letters: list[Any] = field(default_factory=list)
    tracer: Tracer | None = None

    def __post_init__(self) -> None:
        self.database = Memory()
        self._codecs = {topic: Codec(topic.schema) for topic in self.stage.topics()}
        self._offset = -1

    @property
    def state(self) -> View:
        """The state as it is now, to look at."""
        view = View({table.number: table for table in self.stage.tables}, self.database, {}, self.partition)
        view.now, view.services = self.now, self.services
        return view

    async def feed(
        self,
        topic: Topic[Any],
        *values: Any,
        possible_duplicate: bool = False,
        key: bytes | None = None,
        timestamp: int | None = None,
        headers: tuple[tuple[str, bytes], ...] = (),
    ) -> list[Output]:
        """Outputs of one batch of records, in order. A record whose handler raises goes to `dead_letters` and changes
        nothing, as in the runner; `Hold` is raised, and so is what `prepare` raises.

        `key`, `timestamp` (ms) and `headers`: of the records, where they are not the topic's, the clock's and none."""
        at = self.now if timestamp is None else timestamp
        todo = [self._record(topic, value, key, at, headers) for value in values]
        if isinstance(self.stage, EffectStage):
            return [
                o for record, value in todo for o in await self._effect(self.stage, record, value, possible_duplicate)
            ]
        view, handler = self.state, self.stage.handlers[topic]
        if preparer := self.stage.preparers.get(topic):
            try:
                async with asyncio.timeout(self.stage.prepare_s):
                    await preparer(todo, view)
            except TimeoutError:
                pass  # as in the runner: handlers put off what they miss
        found: list[Output] = []
        last, glance = self.stage.glances.get(topic, ("", None))
        for record, value in todo:
            view.record = record
            head = self._codecs[topic].head(last)(record.value or b"") if glance else None
            if glance is None or head is None or glance(head, view):
                view.trace = span = self._begin(record)
                call = partial(handler, value, view) if span is None else partial(span.handle, handler, value, view)
                found += self._settled(view, record, call, span)
        self.database.write(view.entries())
        return found

    async def feed_raw(self, topic: Topic[Any], raw: bytes) -> list[Output]:
        """The same with bytes as they come from Kafka."""
        return await self.feed(topic, self._codecs[topic].decode(raw))

    async def tick(self) -> list[Output]:
        """Outputs of one turn of every ticker."""
        assert isinstance(self.stage, Stage), "an effect stage has no ticks"
        found: list[Output] = []
        for _, ticker in self.stage.tickers:
            view = self.state
            found += [self._checked(output) for output in outputs_of(ticker(view))]
            view.keep()
            self.database.write(view.entries())
        return found

    async def _effect(self, stage: EffectStage, record: Any, value: Any, possible_duplicate: bool) -> list[Output]:
        assert stage.performer is not None and stage.settler is not None
        view = self.state
        view.record = record
        span = self._begin(record)
        try:
            result = await stage.performer(value, view, possible_duplicate)
        except Exception as exc:
            self._dead(record, exc)
            self._end(span, exc)
            return []
        if span is not None:
            span.performed_at = time.time_ns()
        settler = stage.settler
        call = (
            partial(settler, value, result, view) if span is None else partial(span.settle, stage, value, result, view)
        )
        found = self._settled(view, record, call, span)
        self.database.write(view.entries())
        return found

    def _begin(self, record: Any) -> Span | None:
        return None if self.tracer is None else self.tracer.begin(record)

    def _end(self, span: Span | None, error: Exception | None = None) -> None:
        if span is not None and self.tracer is not None:
            if error is not None:
                span.fail(error)
            self.tracer.end([span])

    def _settled(self, view: View, record: Any, call: Callable[[], Outputs], span: Span | None) -> list[Output]:
        view.begin()
        try:
            outputs = [self._checked(output) for output in outputs_of(call())]
        except Hold:
            raise
        except Exception as exc:
            self._dead(record, exc)
            self._end(span, exc)
            return []
        view.keep()
        self._end(span)
        return outputs

    def _checked(self, output: Output) -> Output:
        self.stage.check(output)
        if output.value is None:
            return output
        codec = self._codecs[output.topic]
        return output._replace(value=codec.decode(codec.encode(output.value)))

    def _record(
        self, topic: Topic[Any], value: Any, key: bytes | None, at: int, headers: tuple[tuple[str, bytes], ...]
    ) -> tuple[ScriptedRecord, Any]:
        self._offset += 1
        raw = self._codecs[topic].encode(value)
        key = topic.key(value).encode() if key is None else key
        record = ScriptedRecord(topic.name, self.partition, self._offset, at, key, raw, headers)
        return record, self._codecs[topic].decode(raw)

    def _dead(self, record: ScriptedRecord, error: Exception) -> None:
        self.dead_letters.append(self._checked(DEAD_LETTERS.send({
            "stage": self.stage.name, "topic": record.topic, "partition": record.partition, "offset": record.offset,
            "timestamp": record.timestamp, "key": record.key, "value": record.value, "headers": [],
            "error": type(error).__name__, "text": str(error)[:2000], "at": self.now,
        })).value)  # fmt: skip
