"""Declarations of stages that cannot work are refused where they are written."""

import pytest

from agents.application import build
from loadtest.engine.stages import COUNTS, SOURCE, TARGET
from topics.catalogue import DEAD_LETTERS, Output, Topic
from topics.installation import Installation
from topics.stage import EffectStage, Stage, outputs_of
from topics.state import Table

OTHER = Topic("bench.other", SOURCE.schema, SOURCE.key, partitions=3)


def declare(**changes):
    return Stage(**{"name": "s", "reads": [SOURCE], "writes": [TARGET], **changes})


def test_two_tables_with_one_number():
    with pytest.raises(ValueError, match="two tables have the same number"):
        declare(tables=[COUNTS, Table(COUNTS.number, "other", bytes, bytes)])


def test_reads_nothing():
    with pytest.raises(ValueError, match="reads nothing"):
        declare(reads=[])


def test_handler_of_a_topic_that_it_does_not_read_or_of_one_twice():
    stage = declare()
    with pytest.raises(ValueError, match="not in reads"):
        stage.on(TARGET)(print)
    stage.on(SOURCE)(print)
    with pytest.raises(ValueError, match="has its handler already"):
        stage.on(SOURCE)(print)


def test_output_to_an_undeclared_topic():
    stage = declare()
    with pytest.raises(ValueError, match=r"s sent to bench\.other, which it does not name in writes"):
        stage.check(Output(OTHER, b"k", None))
    assert stage.check(Output(TARGET, b"k", None))
    assert DEAD_LETTERS in stage.writes, "every stage may write dead letters"


def test_every_topic_once():
    assert declare(follows=[TARGET, OTHER]).topics() == [SOURCE, TARGET, DEAD_LETTERS, OTHER]


@pytest.mark.parametrize(
    ("stage", "error"),
    [
        (lambda: declare(), "has no handler for bench.source"),
        (lambda: declare(reads=[SOURCE, OTHER]), "must have the same number of partitions"),
        (lambda: EffectStage("s", [SOURCE], [TARGET]), "needs perform and settle"),
    ],
)
def test_what_only_the_runner_can_see(stage, error, tmp_path):
    with pytest.raises(ValueError, match=error):
        build(stage(), Installation("127.0.0.1:1", data_dir=tmp_path))


def test_a_tick_needs_a_table(tmp_path):
    stage = declare()
    stage.on(SOURCE)(lambda event, state: None)
    stage.every(1)(lambda state: None)
    with pytest.raises(ValueError, match="so the stage needs a table"):
        build(stage, Installation("127.0.0.1:1", data_dir=tmp_path))


def test_what_a_handler_may_return():
    output = Output(TARGET, b"k", None)
    assert list(outputs_of(None)) == []
    assert list(outputs_of(output)) == [output]
    assert list(outputs_of(o for o in (output, output))) == [output, output]
