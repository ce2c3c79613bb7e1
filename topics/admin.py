"""Create the topics of an installation, and check at every start that they are what the catalogue says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, for_code

from topics.catalogue import ALL, Topic
from topics.installation import Installation

TOPIC_ALREADY_EXISTS = 36
UNKNOWN_TOPIC = 3
VISIBLE_SECONDS = 5.0  # a broker may not list for a moment what the controller has created
ANSWER_SECONDS = 30.0  # one of several brokers may be dead, and the client asks any of them
T = TypeVar("T")


class TopicMismatch(RuntimeError):
    """The cluster's topics are not those of the catalogue; the text names every difference and what to do."""


async def ensure(installation: Installation, topics: Iterable[Topic[Any]] = ALL) -> list[str]:
    """Create what is missing, then `check`. Returns the full names of the topics that were created."""
    topics = list(topics)
    created = await _create(installation, [
        NewTopic(installation.name(topic), installation.partitions_of(topic), installation.replication_factor,
                 topic_configs=topic.configuration())
        for topic in topics
    ])  # fmt: skip
    deadline = time.monotonic() + VISIBLE_SECONDS
    while True:
        try:
            await check(installation, topics)
            return created
        except TopicMismatch:
            if not created or time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


async def ensure_changelog(installation: Installation, name: str, partitions: int, config: dict[str, str]) -> None:
    """Create a changelog where it is missing, and return when the cluster lists it. To be done before a worker joins its
    group: a leader that does not see it assigns it to nobody, and the new owners recover nothing."""
    configs = {"cleanup.policy": "compact", **config}
    await _create(installation, [NewTopic(name, partitions, installation.replication_factor, topic_configs=configs)])
    deadline = time.monotonic() + ANSWER_SECONDS
    async with admin_of(installation) as admin:
        while True:
            (found,) = await answer(lambda: admin.describe_topics([name]))
            if not found["error_code"] and len(found["partitions"]) == partitions:
                return
            if time.monotonic() > deadline:
                raise TopicMismatch(f"{name} is not there with {partitions} partitions: {found}")
            await asyncio.sleep(0.1)


async def _create(installation: Installation, wanted: list[NewTopic]) -> list[str]:
    """Full names of those that were not there."""
    created = []
    async with admin_of(installation) as admin:
        for name, code, *text in (await answer(lambda: admin.create_topics(wanted))).topic_errors:
            if code == 0:
                created.append(name)
            elif code != TOPIC_ALREADY_EXISTS:
                raise TopicMismatch(f"cannot create {name}: {for_code(code).__name__} {text}")
    return created


async def check(installation: Installation, topics: Iterable[Topic[Any]] = ALL) -> None:
    """Raises TopicMismatch where a topic is missing, has another number of partitions, or other settings."""
    topics = list(topics)
    wrong: list[str] = []
    async with admin_of(installation) as admin:
        names = [installation.name(topic) for topic in topics]
        described = {found["topic"]: found for found in await answer(lambda: admin.describe_topics(names))}
        for topic, name in zip(topics, names, strict=True):
            found = described.get(name)
            if found is None or found["error_code"] == UNKNOWN_TOPIC:
                wrong.append(f"{name} is missing: run `postroad topics create`")
            elif found["error_code"]:
                wrong.append(f"{name}: {for_code(found['error_code']).__name__}")
            elif (count := len(found["partitions"])) != installation.partitions_of(topic):
                wrong.append(
                    f"{name} has {count} partitions, not {installation.partitions_of(topic)}: the setting `partitions` is for "
                    "life; use another topic_prefix, or the number that the topics were created with"
                )
        if not wrong:
            wrong = await _wrong_settings(admin, dict(zip(names, topics, strict=True)))
    if wrong:
        raise TopicMismatch("\n".join(wrong))


async def _wrong_settings(admin: AIOKafkaAdminClient, topics: dict[str, Topic[Any]]) -> list[str]:
    wrong = []
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in topics]
    replies = await answer(lambda: admin.describe_configs(resources))
    for reply in replies:
        for _, _, _, name, entries in reply.resources:
            have = {entry[0]: entry[1] for entry in entries}
            for key, value in topics[name].configuration().items():
                if have.get(key) != value:
                    wrong.append(f"{name} has {key}={have.get(key)}, not {value}: run `postroad topics apply`")
    return wrong


async def answer(ask: Callable[[], Awaitable[T]]) -> T:
    """What one of the brokers answers: asked again while the one that was asked is away."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        try:
            return await ask()
        except KafkaError as exc:
            if not exc.retriable or time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.5)


class admin_of:
    """An admin client for the time of a `with`."""

    def __init__(self, installation: Installation):
        self.client = AIOKafkaAdminClient(bootstrap_servers=installation.bootstrap)

    async def __aenter__(self) -> AIOKafkaAdminClient:
        await self.client.start()
        return self.client

    async def __aexit__(self, *exc: object) -> None:
        await self.client.close()
