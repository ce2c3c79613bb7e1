"""Topics on a real broker: created once, and every difference from the catalogue named at the start."""

from dataclasses import replace

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from topics.admin import TopicMismatch, check, ensure
from topics.catalogue import ALL, DAY_MS, Topic

LIST = Topic("list", "Tenant", lambda t: t["tenant"], partitions=1, compacted=True)
FLOW = Topic("flow", "Event", lambda e: e["message_id"], retention_ms=2 * DAY_MS)


async def test_ensure_creates_what_is_missing_and_only_that(installation):
    assert await ensure(installation, [LIST]) == [installation.name(LIST)]
    assert await ensure(installation, [LIST, FLOW]) == [installation.name(FLOW)]
    assert await ensure(installation, [LIST, FLOW]) == []
    await check(installation, [LIST, FLOW])


async def test_the_whole_catalogue_can_be_created(installation):
    small = replace(installation, partitions=1)
    assert len(await ensure(small)) == len(ALL)


async def test_missing_topic(installation):
    await ensure(installation, [LIST])
    with pytest.raises(TopicMismatch, match=f"{installation.name(FLOW)} is missing: run `postroad topics create`"):
        await check(installation, [LIST, FLOW])


async def test_wrong_number_of_partitions(installation):
    await ensure(installation, [FLOW])
    with pytest.raises(TopicMismatch, match="has 8 partitions, not 4: the setting `partitions` is for life"):
        await check(replace(installation, partitions=4), [FLOW])
    with pytest.raises(TopicMismatch, match="has 8 partitions, not 4"):
        await ensure(replace(installation, partitions=4), [FLOW])


async def test_wrong_setting(installation):
    await ensure(installation, [LIST, FLOW])
    admin = AIOKafkaAdminClient(bootstrap_servers=installation.bootstrap)
    await admin.start()
    wrong = {**FLOW.configuration(), "retention.ms": "1000"}
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, installation.name(FLOW), configs=wrong)])
    await admin.close()
    with pytest.raises(TopicMismatch, match=rf"{installation.name(FLOW)} has retention.ms=1000, not {2 * DAY_MS}"):
        await check(installation, [LIST, FLOW])


async def test_what_the_cluster_refuses_to_create(installation):
    nonsense = replace(FLOW, name="nonsense", config={"retention.ms": "soon"})
    with pytest.raises(TopicMismatch, match=r"cannot create .*nonsense: InvalidConfig"):
        await ensure(installation, [nonsense])
