"""Reports into Kafka: what happens while it is away."""

import pytest

from deploy.local.kafka import free_port
from gateway.inbound import Unavailable
from gateway.writer import KafkaWriter
from topics.installation import Installation


async def test_kafka_away_is_said_so_each_time():
    writer = KafkaWriter(Installation(f"127.0.0.1:{free_port()}"))
    report = {"report_id": "r", "received_at": 1, "mail_from": "", "rcpt_to": "x", "content": {"hash": "", "size": 0}}
    for _ in range(2):
        with pytest.raises(Unavailable, match="away"):
            await writer.put(report)
    await writer.stop()
