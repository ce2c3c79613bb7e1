"""Traces as records carry them, and which submissions have one. What makes spans of them is topics/tracing.py, if anything does.

W3C Trace Context (https://www.w3.org/TR/trace-context/), version 00, as Kafka headers: `traceparent`. Only what is traced has one behind
ingest, so that all other records cost a look at their headers. `tracestate` is not carried on.
docs/decisions/0019-tracing.md
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from topics.catalogue import Output
from topics.stage import EffectStage, outputs_of
from topics.state import View

HEADER = "traceparent"
ATTEMPT = "postroad-attempt"  # header: the span id of the last delivery attempt, which the next one links to
PASSED_ON = (
    20  # outputs of one record that carry its trace on: a submission of a thousand recipients is no flood of spans
)
BURST = 10.0  # submissions of a tenant that may be traced in a row, at any rate
TENANTS_MAX = 10_000  # of which it is remembered how many were traced
TEXT_MAX = 200  # characters of an attribute
#: Fields of records that a span tells. They name a message, or who sends; what is in it, and to whom it goes, stays out.
TOLD = ("message_id", "submission_id", "event_id", "tenant", "stream", "kind", "round")
_LENGTH = 55
_FORM = re.compile(rb"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
_SPAN_ID = re.compile(rb"(?!0{16})[0-9a-f]{16}")


class Parent(NamedTuple):
    """What a record says of the span that wrote it. Ids in hex; `attempt`: as the header says, empty for none."""

    trace_id: str
    span_id: str
    sampled: bool
    attempt: str = ""


def parent_of(headers: Iterable[tuple[str, bytes | None]]) -> Parent | None:
    """None where they name none that can be believed: another version, malformed, or more than one."""
    found: bytes | None = None
    attempt = b""
    for name, value in headers:
        if name == HEADER:
            if found is not None:
                return None
            found = value or b""
        elif name == ATTEMPT:
            attempt = value or b""
    if found is None or len(found) != _LENGTH or (match := _FORM.fullmatch(found)) is None:
        return None
    trace_id, span_id, flags = (part.decode() for part in match.groups())
    if len(attempt) != 16 or not _SPAN_ID.fullmatch(attempt):
        attempt = b""
    return Parent(trace_id, span_id, bool(int(flags, 16) & 1), attempt.decode())


class Sampling:
    """Which submissions are traced: of each tenant a share at most, whatever its producers ask for.

    Every submission earns its tenant the tenant's rate, one that is traced costs 1. Those whose producer traces them (the flag `sampled` of
    its traceparent) come first; one whose producer does not is left alone; of those without a traceparent chance takes the rate.
    `rates`: from 0 to 1 by tenant; `default` for those that are not named."""

    def __init__(self, rates: Mapping[str, float], chance: Callable[[], float] = random.random):
        self._rates, self._default, self._chance = dict(rates), rates.get("default", 0.0), chance
        self._credit: dict[str, float] = {}

    def takes(self, tenant: str, parent: Parent | None) -> bool:
        """Whether this submission is traced; counts it."""
        if not (rate := self._rates.get(tenant, self._default)):
            return False
        credit = min(self._credit.get(tenant, 1.0) + rate, BURST)
        wanted = self._chance() < rate if parent is None else parent.sampled
        if takes := wanted and credit >= 1:
            credit -= 1
        if len(self._credit) > TENANTS_MAX:
            self._credit.clear()
        self._credit[tenant] = credit
        return takes


class Span:
    """One record's stay in a stage. Times in ns since 1970; ids in hex. `error`: type of what went wrong, empty for nothing; `phases`: ms in
    each phase of an effect, one after another; `performed_at`: when the effect ended."""

    __slots__ = ("attempt", "attributes", "error", "link", "parent_id", "performed_at", "phases", "record", "span_id", "started_at",
                 "trace_id")  # fmt: skip

    def __init__(self, record: Any, trace_id: str, parent_id: str, attempt: str, started_at: int):
        self.record, self.trace_id, self.parent_id, self.attempt = record, trace_id, parent_id, attempt
        self.span_id = f"{random.getrandbits(64) or 1:016x}"
        self.started_at, self.performed_at = started_at, 0
        self.attributes: dict[str, str | int] = {}
        self.phases: Mapping[str, int] = {}
        self.link = self.error = ""

    @property
    def headers(self) -> tuple[tuple[str, bytes], ...]:
        """What an output carries so that the next stage goes on with the trace."""
        parent = (HEADER, f"00-{self.trace_id}-{self.span_id}-01".encode())
        return (parent, (ATTEMPT, self.attempt.encode())) if self.attempt else (parent,)

    def handle(self, handler: Callable[[Any, View], Any], value: Any, view: View) -> Iterator[Output]:
        """What a handler makes of the record, with the trace."""
        self.about(value)
        return self._passed_on(handler(value, view))

    def settle(self, stage: EffectStage, value: Any, result: Any, view: View) -> Iterator[Output]:
        """What follows from an effect, with the trace. Where it was an attempt, the next one links to it."""
        self.about(value)
        if stage.told is not None:
            attributes, phases = stage.told(result)
            self.attributes.update(attributes)
            if phases is not None:
                self.phases = phases
                if self.attempt != self.span_id:  # not settled before, in a cycle that had no room for it
                    self.link, self.attempt = self.attempt, self.span_id
        assert stage.settler is not None  # the runner has looked
        return self._passed_on(stage.settler(value, result, view))

    def about(self, value: Any) -> None:
        """Tell of the message in `value`; nothing of what is not a record."""
        inner = value.get("message", value) if isinstance(value, dict) else {}
        for name in TOLD:
            if (told := inner.get(name)) is not None:
                self.attributes[f"postroad.{name}"] = told[:TEXT_MAX] if isinstance(told, str) else told

    def fail(self, error: BaseException) -> None:
        """It goes to the dead letters. The text stays there: it may quote the mail."""
        self.error = type(error).__name__

    def _passed_on(self, result: Any) -> Iterator[Output]:
        headers, left = self.headers, PASSED_ON
        for output in outputs_of(result):
            if left and output.value is not None:
                left -= 1
                yield output._replace(headers=(*output.headers, *headers))
            else:
                yield output


class Tracer(Protocol):
    """What a runner needs of topics/tracing.py, for one stage."""

    def begin(self, record: Any) -> Span | None:
        """Of a record that is traced."""

    def end(self, spans: Iterable[Span]) -> None:
        """What came of them is written: they end now."""
