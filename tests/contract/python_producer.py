"""Sends one mail. Arguments: SCHEMA BOOTSTRAP TOPIC TENANT FROM TO SUBJECT, where SCHEMA is avro/Submission.avsc."""

import asyncio
import sys
import uuid
from io import BytesIO

from aiokafka import AIOKafkaProducer
from fastavro import schemaless_writer
from fastavro.schema import fingerprint, load_schema, to_parsing_canonical_form


async def main(schema_file: str, bootstrap: str, topic: str, tenant: str, sender: str, to: str, subject: str) -> None:
    schema = load_schema(schema_file)
    submission = {
        "tenant": tenant,
        "submission_id": f"python-{uuid.uuid4()}",  # the same again when you send it again
        "sender": {"address": sender},
        "recipients": [{"address": to}],
        "subject": subject,
        "text": "Grüße aus Python.\n",
    }
    value = BytesIO()  # an Avro single object: 0xC3 0x01, fingerprint of the schema, record
    value.write(b"\xc3\x01" + bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO")))
    schemaless_writer(value, schema, submission)

    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
        stored = await producer.send_and_wait(topic, key=tenant.encode(), value=value.getvalue())
    print(f"{stored.partition}@{stored.offset}")


asyncio.run(main(*sys.argv[1:]))
