"""Where an installation is and how it names things: what topics, runners and clients need to know of the settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topics.catalogue import ALL, SCHEMAS, Topic
from topics.codec import Codec
from topics.registry import HttpRegistry
from topics.writers import Writers


@dataclass(frozen=True)
class Installation:
    """`bootstrap`: "host:port,..."; `prefix`: in front of every topic and group name; `partitions`: of every keyed topic,
    for life; `data_dir`: where RocksDB keeps the tables, one folder a process; `instance_id`: static membership, unique per
    replica (faust.md 26), empty for none; `stall_s`: a worker that does nothing for so long though there is work ends itself
    (topics/stall.py); `grace_s`: what has begun may end when a worker is told to stop; `road_max`: messages on the road of a
    source that can wait (topics/road.py)."""

    bootstrap: str
    prefix: str = ""
    partitions: int = 4
    replication_factor: int = 1
    registry_url: str = ""
    data_dir: Path = Path(".local/data")
    instance_id: str = ""
    session_s: float = 10.0
    delivery_s: float = 60.0
    stall_s: float = 60.0
    grace_s: float = 30.0
    road_max: int = 500

    def name(self, topic: Topic[Any]) -> str:
        """Full name of a topic here."""
        return self.prefix + topic.name

    def partitions_of(self, topic: Topic[Any]) -> int:
        """Partition count of a topic here."""
        return topic.partitions or self.partitions

    def group(self, stage: str) -> str:
        """Consumer group, and Faust app id, of a stage."""
        return f"{self.prefix}postroad-{stage}"

    def codecs(self, topics: tuple[Topic[Any], ...] = ALL) -> dict[Topic[Any], Codec]:
        """A codec for each topic; with a registry they want `await codec.register(name)` before they write."""
        registry = HttpRegistry(self.registry_url) if self.registry_url else None
        look = Writers(self.bootstrap, self.name(SCHEMAS)).look
        return {topic: Codec(topic.schema, registry, look) for topic in topics}
