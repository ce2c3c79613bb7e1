"""Topics as code, on a real broker: what differs is told, what can be is mended, keys stay where they are."""

from dataclasses import replace

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from topics.admin import check, ensure
from topics.catalogue import DAY_MS, Topic
from topics.plan import FOR_LIFE, Difference, _settings, apply, plan

LIST = Topic("list", "Tenant", lambda t: t["tenant"], partitions=1, compacted=True)
FLOW = Topic("flow", "Event", lambda e: e["message_id"], retention_ms=2 * DAY_MS)
BOTH = [LIST, FLOW]


async def alter(installation, topic, settings):
    admin = AIOKafkaAdminClient(bootstrap_servers=installation.bootstrap)
    await admin.start()
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, installation.name(topic), configs=settings)])
    await admin.close()


async def test_what_is_missing_is_planned_and_made(installation):
    await ensure(installation, [LIST])
    found = await plan(installation, BOTH)
    partitions = installation.partitions_of(FLOW)
    assert found == [Difference(installation.name(FLOW), "topic", "none", f"{partitions} partitions")]
    assert await apply(installation, found, BOTH) == found
    assert await plan(installation, BOTH) == []
    await check(installation, BOTH)


async def test_settings_are_mended_and_those_of_somebody_else_stay(installation):
    await ensure(installation, BOTH)
    await alter(installation, FLOW, {**FLOW.configuration(), "retention.ms": "1000", "segment.ms": "600000"})
    found = await plan(installation, BOTH)
    assert found == [Difference(installation.name(FLOW), "retention.ms", "1000", str(2 * DAY_MS))]
    await apply(installation, found, BOTH)
    assert await plan(installation, BOTH) == []
    admin = AIOKafkaAdminClient(bootstrap_servers=installation.bootstrap)
    await admin.start()
    kept = (await _settings(admin, [installation.name(FLOW)]))[installation.name(FLOW)]
    await admin.close()
    assert kept["segment.ms"][0] == "600000"


async def test_partitions_are_never_changed(installation):
    await ensure(installation, [FLOW])
    name, other = installation.name(FLOW), replace(installation, partitions=installation.partitions_of(FLOW) * 2)
    found = await plan(other, [FLOW])
    assert found == [Difference(name, "partitions", str(other.partitions // 2), str(other.partitions), FOR_LIFE)]
    assert await apply(other, found, [FLOW]) == []
    assert await plan(other, [FLOW]) == found and await plan(installation, [FLOW]) == []
