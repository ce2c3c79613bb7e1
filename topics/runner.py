"""What the runners of all kinds of stage share: topics in, records out, dead letters, waiting for a registry.

What a record can do to a stage: a record that does not decode, and one whose code raises, goes to mail.dead-letters and the
rest goes on. A schema that the registry cannot give now is waited for: nothing is passed over. What stages
write in which order, and what a crash after each step leaves: topics/guarantees.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import faust
from faust.types import TP

from avro.records import DeadLetter, RecordHeader
from topics.catalogue import DEAD_LETTERS, Output, Topic
from topics.codec import Codec, CodecError, DecodeError, RegistryUnavailable, UnknownSchema
from topics.consumer import Consumer
from topics.metrics import Metrics
from topics.outputs import Outputs, OutputTooLarge
from topics.stage import Declared
from topics.state import Database, View
from topics.trace import Tracer
from topics.unreadable import Unreadable

log = logging.getLogger(__name__)

EXIT_FAILED = 70  # EX_SOFTWARE: the supervisor starts the worker again
HOLD_SECONDS = 1.0  # between two tries of a batch that is held
SWEEP_SECONDS = 10.0
REST_MAX_SECONDS = 0.05  # between two pieces of work of one partition
KEPT_KEY, KEPT_VALUE = 1 << 10, 1 << 20  # bytes of a record that the dead letters do not take whole
REFUSED_SECONDS, REFUSED_MAX = 60.0, 1000  # a schema id that the registry does not have is asked for again after this
#: header of a dead letter whose effect has, or may have, happened: performed again, it is a possible duplicate
PERFORMED = ("postroad-performed", b"1")


class TooMuchChange(ValueError):
    """The changes of one input record do not fit one changelog record batch."""


class Lost(NamedTuple):
    """An output that its topic refused, as `Runner.dead` takes a record."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]

    def digest(self) -> str:
        """16 hexadecimal digits of what it says."""
        what = repr((self.key, self.value, [tuple(header) for header in self.headers]))
        return hashlib.blake2b(what.encode(), digest_size=8).hexdigest()


class Store(Protocol):
    """What a runner needs of tables/store.py: the durable state of a stage, by partition."""

    @property
    def changelog(self) -> tuple[str, int, dict[str, str]]: ...
    def view(self, partition: int) -> View: ...
    def database(self, partition: int) -> Database: ...
    def databases(self) -> Mapping[int, Any]: ...
    def mark(self, partition: int, source: int) -> int: ...
    def progress(self, partition: int, source: int) -> bytes | None: ...
    def is_ours(self, partition: int) -> bool: ...
    def room(self, outputs: Outputs) -> int: ...
    def size(self, entries: Mapping[bytes, bytes | None]) -> int: ...
    def expired(self, partition: int, now: int) -> list[bytes]: ...
    async def write(
        self, partition: int, entries: dict[bytes, bytes | None], outputs: Outputs, progress: Mapping[int, bytes | int]
    ) -> None: ...


@dataclass(frozen=True)
class Wiring:
    """What an installation gives a runner. `names`: full name of each topic; `partitions` and `max_bytes` by full name;
    `delivery_s`: a delivery that takes longer ends the worker, which starts again at the committed offset; `tracer`: None where nothing is
    traced."""

    names: Mapping[Topic[Any], str]
    codecs: Mapping[Topic[Any], Codec]
    partitions: Mapping[str, int]
    max_bytes: Mapping[str, int]
    services: Any = None
    clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    metrics: Metrics = field(default_factory=Metrics)
    delivery_s: float = 60.0
    tracer: Tracer | None = None


def give_up(exc: BaseException) -> None:
    """Nothing unconfirmed may be committed: leave at once, with every app of the process; the restart begins at the
    committed offsets."""
    log.critical("ends itself: %s", type(exc).__name__, exc_info=exc)
    sys.stderr.flush()
    os._exit(EXIT_FAILED)


class Runner:
    """What both kinds of stage share: topics in, records out, dead letters."""

    def __init__(self, app: faust.App, stage: Declared, wiring: Wiring, store: Store | None):
        self.app, self.stage, self.wiring, self.store, self.metrics = app, stage, wiring, store, wiring.metrics
        self.tracer = wiring.tracer
        names = [wiring.names[topic] for topic in stage.reads]
        if len({wiring.partitions[name] for name in names}) != 1:
            raise ValueError(f"stage {stage.name}: its sources must have the same number of partitions: {names}")
        self.sources = {name: number for number, name in enumerate(names)}
        self.codec_of = {wiring.names[topic]: wiring.codecs[topic] for topic in stage.reads}
        self._targets = {topic: (wiring.names[topic], wiring.codecs[topic].encode) for topic in stage.writes}
        self._refused: dict[tuple[str, int], tuple[float, CodecError]] = {}  # schema ids that the registry has not
        self._waits: dict[
            Hashable, tuple[str, int | None, str, float]
        ] = {}  # what is waited for on purpose: see `wait`
        source = app.topic(
            *names, partitions=wiring.partitions[names[0]], key_type=bytes, value_type=bytes,
            key_serializer="raw", value_serializer="raw",
        )  # fmt: skip
        app.agent(source, name=f"{app.conf.id}-{stage.name}")(self._read)

    async def _read(self, stream: Any) -> None:
        raise NotImplementedError

    @property
    def changelog(self) -> tuple[str, int, dict[str, str]] | None:
        """Name, partitions and settings of the changelog; None for a stage without tables."""
        return None if self.store is None else self.store.changelog

    @property
    def ready(self) -> bool:
        """Whether it can work, once its partitions are read from."""
        return True

    def wait(
        self, key: Hashable, why: str, partition: int | None = None, limit_s: float = math.inf, *, topic: str = ""
    ) -> None:
        """What stands still from now until `wait_over(key)` does so on purpose, for `limit_s` seconds: topics/stall.py. Without
        a partition, all of the stage; without a topic, all its sources."""
        self._waits[key] = why, partition, topic, time.monotonic() + limit_s

    def wait_over(self, key: Hashable) -> None:
        """Also where nothing was waited for."""
        self._waits.pop(key, None)

    def wait_of(self, tp: TP) -> str:
        """What the partition waits for on purpose; empty for nothing."""
        for why, partition, topic, until in self._waits.values():
            if partition in (None, tp.partition) and topic in ("", tp.topic) and time.monotonic() < until:
                return why
        return ""

    def doing(self, tp: TP) -> str:
        """What is done with the oldest unfinished record of the partition, for people."""
        raise NotImplementedError

    @cached_property
    def consumer(self) -> Consumer:
        return self.app.consumer  # type: ignore[no-any-return]  # Faust has no types here

    def outputs(self) -> Outputs:
        return Outputs(self.app.producer, self.wiring.partitions, self.wiring.max_bytes)

    def decode(self, record: Any) -> Any:
        """The record's value. Raises DecodeError, UnknownSchema."""
        if record.value is None:
            if isinstance(record, Unreadable):
                raise DecodeError(record.error)
            raise DecodeError("the record has no value: this topic takes no tombstones")
        try:
            return self.codec_of[record.topic].decode(record.value)
        except UnknownSchema as unknown:
            until, error = self._refused.get((record.topic, unknown.id), (0.0, unknown))
            raise error if time.monotonic() < until else unknown from None

    def decoded(self, record: Any) -> Any:
        """The record's value, or the DecodeError that says why there is none. Raises UnknownSchema."""
        try:
            return self.decode(record)
        except DecodeError as exc:
            return exc

    async def learn(self, topic: str, unknown: UnknownSchema) -> None:
        """Fetch a writer's schema, however long the registry is away: a record that waits for it is never passed over.
        One that the registry does not have is a reason for dead letters: `decode` says so for a while."""
        try:
            while True:
                try:
                    return await self.codec_of[topic].learn(unknown.id)
                except DecodeError as exc:
                    if len(self._refused) > REFUSED_MAX:
                        self._refused.clear()
                    self._refused[topic, unknown.id] = time.monotonic() + REFUSED_SECONDS, exc
                    return
                except RegistryUnavailable as exc:
                    log.warning("%s: waiting for the schema registry: %s", self.stage.name, exc)
                    self.metrics.count("held")
                    self.wait((topic, unknown.id), "registry")
                    await asyncio.sleep(HOLD_SECONDS)
        finally:
            self.wait_over((topic, unknown.id))

    def add(self, outputs: Outputs, output: Output, source: Hashable) -> None:
        """Encode and queue what a handler returned. Raises ValueError where it may not go, EncodeError, OutputTooLarge."""
        topic, key, value, headers = output
        if (target := self._targets.get(topic)) is None:
            self.stage.check(output)
        name, encode = target  # type: ignore[misc]  # `check` has raised where there is none
        outputs.add(name, key, None if value is None else encode(value), source, headers)

    async def deliver(self, outputs: Outputs, place_of: Callable[[Any], str]) -> None:
        """Return when all outputs are stored where they were to go, or, where a topic refuses one for good, in the dead
        letters. Their inputs are finished, with what they changed: a replay writes the output alone.

        `place_of` names the input of a source: topic[partition]@offset. A refused output is named by it and by what it is, so
        that two of them never share a letter, whatever another run has refused before. Raises RuntimeError where the dead
        letters refuse one as well: nothing is passed over.
        """
        await outputs.deliver()
        if not outputs.refused:
            return
        for topic, partition, (key, value, headers, source), error in sorted(outputs.refused, key=lambda r: r[:2]):
            if topic == self.wiring.names[DEAD_LETTERS]:
                break
            record = Lost(topic, partition, -1, self.wiring.clock(), key, value, headers)
            self.dead(
                outputs, record, error, source, place=f"{place_of(source)}#{topic}[{partition}]:{record.digest()}"
            )
        else:
            await outputs.deliver()
            if not outputs.refused:
                return
        raise RuntimeError(
            f"{self.stage.name}: {DEAD_LETTERS.name} refuses what it is for: {outputs.refused[0].error!r}"
        )

    def dead(
        self, outputs: Outputs, record: Any, error: BaseException, source: Hashable, *,
        place: str = "", performed: bool = False,
    ) -> None:  # fmt: skip
        """`record` goes to mail.dead-letters as it was read; cut where that topic does not take it whole. `place`: of a
        refused output, as DeadLetter's `source`; `performed`: its effect has happened, or may have."""
        self.metrics.count("dead")
        kind = type(error).__name__  # its text may quote a mail, and is in the letter
        log.warning("%s: %s[%d]@%d to dead letters: %s%s; `postroad dead-letters` shows it", self.stage.name, record.topic, record.partition,
                    record.offset, kind, place and f" (an output of {place})", extra={"kind": f"{self.stage.name} {kind}"})  # fmt: skip
        headers: list[RecordHeader] = [{"name": name, "value": value or b""} for name, value in record.headers]
        flag: list[RecordHeader] = [{"name": PERFORMED[0], "value": PERFORMED[1]}] if performed else []
        headers = [header for header in headers if header not in flag] + flag
        letter: DeadLetter = {
            "stage": self.stage.name, "topic": record.topic, "partition": record.partition, "offset": record.offset,
            "timestamp": record.timestamp, "key": record.key,
            "value": record.raw if isinstance(record, Unreadable) else record.value,
            "headers": headers,
            "error": type(record if isinstance(record, Unreadable) else error).__name__,
            "text": str(error)[:2000].encode("utf-8", "replace").decode(),  # may quote a lone surrogate
            "at": self.wiring.clock(),
            "source": place,
        }  # fmt: skip
        try:
            self.add(outputs, DEAD_LETTERS.send(letter), source)
        except OutputTooLarge:
            key, value = record.key or b"", letter["value"] or b""
            whole = f"cut from {len(key)} bytes of key, {len(value)} of value, {len(headers)} headers"
            letter["key"], letter["value"], letter["headers"] = key[:KEPT_KEY], value[:KEPT_VALUE], flag
            letter["text"] = f"{whole}: {letter['text']}"
            self.add(outputs, DEAD_LETTERS.send(letter), source)
