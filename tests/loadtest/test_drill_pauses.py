"""What the scale drill calls a pause."""

import pytest

from loadtest.drills.pauses import Pause, Taken, joined, longest, match, pauses, percentile


def test_a_pause_begins_when_a_mail_waits():
    """Nothing came from 1,200 to 9,000; then a mail waited until 12,000, and the next one was taken at once."""
    taken = [Taken(0, 1000, 1200), Taken(0, 9000, 12_000), Taken(0, 12_500, 12_500)]
    assert pauses(taken) == [Pause(0, 1000, 1200), Pause(0, 9000, 12_000)]


def test_a_mail_that_is_overtaken_waits_too():
    """The one of 2,000 is taken last: from 3,000 to 5,000 it waited and nothing was taken."""
    taken = [Taken(0, 2000, 5000), Taken(0, 2500, 3000)]
    assert pauses(taken) == [Pause(0, 2000, 3000), Pause(0, 3000, 5000)]


def test_partitions_stand_alone():
    taken = [Taken(0, 0, 4000), Taken(1, 0, 100), Taken(1, 100, 200)]
    assert [pause for pause in pauses(taken) if pause.seconds > 1] == [Pause(0, 0, 4000)]


def test_only_the_longest_of_each_partition_in_each_window():
    found = [Pause(0, 1000, 2000), Pause(0, 5000, 9000), Pause(1, 8000, 8500), Pause(2, 20_000, 30_000)]
    assert longest(found, [(900, 1500), (6000, 8200)]) == [0.5, 1.0, 4.0]
    assert longest(found, []) == []


def test_windows_that_overlap_are_one():
    assert joined([(5, 9), (1, 3), (8, 12), (3, 4)]) == [(1, 4), (5, 12)]


def test_the_last_time_before_it_was_taken_counts():
    """Put off once: in front of send at 100 and at 5,000, taken at 5,100; a third record came after."""
    appended = {"a": [(3, 100), (3, 5000), (3, 6000)], "b": [(1, 900)], "c": [(1, 50)]}
    assert match(appended, {"a": 5100, "b": 800, "d": 1}) == [Taken(3, 5000, 5100)]


@pytest.mark.parametrize(("share", "value"), [(0.5, 2), (0.95, 4), (1.0, 4), (0.01, 1)])
def test_percentiles(share, value):
    assert percentile([1, 2, 3, 4], share) == value
    assert percentile([], share) == 0
