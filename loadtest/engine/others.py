"""The hop on engines that the project does not depend on: `others.py quixstreams|bytewax ROUND WARM RECORDS`, by the Python of .local/bench/venv.

Nothing of this repository is imported. Environment: BOOTSTRAP, DATA (a folder), SOURCE, TARGET (topics), SCHEMA (JSON), HEADER (hex, the
bytes before each record). Last line: {"records", "us", "rate"}, as loadtest.engine.hop counts them. Kafka's settings are the engines' own:
both produce with acks=all; quixstreams keeps its table in RocksDB with a changelog, bytewax in SQLite, a snapshot a second.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

from fastavro import parse_schema, schemaless_reader, schemaless_writer

SCHEMA, HEADER = parse_schema(json.loads(os.environ["SCHEMA"])), bytes.fromhex(os.environ["HEADER"])
BOOTSTRAP, DATA = os.environ["BOOTSTRAP"], Path(os.environ["DATA"])
SOURCE, TARGET = os.environ["SOURCE"], os.environ["TARGET"]


def decode(raw: bytes) -> Any:
    """The record, without its header."""
    stream = BytesIO(raw)
    stream.seek(len(HEADER))
    return schemaless_reader(stream, SCHEMA, None)


def encode(event: Any) -> bytes:
    """The same back, with it."""
    stream = BytesIO()
    stream.write(HEADER)
    schemaless_writer(stream, SCHEMA, event)
    return stream.getvalue()


class Meter:
    """Counts records and ends the process when the last one is done."""

    def __init__(self, warm: int, records: int):
        self.warm, self.records, self.seen = warm, records, 0
        self.started = self.used = 0.0

    def one(self) -> None:
        """One more is done."""
        self.seen += 1
        if self.seen == self.warm:
            self.started, self.used = time.monotonic(), sum(os.times()[:2])
        elif self.seen == self.records:
            n, cpu = self.records - self.warm, sum(os.times()[:2]) - self.used
            rate = round(n / (time.monotonic() - self.started))
            os.write(1, f"\n{json.dumps({'records': n, 'us': round(cpu / n * 1e6, 2), 'rate': rate})}\n".encode())
            os._exit(0)


def quixstreams(turn: str, meter: Meter) -> None:
    """One worker with its defaults."""
    from quixstreams import Application

    app = Application(
        BOOTSTRAP,
        consumer_group=f"bench-quixstreams-{turn}",
        auto_offset_reset="earliest",
        state_dir=DATA,
        loglevel="WARNING",
    )
    source = app.topic(SOURCE, key_deserializer="bytes", value_deserializer="bytes")
    target = app.topic(TARGET, key_serializer="bytes", value_serializer="bytes")

    def hop(raw: bytes, state: Any) -> bytes:
        event = decode(raw)
        state.set("n", state.get("n", 0) + 1)  # by the record's key, which is the actor
        event["score"] = 0.5
        meter.one()
        return encode(event)

    app.dataframe(source).apply(hop, stateful=True).to_topic(target)
    app.run()


def bytewax(turn: str, meter: Meter) -> None:
    """One worker, a snapshot a second."""
    import bytewax.operators as op
    from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource
    from bytewax.dataflow import Dataflow
    from bytewax.recovery import RecoveryConfig, init_db_dir
    from bytewax.testing import run_main

    def keyed(message: Any) -> tuple[str, Any]:
        event = decode(message.value)
        return event["actor"], event

    def count(seen: int | None, event: Any) -> tuple[int, Any]:
        event["score"] = 0.5
        return (seen or 0) + 1, event

    def out(item: tuple[str, Any]) -> KafkaSinkMessage[bytes, bytes]:
        meter.one()
        return KafkaSinkMessage(item[0].encode(), encode(item[1]))

    DATA.mkdir(parents=True)
    init_db_dir(DATA, 1)
    flow = Dataflow(f"bench-bytewax-{turn}")
    events = op.map("decode", op.input("in", flow, KafkaSource([BOOTSTRAP], [SOURCE])), keyed)
    records = op.map("encode", op.stateful_map("count", events, count), out)
    op.output("out", records, KafkaSink([BOOTSTRAP], TARGET, add_config={"partitioner": "murmur2_random"}))
    run_main(flow, epoch_interval=timedelta(seconds=1), recovery_config=RecoveryConfig(str(DATA)))


def main() -> None:
    which, turn, warm, records = sys.argv[1:]
    {"quixstreams": quixstreams, "bytewax": bytewax}[which](turn, Meter(int(warm), int(records)))


if __name__ == "__main__":
    main()
