"""Producers without any code of ours, in Java and in Python, are understood."""

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from avro import FOLDER
from deploy.local.kafka import Kafka
from topics.catalogue import SUBMISSIONS
from topics.codec import Codec

HERE = Path(__file__).parent
JAVA = HERE / "java"
MAIL = ["acme", "ann@acme.example", "bob@site.example", "Žluťoučký kůň 🐎"]  # tenant, from, to, subject
SCHEMA = str(FOLDER / "Submission.avsc")

pytestmark = pytest.mark.skipif(not (shutil.which("mvn") and shutil.which("java")), reason="needs Maven and Java")


@pytest.fixture(scope="module")
def kafka(tmp_path_factory):
    with Kafka(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


def java_producer():
    """Its command. Built once; again when a source is newer."""
    built, target = JAVA / "target" / "built", JAVA / "target"
    sources = [JAVA / "pom.xml", *JAVA.glob("src/**/*.java")]
    if not built.exists() or built.stat().st_mtime < max(source.stat().st_mtime for source in sources):
        maven = ["mvn", "-q", "-B", "package", "dependency:copy-dependencies", "-DincludeScope=runtime"]
        subprocess.run(maven, cwd=JAVA, check=True)
        built.touch()
    return ["java", "-cp", f"{target / 'classes'}:{target / 'dependency'}/*", "Producer"]


def python_producer():
    return [sys.executable, str(HERE / "python_producer.py")]


@pytest.mark.parametrize(("language", "producer"), [("Java", java_producer), ("Python", python_producer)])
async def test_a_producer_without_our_code(kafka, language, producer):
    topic = f"{language}.{SUBMISSIONS.name}"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 4, 1)])
    await admin.close()

    command = [*producer(), SCHEMA, kafka.bootstrap, topic, *MAIL]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    partition, offset = map(int, done.stdout.strip().split("@"))

    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap)
    await consumer.start()
    try:
        place = TopicPartition(topic, partition)
        consumer.assign([place])
        consumer.seek(place, offset)
        record = await consumer.getone()
    finally:
        await consumer.stop()

    submission = Codec("Submission").decode(record.value)
    assert record.key == b"acme"
    assert submission.pop("submission_id").startswith(f"{language.lower()}-")
    assert submission == {
        "tenant": "acme",
        "stream": "transactional",
        "sender": {"address": "ann@acme.example", "name": ""},
        "reply_to": [],
        "recipients": [{"address": "bob@site.example", "name": "", "kind": "to", "variables": {}}],
        "subject": MAIL[3],
        "text": f"Grüße aus {language}.\n",
        "html": None,
        "raw": None,
        "raw_blob": None,
        "test": False,
        "headers": [],
        "attachments": [],
        "tags": [],
        "metadata": {},
        "send_at": None,
        "expires_at": None,
        "dedupe_id": None,
        "dedupe_policy": "reject",
        "egress_pool": None,
    }
