"""What a stage is: plain code over records and state, declared once, run by the runner or, in tests, by `topics.testing`.

    stage = Stage("suppress", reads=[SCORED, SUPPRESSIONS], writes=[CLEARED, EVENTS], tables=[SUPPRESSED, SEEN])

    @stage.on(SUPPRESSIONS)
    def remember(entry: Suppression, state: View) -> None: ...

    @stage.on(SCORED)
    def pass_on(message: Message, state: View) -> Iterable[Output]: ...

A handler of a pure stage has no effect but its return value and its changes to `state`: it may be run again at any time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from topics.catalogue import DEAD_LETTERS, Output, Topic
from topics.state import Table, View

if TYPE_CHECKING:
    from topics.road import Road

Outputs: TypeAlias = Output | Iterable[Output] | None
Handler: TypeAlias = Callable[[Any, View], Outputs]
Preparer: TypeAlias = Callable[[list[tuple[Any, Any]], View], Awaitable[None]]  # (Kafka record, value) of each
Ticker: TypeAlias = Callable[[View], Outputs]
Glance: TypeAlias = Callable[[Any, View], bool]
F = TypeVar("F", bound=Callable[..., Any])


class Hold(Exception):
    """Raised by a handler or `prepare`: something that everything depends on (the blob store, say) is away. The batch is held
    and tried again; nothing is passed over."""


@dataclass(eq=False)
class Declared:
    """What both kinds of stage declare. The order of `reads` numbers the sources and is for life: append only."""

    name: str
    reads: Sequence[Topic[Any]]
    writes: Sequence[Topic[Any]]
    tables: Sequence[Table[Any]] = ()
    follows: Sequence[Topic[Any]] = ()

    def __post_init__(self) -> None:
        numbers = {table.number for table in self.tables}
        if len(numbers) != len(self.tables):
            raise ValueError(f"stage {self.name}: two tables have the same number")
        if not self.reads:
            raise ValueError(f"stage {self.name} reads nothing")
        self.writes = [*self.writes, DEAD_LETTERS]

    def topics(self) -> list[Topic[Any]]:
        """Every topic that the stage touches, each once."""
        return list(dict.fromkeys([*self.reads, *self.writes, *self.follows]))

    def check(self, output: Output) -> Output:
        """Raises ValueError for an output to a topic that the stage does not declare in `writes`."""
        if output.topic not in self.writes:
            raise ValueError(f"stage {self.name} sent to {output.topic.name}, which it does not name in writes")
        return output


def outputs_of(result: Outputs) -> Iterable[Output]:
    """What a handler returned, as something to go through."""
    if result is None:
        return ()
    return (result,) if isinstance(result, Output) else result


@dataclass(eq=False)
class Stage(Declared):
    """A pure stage: `handler(record, state) -> outputs`, with an optional `prepare` (of at most `prepare_s` a batch) and
    ticks. `state_first`: what a batch changes is durable before its outputs are written, so that nobody is told what a crash
    could make undecided; its handlers may find what they themselves have put, for the same record, before a crash. `road`: of
    a source that waits while what lies behind the stage is long."""

    prepare_s: float = 5.0
    state_first: bool = False
    road: Road | None = None
    handlers: dict[Topic[Any], Handler] = field(default_factory=dict)
    preparers: dict[Topic[Any], Preparer] = field(default_factory=dict)
    tickers: list[tuple[float, Ticker]] = field(default_factory=list)
    glances: dict[Topic[Any], tuple[str, Glance]] = field(default_factory=dict)

    def glance(self, topic: Topic[Any], last: str) -> Callable[[F], F]:
        """`glance(head, state) -> whether the handler is needed`, of the fields up to `last` in the schema's order: for a topic of
        which the stage needs few records, each of which would be decoded whole. It changes nothing. Records of another version
        of the schema, and those whose glance raises, go to the handler."""

        def register(function: F) -> F:
            self.glances[topic] = last, function
            return function

        return register

    def on(self, topic: Topic[Any]) -> Callable[[F], F]:
        """The handler of one source topic."""

        def register(handler: F) -> F:
            if topic not in self.reads or topic in self.handlers:
                raise ValueError(f"stage {self.name}: {topic.name} is not in reads, or has its handler already")
            self.handlers[topic] = handler
            return handler

        return register

    def prepare(self, topic: Topic[Any]) -> Callable[[F], F]:
        """`await preparer([(record, value), ...], state)` before a batch of `topic`: fetch what the batch needs from
        outside, together, and put it into `state.found`. Bounded by `prepare_s`; what is not there by then is for the
        handler to put off."""

        def register(preparer: F) -> F:
            self.preparers[topic] = preparer
            return preparer

        return register

    def every(self, seconds: float) -> Callable[[F], F]:
        """`ticker(state) -> outputs` for every partition that the worker owns, about every so many seconds, between
        batches; confirmed like the outputs of a record. Outputs may appear twice after a crash, as those of a record."""

        def register(ticker: F) -> F:
            self.tickers.append((seconds, ticker))
            return ticker

        return register


@dataclass(eq=False)
class EffectStage(Declared):
    """An effect stage: slow work on the outside world, many records at a time, ending in any order.

    `perform(record, state, possible_duplicate)` is the effect (`state` is read only there), `settle(record, result, state)`
    turns its result into outputs and changes, in memory. Records of the same `identity` run one after another, so that the
    second sees what the first has left in `state`.

    Records of a key wait in fair order (topics/fair.py): those of a source that `reads` names earlier go first, owners of records (by the
    bytes of the header `owner_header`; without it all have one) take turns.

    `crowded(record, state, ahead) -> result` where the waiting records of a partition become many: the last ones of the keys that have
    most get this result in place of an effect, so that a slow key does not stop the others. `ahead`: of its key, still waiting.
    `await lost(partition, services)` before a partition may go to another worker, in a few seconds at most.

    `effect_s`: an effect that takes longer hangs, and the worker is started again (topics/stall.py). Its own time limits, all
    together, stay below: agents/application.py sets it from the time-outs of SMTP.

    `told(result)`: what a trace tells of an effect, as attributes and ms in each of its phases, one after another; None: it was none.
    """

    limit: int = 200  # effects at once; those that take long do not count (topics/effects.py)
    key_limit: int | Callable[[bytes, Any], int] = 20  # of one key; or (key, services) -> limit
    identity: Callable[[Any], str] | None = None
    effect_s: float = 3600.0
    owner_header: str = ""
    performer: Callable[[Any, View, bool], Awaitable[Any]] | None = None
    settler: Callable[[Any, Any, View], Outputs] | None = None
    crowder: Callable[[Any, View, int], Any] | None = None
    loser: Callable[[int, Any], Awaitable[None]] | None = None
    told: Callable[[Any], tuple[dict[str, str | int], Mapping[str, int] | None]] | None = None

    def perform(self, function: F) -> F:
        """The effect: `await perform(record, state, possible_duplicate) -> result`."""
        self.performer = function
        return function

    def settle(self, function: F) -> F:
        """What follows from it: `settle(record, result, state) -> outputs`."""
        self.settler = function
        return function

    def crowded(self, function: F) -> F:
        """What a record comes to that waits among too many: `crowded(record, state, ahead) -> result`, without an effect."""
        self.crowder = function
        return function

    def lost(self, function: F) -> F:
        """Let go what belongs to a partition: `await lost(partition, services)`."""
        self.loser = function
        return function


class Unstorable(NamedTuple):
    """A record that the store outside will never take."""

    partition: int
    offset: int
    error: str


@dataclass(eq=False)
class BatchStage(Declared):
    """A stage whose whole work is to put records into a store outside Kafka, many at a time, exactly once in effect.

    `recover(committed)` finds out what the store has (committed: next offset of each partition owned); it comes before the
    first `write` of an assignment and after every error of one. `write([(partition, offset, value), ...])` returns what can
    never be stored, for the dead letters. A write that raises is tried again after `recover`, for ever. One that takes longer
    than `store_s` hangs, and the worker is started again (topics/stall.py); ClickHouse's client waits 120 s for an answer.
    `packed`: a value may be bytes, what `Codec.body` gives; a store that takes whole columns reads them faster than we make dictionaries.
    """

    packed: bool = False
    flush_s: float = 0.5
    flush_records: int = 20_000
    store_s: float = 300.0
    recoverer: Callable[[dict[int, int], Any], Awaitable[None]] | None = None
    writer: Callable[[list[tuple[int, int, Any]], Any], Awaitable[Sequence[Unstorable]]] | None = None

    def recover(self, function: F) -> F:
        """`await recover(committed, services)`."""
        self.recoverer = function
        return function

    def write(self, function: F) -> F:
        """`await write(rows, services) -> unstorable`."""
        self.writer = function
        return function
