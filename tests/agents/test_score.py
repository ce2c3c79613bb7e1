"""Score: hold, reject, park; equal content is looked at once."""

import pytest
from builders import NOW, RAW, content, events, message, values

from agents.score import stage
from postroad.retry import PUT_OFF_MS
from postroad.scoring import GTUBE
from tables.content_scores import KEPT_MS
from topics.catalogue import EVENTS, SCHEDULED, SCORED, VALIDATED
from topics.testing import Scripted

SPAM = RAW + GTUBE.encode() + b"\r\n"
# an IP-literal link and one whose text shows another host: 3 + 3
FISHY = RAW.replace(b"Subject", b"Content-Type: text/html\r\nSubject") + (
    b'<a href="http://93.184.216.34/x">go</a> <a href="http://evil.test/">https://www.bank.com/</a>\r\n'
)


@pytest.fixture
def score(services):
    return Scripted(stage, services, NOW)


async def test_passes(score):
    outputs = await score.feed(VALIDATED, message())
    assert events(outputs) == [("scored", "")]
    assert values(outputs, SCORED)[0]["score"] == {"value": 0, "rules": [], "model": ""}


async def test_holds_for_an_operator(score):
    outputs = await score.feed(VALIDATED, message(content=content(FISHY)))
    assert events(outputs) == [("scored", ""), ("held", "content")]
    (entry,) = values(outputs, SCHEDULED)
    assert (entry["due_at"], entry["reason"], entry["return_to"]) == (None, "held", "scored")
    assert values(outputs, EVENTS)[1]["rule"] == "ip-literal-link,link-text-other-host"


async def test_rejects(score):
    outputs = await score.feed(VALIDATED, message(content=content(SPAM)))
    assert events(outputs) == [("rejected", "content")]
    assert outputs[0].value["rule"] == "gtube"


async def test_thresholds_are_the_tenants(score, services):
    services.tenants["acme"] |= {"hold_score": 7.0, "reject_score": 2000.0}
    outputs = await score.feed(VALIDATED, message(content=content(FISHY)), message(content=content(SPAM)))
    assert events(outputs) == [("scored", ""), ("scored", ""), ("held", "content")]


async def test_what_an_operator_released_passes(score):
    outputs = await score.feed(VALIDATED, message(content=content(SPAM), released=True))
    assert events(outputs) == [("scored", "")]
    assert values(outputs, SCORED)


async def test_send_at_in_the_future_waits(score):
    outputs = await score.feed(VALIDATED, message(send_at=NOW + 1), message(send_at=NOW), message(send_at=0))
    assert events(outputs) == [("scored", ""), ("scheduled", "send-at"), ("scored", ""), ("scored", "")]
    (entry,) = values(outputs, SCHEDULED)
    assert (entry["due_at"], entry["return_to"]) == (NOW + 1, "scored")
    assert len(values(outputs, SCORED)) == 2


async def test_equal_content_is_read_and_scored_once_a_day(score, services):
    reference = {**content(FISHY), "inline": None, "blob": await services.contents.put_blob(FISHY)}
    services.contents.read = 0
    for _ in range(3):
        outputs = await score.feed(VALIDATED, message(content=reference), message(content=reference, tenant="other"))
        assert ("held", "content") in events(outputs)
    assert services.contents.read == 1
    score.now += KEPT_MS + 60_000
    await score.feed(VALIDATED, message(content=reference))
    assert services.contents.read == 2


@pytest.mark.parametrize("failing", [True, False])
async def test_content_that_cannot_be_read_now(score, services, failing):
    services.contents.failing = failing
    outputs = await score.feed(VALIDATED, message(content={**content(), "inline": None, "blob": f"sha256:{'0' * 64}"}))
    assert events(outputs) == [("scheduled", "content")]
    (entry,) = values(outputs, SCHEDULED)
    assert (entry["due_at"], entry["return_to"]) == (NOW + PUT_OFF_MS, "validated")


@pytest.mark.parametrize(
    "raw", [b"", b"\xff\0" * 1000, b"Content-Type: multipart/mixed; boundary=x\r\n\r\n" + b"--x\r\n" * 5000]
)
async def test_hostile_bytes_have_a_score(score, raw):
    outputs = await score.feed(VALIDATED, message(content=content(raw)))
    assert events(outputs)[0][0] == "scored"
    assert score.dead_letters == []
