"""Ids are the same for the same thing, differ for different things, and sort by time."""

import pytest

from postroad import ids

NOW = 1_764_000_000_123


def test_the_same_mail_has_the_same_id_for_ever() -> None:
    made = ids.message_id(NOW, "shop", "order-1", "3:42", "a@b.example")
    assert made == "06dbd5v8fdqvrj6qrlevmi59dc"  # also the next release must give this: a replay is told by it
    assert ids.accepted_at(made) == NOW


@pytest.mark.parametrize(
    "other",
    [
        (NOW + 1, "shop", "order-1", "3:42", "a@b.example"),
        (NOW, "shop2", "order-1", "3:42", "a@b.example"),
        (NOW, "shop", "order-2", "3:42", "a@b.example"),
        (NOW, "shop", "order-1", "3:43", "a@b.example"),
        (NOW, "shop", "order-1", "3:42", "b@b.example"),
        (NOW, "sho", "porder-1", "3:42", "a@b.example"),  # the parts do not run into each other
        (NOW, "shop", "order-13", ":42", "a@b.example"),
    ],
)
def test_another_mail_has_another_id(other: tuple[int, str, str, str, str]) -> None:
    assert ids.message_id(*other) != ids.message_id(NOW, "shop", "order-1", "3:42", "a@b.example")


def test_ids_sort_by_time() -> None:
    times = [0, 1, 31, 32, 1023, 1024, NOW - 1, NOW, NOW + 1, (1 << 48) - 1]
    made = [ids.message_id(time, "t", "s", "0:0", "r") for time in times]
    assert made == sorted(made)
    assert [ids.accepted_at(one) for one in made] == times
    assert {len(one) for one in made} == {26}


@pytest.mark.parametrize("time", [-1, 1 << 48])
def test_a_time_that_does_not_fit_is_refused(time: int) -> None:
    with pytest.raises(ValueError, match="accepted_at"):
        ids.message_id(time, "t", "s", "0:0", "r")


@pytest.mark.parametrize(
    "rubbish",
    ["", "a" * 25, "0" * 27, "0" * 25 + "1", "W" * 26, "0" * 25 + "\n", "+" + "0" * 25, "0_0" + "0" * 23, "٣" * 26],
)
def test_rubbish_is_no_message_id(rubbish: str) -> None:
    with pytest.raises(ValueError, match="is not a message id"):
        ids.accepted_at(rubbish)


def test_header_id() -> None:
    first, second = (ids.message_id(0, "t", "s", "0:0", recipient) for recipient in "ab")
    assert ids.header_id(first) == ids.header_id(first) != ids.header_id(second)
    assert first not in ids.header_id(first)
