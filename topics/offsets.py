"""What a group has committed, asked from outside of it."""

from __future__ import annotations

from aiokafka.admin import AIOKafkaAdminClient

from topics.installation import Installation


async def committed(installation: Installation, stage: str) -> dict[int, int]:
    """The next offset that a stage with one source would read, by partition; empty where it has never committed. Raises KafkaError."""
    admin = AIOKafkaAdminClient(bootstrap_servers=installation.bootstrap)
    try:
        await admin.start()
        found = await admin.list_consumer_group_offsets(installation.group(stage))
    finally:
        await admin.close()
    return {tp.partition: at.offset for tp, at in found.items() if at.offset >= 0}
