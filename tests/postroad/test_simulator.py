"""Mail of test keys: what the local part asks for, and nothing else."""

import pytest

from postroad import simulator


def _message(recipient, **more):
    return {"recipient": recipient, "test": True, "attempt": 0, **more}


@pytest.mark.parametrize(
    ("local", "code"),
    [("bounce", 550), ("Bounce+42", 550), ("full", 552), ("block", 554), ("delay", 451), ("complaint", 250), ("ann", 250), ("bouncer", 250), ('"bounce"', 250)],
)  # fmt: skip
def test_the_local_part_says_what_happens(local, code):
    result = simulator.attempt(_message(f"{local}@there.test"))
    assert (result.reply.code, result.delivered, result.mx_host) == (code, code == 250, "")


def test_what_was_delayed_is_delivered_then():
    assert simulator.attempt(_message("delay@there.test", attempt=1)).delivered
    assert not simulator.attempt(_message("bounce@there.test", attempt=1)).delivered
