"""A mail's trace as a collector gets it: from the producer's traceparent through every stage of a real worker to the row in ClickHouse."""

from __future__ import annotations

import secrets
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from loadtest.collector import Collector, Told
from topics.catalogue import DEAD_LETTERS, SUBMISSIONS
from topics.trace import HEADER

if TYPE_CHECKING:
    from conftest import Road

pytestmark = pytest.mark.timeout(120)
STAGES = ("ingest", "validate", "score", "suppress", "route", "send", "classify")


async def submit(road: Road, recipient: str, *headers: tuple[str, bytes], tenant: str = "acme") -> str:
    """A mail in a record with these headers; its submission id."""
    id = secrets.token_hex(8)
    submission = {
        "tenant": tenant, "submission_id": id, "sender": {"address": f"news@{tenant}.test"}, "recipients": [{"address": recipient}],
        "subject": "Salary of Ann", "text": "Hello.\n",
    }  # fmt: skip
    await road.client.send(SUBMISSIONS.send(submission, headers=headers))  # type: ignore[typeddict-item]  # the defaults are left out
    return id


async def test_one_whole_trace_and_a_road_that_needs_no_collector(road: Road) -> None:
    grey_trace, grey_parent, tls_trace = secrets.token_hex(16), secrets.token_hex(8), secrets.token_hex(16)
    with Collector() as collector:
        await road.start(
            POSTROAD_TRACING_ENDPOINT=collector.url, POSTROAD_TRACE_SAMPLE='{"acme": 1}', POSTROAD_GREYLIST_S="1"
        )
        grey = await submit(road, "traced@greylist.test", (HEADER, f"00-{grey_trace}-{grey_parent}-01".encode()))
        tls = await submit(road, "traced@starttls.test", (HEADER, f"00-{tls_trace}-{grey_parent}-01".encode()))
        hostile = [
            await submit(road, f"hostile{n}@accept.test", *((HEADER, value) for value in values))
            for n, values in enumerate([
                [b"0" * (1 << 20)], [b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01"], [f"ff-{grey_trace}-{grey_parent}-01".encode()],
                [f"00-{grey_trace}-{grey_parent}-01".encode()] * 2, [f"00-{grey_trace.upper()}-{grey_parent}-01".encode()],
            ])
        ]  # fmt: skip
        asked_not_to = await submit(road, "silent@accept.test", (HEADER, f"00-{'1' * 32}-{grey_parent}-00".encode()))
        for id in (grey, tls, *hostile, asked_not_to):
            assert (await road.kinds(id, "delivered"))[-1] == "delivered"
        assert [record async for record in road.client.read(DEAD_LETTERS)] == []
        rows = {(event["k_partition"], event["k_offset"]) for event in road.events(grey)}

        def of(trace: str, stage: str = "") -> list[Told]:
            return [
                s for s in collector.spans if s.trace_id == trace and stage in ("", s.service.removeprefix("postroad-"))
            ]

        def stored() -> set[tuple[int, int]]:
            told = [s.attributes for s in of(grey_trace, "events_sink")]
            return {(int(s["messaging.destination.partition.id"]), s["messaging.kafka.offset"]) for s in told}

        await road.until(lambda: stored() == rows, "the sink has told of each row", 20)
        spans = {span.span_id: span for span in of(grey_trace)}
        assert [s.service for s in spans.values() if s.parent_id not in spans] == ["postroad-ingest"], (
            "all hang on the first"
        )
        assert {s.parent_id for s in spans.values()} - spans.keys() == {grey_parent}
        assert {f"postroad-{stage}" for stage in (*STAGES, "schedule", "events_sink", "audit")} <= {
            s.service for s in spans.values()
        }
        assert {s.attributes["postroad.tenant"] for s in spans.values() if "postroad.tenant" in s.attributes} == {
            "acme"
        }

        attempts = sorted((s for s in spans.values() if s.name.endswith("mail.outbound")), key=lambda s: s.started_at)
        assert [s.attributes["smtp.reply_code"] for s in attempts] == [*[451] * (len(attempts) - 1), 250] and len(
            attempts
        ) >= 2
        assert [s.links for s in attempts] == [(), *((s.span_id,) for s in attempts[:-1])], (
            "each retry has a link to the one before"
        )
        last = next(
            s
            for s in spans.values()
            if s.service == "postroad-events_sink" and s.attributes["postroad.kind"] == "delivered"
        )
        chain, span = [], last
        while span is not None:
            chain.append(span.service.removeprefix("postroad-"))
            span = spans.get(span.parent_id)
        again = ["classify", "send", "route", "suppress", "schedule"] * (len(attempts) - 1)
        assert chain == ["events_sink", *again, "classify", "send", "route", "suppress", "score", "validate", "ingest"]

        (attempt,) = (s for s in of(tls_trace, "send") if s.name.endswith("mail.outbound"))
        phases = [s for s in of(tls_trace, "send") if s.parent_id == attempt.span_id]
        assert [s.name.removeprefix("send ") for s in phases] == [
            "dns", "connect", "banner", "ehlo", "starttls", "mail", "rcpt", "data", "body"]  # fmt: skip
        assert all(before.ended_at == after.started_at for before, after in pairwise(phases))
        assert attempt.started_at <= phases[0].started_at and phases[-1].ended_at <= attempt.ended_at
        assert attempt.attributes["tls.cipher"].startswith("TLSv1.3")

        decided_anew = {s.trace_id for s in collector.spans} - {grey_trace, tls_trace}
        assert len(decided_anew) == len(hostile) and not of("1" * 32), (
            "a malformed one is none; who asks not to be traced is not"
        )
        assert collector.refused == 0 and "Salary" not in repr(collector.spans) and "@" not in repr(collector.spans)

        collector.away = True
        away = [await submit(road, f"away{n}@accept.test") for n in range(3)]
        for id in away:
            assert (await road.kinds(id, "delivered"))[-1] == "delivered"
        await road.until(lambda: "does not take spans" in road.log(), "the log says that the collector is away", 20)
    road.stop()  # in time, with exit status 0
