"""Planner: what a load needs, from figures that benchmarks measured (figures.toml) and formulas that are shown."""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any

from postroad.settings import Settings
from postroad.shaping.warmup import DAYS as DAYS  # of the warm-up plan

DAY_S = 86_400
MONTH_DAYS = 30.44
PER_DAY_MAX = 100_000_000_000
RETENTION_MAX = 3650  # days
# These share what the road takes beside send, in equal parts: nobody has measured them one by one.
EVEN = ("ingest", "validate", "score", "suppress", "route", "classify", "schedule", "audit")
_COUNTS = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9, "G": 10**9}
_SIZES = {"": 1, "k": 1024, "K": 1024, "M": 1024**2}
_SPANS = {"s": 1, "sec": 1, "min": 60, "h": 3600, "hour": 3600, "day": DAY_S, "d": DAY_S}
_RETENTIONS = {"h": 1 / 24, "d": 1.0, "w": 7.0}
_NUMBER = r"([0-9]{1,15}(?:\.[0-9]{1,6})?)"


class PlanError(ValueError):
    """The load cannot be planned for; the text says why and what to write."""


@dataclass(frozen=True, slots=True)
class Figure:
    """`basis`: measured, design or assumed; `date`, `machine` and `command` are those of what was measured."""

    value: float
    unit: str
    basis: str
    note: str
    date: str = ""
    machine: str = ""
    command: str = ""


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked: messages a day, messages a second at the peak, bytes of a mail, days of events in ClickHouse."""

    per_day: float
    peak: float
    size: float
    retention: float


@dataclass(frozen=True, slots=True)
class Limit:
    """A part of the plan: what it can do and what it has to, at the peak, in the same unit. `headroom`: their quotient."""

    name: str
    can: float
    must: float
    unit: str

    @property
    def headroom(self) -> float:
        return self.can / self.must


@dataclass(frozen=True, slots=True)
class Plan:
    """What the load needs. Bytes are with all copies; `cells`: installations beside each other, each with its own partitions;
    `limits`: the one that bites first is the first."""

    load: Load
    cells: int
    partitions: int
    workers: dict[str, int]
    doors: int
    memory: float
    brokers: int
    kafka_bytes: float
    rocksdb_bytes: float
    clickhouse_shards: int
    clickhouse_servers: int
    clickhouse_bytes: float
    sources: int
    warm_up_days: int
    smtp_bytes_month: float
    kafka_bytes_month: float
    limits: tuple[Limit, ...]


# Name, formula with the names of figures.toml, of the load and of what stands above it.
FORMULAS = (
    ("workers of send", "peak x send_cpu / 1000 / utilisation, at least replicas_min"),
    ("workers of " + ", ".join(EVEN), "peak x (road_cpu - send_cpu_fast) / 8 / 1000 / utilisation, each (assumed: equal parts)"),
    ("workers of events_sink", "peak x events x sink_cpu / 1000 / utilisation"),
    ("workers of notify", "peak x webhooks / webhook_rate / utilisation"),
    ("workers of reputation", "replicas_min (its topic has one partition)"),
    ("doors (REST)", "peak x rest_cpu / 1000 / utilisation, at least replicas_min"),
    ("partitions", "the next power of two from growth x the largest stage's workers / cells, at least 4, at most partitions_max"),
    ("cells", "growth x the largest stage's workers / partitions_max"),
    ("bytes of a message in Kafka", "size + hops x (hop_bytes + size where it is at most content_inline_max) + events x event_bytes"),
    ("disk of Kafka", "per_day x replication x (bytes of mail x mail_retention + bytes of events x events_retention)"),
    ("brokers", "the most of 3, replication, disk / (broker_disk x disk_use), peak x broker_cpu x replication / 1000 / "
     "(broker_cores x utilisation), peak x bytes x replication / broker_write / utilisation"),
    ("disk of RocksDB", "per_day x table_days x table_bytes"),
    ("disk of ClickHouse", "per_day x events x event_stored x retention x clickhouse_copies"),
    ("ClickHouse shards", "the most of peak x events / (sink_rate x utilisation) and disk / copies / (clickhouse_disk x disk_use)"),
    ("egress sources", "the most of 2, peak x site_share / (site_rate x rate_use) and per_day x site_share / source_day"),
    ("warm-up days", "the first day of the plan of postroad/shaping/warmup.py on which the sources may send per_day x site_share"),
    ("network a month, SMTP", "per_day x 30.44 x attempts x (size + smtp_overhead)"),
    ("network a month, Kafka", "per_day x 30.44 x bytes of a message in Kafka x (replication + 1)"),
)  # fmt: skip


@cache
def figures() -> dict[str, Figure]:
    """The table beside this module."""
    text = (files("postroad.planner") / "figures.toml").read_text("utf-8")
    return {name: Figure(**{**row, "date": str(row.get("date", ""))}) for name, row in tomllib.loads(text).items()}


def load(per_day: str, peak: str, size: str, retention: str) -> Load:
    """What was written, in our units. Raises PlanError."""
    daily = _scaled("--per-day", per_day, _COUNTS, "10k, 10M or 20B")
    if not 1 <= daily <= PER_DAY_MAX:
        raise PlanError(f"--per-day {per_day}: from 1 to {PER_DAY_MAX:,} messages a day can be planned for")
    mean = daily / DAY_S
    rate = _rate(peak) if peak else mean * figures()["peak_factor"].value
    if rate < mean * 0.999:
        raise PlanError(f"--peak {peak} is less than the mean of --per-day {per_day}: at least {mean:,.1f}/s")
    if rate > daily:
        raise PlanError(f"--peak {peak}: a whole day's mail in less than a second; is the unit right (/s, /min, /h)?")
    octets = _scaled("--size", size, _SIZES, "500, 2k or 1.5M bytes", "i?B?")
    size_max = Settings.model_fields["size_max"].default
    if not 1 <= octets <= size_max:
        raise PlanError(f"--size {size}: a mail has 1 to {size_max:,} bytes (setting size_max)")
    if not (match := re.fullmatch(_NUMBER + "([hdw])", retention)):
        raise PlanError(f"--retention {retention}: write 12h, 30d or 8w")
    days = float(match[1]) * _RETENTIONS[match[2]]
    if not 1 / 24 <= days <= RETENTION_MAX:
        raise PlanError(f"--retention {retention}: from 1h to {RETENTION_MAX}d")
    return Load(daily, rate, octets, days)


def plan(asked: Load) -> Plan:
    """The formulas of FORMULAS, in their order."""
    f = {name: figure.value for name, figure in figures().items()}
    core = 1000 * f["utilisation"]  # ms of CPU a second
    rest = (f["road_cpu"] - f["send_cpu_fast"]) / len(EVEN)
    least = int(f["replicas_min"])

    def replicas(need: float) -> int:
        return max(least, math.ceil(need))

    workers = {stage: replicas(asked.peak * rest / core) for stage in EVEN}
    workers["send"] = replicas(asked.peak * f["send_cpu"] / core)
    workers["events_sink"] = replicas(asked.peak * f["events"] * f["sink_cpu"] / core)
    workers["notify"] = replicas(asked.peak * f["webhooks"] / f["webhook_rate"] / f["utilisation"])
    workers["reputation"] = least
    doors = replicas(asked.peak * f["rest_cpu"] / core)
    most = max(workers.values())
    cells = math.ceil(f["growth"] * most / f["partitions_max"])
    partitions = max(4, 1 << (math.ceil(f["growth"] * most / cells) - 1).bit_length())

    inline = asked.size if asked.size <= Settings.model_fields["content_inline_max"].default else 0
    mail = asked.size + f["hops"] * (f["hop_bytes"] + inline)
    events = f["events"] * f["event_bytes"]
    stored = asked.per_day * f["replication"] * (mail * f["mail_retention"] + events * f["events_retention"])
    broker_bytes = f["broker_disk"] * f["disk_use"]
    broker_ms = f["broker_cores"] * core
    kafka_ms = asked.peak * f["broker_cpu"] * f["replication"]
    written, broker_written = asked.peak * (mail + events) * f["replication"], f["broker_write"] * f["utilisation"]
    needed = max(stored / broker_bytes, kafka_ms / broker_ms, written / broker_written)
    brokers = max(3, int(f["replication"]), math.ceil(needed))

    peak_events, shard_rate = asked.peak * f["events"], f["sink_rate"] * f["utilisation"]
    rows = asked.per_day * f["events"] * f["event_stored"] * asked.retention
    shard_bytes = f["clickhouse_disk"] * f["disk_use"]
    shards = max(1, math.ceil(max(peak_events / shard_rate, rows / shard_bytes)))

    largest, to_largest = asked.peak * f["site_share"], asked.per_day * f["site_share"]
    source_rate = f["site_rate"] * f["rate_use"]
    sources = max(2, math.ceil(largest / source_rate), math.ceil(to_largest / f["source_day"]))
    days = next((number for number, each in enumerate(DAYS, 1) if sources * each >= to_largest), len(DAYS) + 1)

    limits = (
        Limit("CPU of send workers", workers["send"] * core / f["send_cpu"], asked.peak, "messages/s"),
        Limit("partitions (for life)", cells * partitions, most, "workers of the largest stage"),
        Limit("CPU of brokers", brokers * broker_ms, kafka_ms, "ms of CPU a second"),
        Limit("disk of brokers", brokers * broker_bytes, stored, "bytes"),
        Limit("writes of brokers", brokers * broker_written, written, "bytes/s"),
        Limit("inserts of ClickHouse", shards * shard_rate, peak_events, "events/s"),
        Limit("disk of ClickHouse", shards * shard_bytes, rows, "bytes a copy"),
        Limit("rate of egress sources at the largest site", sources * source_rate, largest, "messages/s"),
        Limit("day of egress sources at the largest site", sources * f["source_day"], to_largest, "messages a day"),
    )
    return Plan(
        load=asked, cells=cells, partitions=partitions, workers=workers, doors=doors,
        memory=(sum(workers.values()) + doors) * f["worker_memory"] * 1e6,
        brokers=brokers, kafka_bytes=stored, rocksdb_bytes=asked.per_day * f["table_days"] * f["table_bytes"],
        clickhouse_shards=shards, clickhouse_servers=shards * int(f["clickhouse_copies"]),
        clickhouse_bytes=rows * f["clickhouse_copies"], sources=sources, warm_up_days=days,
        smtp_bytes_month=asked.per_day * MONTH_DAYS * f["attempts"] * (asked.size + f["smtp_overhead"]),
        kafka_bytes_month=asked.per_day * MONTH_DAYS * (mail + events) * (f["replication"] + 1),
        limits=tuple(sorted(limits, key=lambda limit: limit.headroom)),
    )  # fmt: skip


def _scaled(option: str, text: str, units: dict[str, int], example: str, after: str = "") -> float:
    match = re.fullmatch(f"{_NUMBER}([{''.join(units)}]?){after}", text)
    if not match:
        raise PlanError(f"{option} {text}: write a positive number such as {example}")
    return float(Decimal(match[1]) * units[match[2]])


def _rate(text: str) -> float:
    amount, slash, span = text.partition("/")
    if not slash or span not in _SPANS:
        raise PlanError(f"--peak {text}: write a rate such as 500/s, 100k/min or 2M/h")
    return _scaled("--peak", amount, _COUNTS, "100k/min") / _SPANS[span]


def table() -> list[dict[str, Any]]:
    """The figures as rows, for people and JSON."""
    return [
        {"name": name, "value": figure.value, "unit": figure.unit, "basis": figure.basis, "date": figure.date,
         "machine": figure.machine, "command": figure.command, "note": figure.note}
        for name, figure in figures().items()
    ]  # fmt: skip
