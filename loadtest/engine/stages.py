"""Two stages on the 522-byte record of the benchmarks: a pure one (count per actor, pass on) and an effect one.

Run as a worker: `python -m loadtest.engine.stages pure|effect` with the environment BOOTSTRAP, DATA, and for tests
TOPIC_PREFIX, INSTANCE, SESSION_S, REPLICATION, EFFECT (none, sleep:SECONDS, or tcp:PORT of a receiver), LIMIT, KEY_LIMIT.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from topics.catalogue import DEAD_LETTERS, Output, Topic
from topics.installation import Installation
from topics.stage import EffectStage, Stage
from topics.state import Table, View

PARTITIONS = 8
SCHEMA = {"type": "record", "name": "BenchmarkRecord", "fields": [
    {"name": "event_id", "type": "string"}, {"name": "tenant", "type": "string"}, {"name": "actor", "type": "string"},
    {"name": "kind", "type": "string"}, {"name": "ts", "type": "long"}, {"name": "seq", "type": "long"},
    {"name": "score", "type": "double"}, {"name": "flagged", "type": "boolean"},
    {"name": "trace", "type": ["null", "string"], "default": None},
    {"name": "tags", "type": {"type": "array", "items": "string"}},
    {"name": "attrs", "type": {"type": "map", "values": "string"}}, {"name": "body", "type": "bytes"}]}  # fmt: skip

SOURCE: Topic[Any] = Topic("bench.source", SCHEMA, lambda event: event["actor"])
TARGET: Topic[Any] = Topic("bench.target", SCHEMA, lambda event: event["actor"])
TOPICS = (SOURCE, TARGET, DEAD_LETTERS)


def record(number: int, actors: int = 1000, kind: str = "message.posted") -> dict[str, Any]:
    """The record with this number: 522 bytes as Avro."""
    return {
        "event_id": f"evt-{number:032d}", "tenant": f"tenant-{number % 50:04d}", "actor": f"user-{number % actors:06d}",
        "kind": kind, "ts": 1_700_000_000_000 + number, "seq": number, "score": 0.25, "flagged": False,
        "trace": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tags": ["alpha", "beta", "gamma"],
        "attrs": {"source": "gateway-7", "region": "eu-west-1", "client": "ios/17.2"}, "body": b"x" * 300,
    }  # fmt: skip


COUNTS: Table[int] = Table(1, "counts", lambda n: b"%d" % n, int)
pure = Stage("bench-pure", reads=[SOURCE], writes=[TARGET], tables=[COUNTS])


@pure.on(SOURCE)
def count(event: dict[str, Any], state: View) -> Output:
    """One more of this actor, and on."""
    if event["kind"] == "poison":
        raise ValueError("poison")
    state.counts.put(event["actor"], (state.counts.get(event["actor"]) or 0) + 1)
    event["score"] = 0.5
    return TARGET.send(event)


class Done(NamedTuple):
    """What an effect came to."""

    possible_duplicate: bool


DONE: Table[bytes] = Table(1, "done", bytes, bytes)
effect = EffectStage("bench-effect", reads=[SOURCE], writes=[TARGET], tables=[DONE, Table(2, "counts", lambda n: b"%d" % n, int)],
                     limit=int(os.environ.get("LIMIT", "200")), key_limit=int(os.environ.get("KEY_LIMIT", "20")),
                     identity=lambda event: str(event["event_id"]))  # fmt: skip
KIND, _, ARGUMENT = os.environ.get("EFFECT", "none").partition(":")
_idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []


@effect.perform
async def deliver(event: dict[str, Any], state: View, possible_duplicate: bool) -> Done | None:
    """Tell the receiver; None for what was done before, because upstream repeats itself."""
    if state.done.get(event["event_id"]) is not None:
        return None
    if event["kind"] == "poison":
        raise ValueError("poison")
    if KIND == "sleep":
        await asyncio.sleep(float(ARGUMENT))
    elif KIND == "tcp":
        reader, writer = _idle.pop() if _idle else await asyncio.open_connection("127.0.0.1", int(ARGUMENT))
        writer.write(b"%s %d\n" % (event["event_id"].encode(), possible_duplicate))
        await reader.readline()
        _idle.append((reader, writer))
    return Done(possible_duplicate)


@effect.settle
def settle(event: dict[str, Any], done: Done | None, state: View) -> Output | None:
    """Remember the result, count it, pass it on with its flag."""
    if done is None:
        return None
    state.done.put(event["event_id"], b"1" if done.possible_duplicate else b"0")
    state.counts.put(event["actor"], (state.counts.get(event["actor"]) or 0) + 1)
    event["flagged"] = done.possible_duplicate
    return TARGET.send(event)


def installation() -> Installation:
    """As the environment says."""
    return Installation(
        os.environ["BOOTSTRAP"], prefix=os.environ.get("TOPIC_PREFIX", ""), partitions=PARTITIONS, data_dir=Path(os.environ["DATA"]),
        instance_id=os.environ.get("INSTANCE", ""), session_s=float(os.environ.get("SESSION_S", "10")),
        replication_factor=int(os.environ.get("REPLICATION", "1")),
    )  # fmt: skip


def main() -> None:
    """Run one of the stages until SIGTERM; three times a second tell what it has counted."""
    from agents.application import build

    stage = {"pure": pure, "effect": effect}[sys.argv.pop(1)]
    app = build(stage, installation())

    @app.timer(0.3)
    async def tell() -> None:
        line = json.dumps({"pid": os.getpid(), "ready": app.is_ready(), **app.runner.metrics.counts})
        os.write(1, f"\n{line}\n".encode())  # not print: Faust makes a log line of it

    sys.argv[1:] = ["worker", "-l", "warn", "--without-web"]
    app.main()


if __name__ == "__main__":
    main()
