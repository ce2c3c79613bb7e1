"""One real Kafka for the whole session, started when the first test asks for it; a topic prefix of its own for each test."""

from __future__ import annotations

import itertools
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.kafka import Kafka
from postroad import logs
from postroad.log_masking import Mask
from postroad.log_repeats import Repeats
from topics.installation import Installation

sys.path.insert(0, str(Path(__file__).parent))  # for log_check.py, which fixtures tell what no log may have
import log_check

_numbers = itertools.count(1)


@pytest.fixture(scope="session", autouse=True)
def nothing_of_people_in_any_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fails when, after the last test, a log of any process of the run has an address, a subject, a body or a key in it. What tests
    log in this process is written by a worker's formatter."""
    base = tmp_path_factory.getbasetemp()
    with (base / "pytest.log").open("w") as stream:
        handler = logs.Handler(stream)
        handler.setFormatter(logs.formatter(Mask()))
        handler.addFilter(Repeats())
        logging.root.addHandler(handler)
        yield
        logging.root.removeHandler(handler)
        handler.close()
    # those of the integration tests' own workers: `postroad up` has its children's below logs/, and tests have it start others
    found = log_check.faults(log_check.logs_below(base), log_check.KNOWN, is_json=base.glob("*/worker-*.log"))
    assert not found, "\n".join([f"{len(found)} in logs of this run:", *found[:50]])


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
