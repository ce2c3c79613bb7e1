"""Topics as code: what the cluster's topics differ in from the catalogue, and the mending of what can be mended in place.

Created and altered: topics that are missing, and their settings (retention, cleanup, largest record). Never touched: the number of
partitions, for every topic has keys (a record's partition follows from its key, and the tables of a stage from its partitions), and copies.
Settings that somebody has put beside ours stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code

from topics.admin import UNKNOWN_TOPIC, TopicMismatch, admin_of, answer, ensure
from topics.catalogue import ALL, Topic
from topics.installation import Installation

OF_THE_TOPIC = 1  # KIP-226: where a setting comes from
FOR_LIFE = "partitions are for life: records stay with their keys. Use another topic_prefix, or set partitions to what is there"
COPIES = "move it with kafka-reassign-partitions"


class Difference(NamedTuple):
    """`topic`: its full name; `what`: "topic", "partitions", "copies" or a setting; `have`, `want`: as Kafka writes them. `advice`: what to
    do where `apply` does not; empty where it does."""

    topic: str
    what: str
    have: str
    want: str
    advice: str = ""


async def plan(installation: Installation, topics: Iterable[Topic[Any]] = ALL) -> list[Difference]:
    """All differences, by topic. Raises TopicMismatch where the cluster does not say what it has."""
    wanted = {installation.name(topic): topic for topic in topics}
    found: list[Difference] = []
    async with admin_of(installation) as admin:
        described = {one["topic"]: one for one in await answer(lambda: admin.describe_topics(list(wanted)))}
        there = []
        for name, topic in wanted.items():
            code, partitions = described[name]["error_code"], described[name]["partitions"]
            if code == UNKNOWN_TOPIC:
                found.append(Difference(name, "topic", "none", f"{installation.partitions_of(topic)} partitions"))
                continue
            if code:
                raise TopicMismatch(f"{name}: {for_code(code).__name__}")
            there.append(name)
            if (have := len(partitions)) != (want := installation.partitions_of(topic)):
                found.append(Difference(name, "partitions", str(have), str(want), FOR_LIFE))
            copies = min(len(one["replicas"]) for one in partitions)
            if copies != installation.replication_factor:
                found.append(Difference(name, "copies", str(copies), str(installation.replication_factor), COPIES))
        for name, settings in (await _settings(admin, there)).items():
            found += [
                Difference(name, key, str(settings.get(key, ("none", 0))[0]), value)
                for key, value in wanted[name].configuration().items()
                if settings.get(key, ("none", 0))[0] != value
            ]
    return sorted(found)


async def apply(
    installation: Installation, differences: Sequence[Difference], topics: Iterable[Topic[Any]] = ALL
) -> list[Difference]:
    """Mend what can be mended; returns what was. Raises TopicMismatch where the cluster refuses it."""
    todo = [one for one in differences if not one.advice]
    new = {one.topic for one in todo if one.what == "topic"}
    if new:
        await ensure(installation, [topic for topic in topics if installation.name(topic) in new])
    changed = {
        name: {one.what: one.want for one in todo if one.topic == name} for name in {one.topic for one in todo} - new
    }
    if changed:
        async with admin_of(installation) as admin:
            resources = []
            for name, settings in (await _settings(admin, list(changed))).items():
                own = {key: value for key, (value, source) in settings.items() if source == OF_THE_TOPIC}
                # what is not named would go back to the broker's default
                resources.append(ConfigResource(ConfigResourceType.TOPIC, name, configs={**own, **changed[name]}))
            for reply in await answer(lambda: admin.alter_configs(resources)):
                for code, text, _, name in reply.resources:
                    if code:
                        raise TopicMismatch(f"cannot change {name}: {for_code(code).__name__} {text or ''}")
    return todo


async def _settings(admin: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, dict[str, tuple[str, int]]]:
    """By topic and name: value, and where it comes from."""
    if not names:
        return {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    found = {}
    for reply in await answer(lambda: admin.describe_configs(resources)):
        for code, text, _, name, entries in reply.resources:
            if code:
                raise TopicMismatch(f"{name}: {for_code(code).__name__} {text or ''}")
            found[name] = {entry[0]: (entry[1], entry[3]) for entry in entries}
    return found
