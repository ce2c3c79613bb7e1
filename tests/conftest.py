"""One real Kafka for the whole session, started when the first test asks for it; a topic prefix of its own for each test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.kafka import Kafka
from topics.installation import Installation

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A broker of its own (2 s). Tests that kill a broker start another one."""
    broker = Kafka(tmp_path_factory.mktemp("kafka")).start()
    yield broker
    broker.kill()  # a clean shutdown can take 20 s, and nobody reads the data again


@pytest.fixture
def installation(kafka: Kafka, tmp_path: Path) -> Installation:
    """Nothing is created yet: topics by `ensure`. Session time-out 6 s, the broker's least."""
    return Installation(
        kafka.bootstrap, prefix=f"t{next(_numbers)}-", partitions=8, data_dir=tmp_path / "data", session_s=6.0
    )
