"""A test key's mail on the stages that know of it: nothing leaves, nothing is counted, every end has its event."""

import pytest
from builders import NOW, attempt, routed, values

from agents import classify, send
from topics.catalogue import ATTEMPTS, EVENTS, OUTBOUND, SUPPRESSIONS
from topics.testing import Scripted


@pytest.mark.parametrize(
    ("local", "code", "kinds"), [("bounce", 550, []), ("ann", 250, []), ("complaint", 250, ["complained"])]
)
async def test_no_mx_is_asked(services, local, code, kinds):
    stage = Scripted(send.stage, services, NOW)
    outputs = await stage.feed(OUTBOUND, routed(recipient=f"{local}@there.test", test=True))
    (made,) = values(outputs, ATTEMPTS)
    assert (made["reply_code"], made["mx_host"], made["source"]) == (code, "", "")
    assert [event["kind"] for event in values(outputs, EVENTS)] == kinds and not stage.dead_letters


@pytest.mark.parametrize("test", [True, False])
async def test_a_simulated_bounce_suppresses_nobody(services, test):
    stage = Scripted(classify.stage, services, NOW)
    told = attempt(
        550, "no such user", "5.1.1", "rcpt", message=routed(test=test), mx_host="" if test else "mx1.there.test"
    )
    outputs = await stage.feed(ATTEMPTS, told)
    assert [event["kind"] for event in values(outputs, EVENTS)] == ["bounced"]
    assert len(values(outputs, SUPPRESSIONS)) == (not test)
