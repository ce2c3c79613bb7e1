"""Each family's form gives its recipients with code and status; what is no bounce never fails anybody."""

import pytest

from postroad.feedback import read
from tests.postroad.feedback import samples


@pytest.mark.parametrize("name", samples.BOUNCES)
def test_bounce(name):
    raw, expected = samples.BOUNCES[name]
    found = read(raw)
    assert found.kind == "bounce"
    assert {one.address: (one.reply_code, one.status) for one in found.recipients} == expected
    assert {one.action for one in found.recipients} == {"failed"}


@pytest.mark.parametrize("name", samples.BOUNCES)
def test_bounce_with_CRLF_and_a_line_of_an_mbox(name):
    raw, expected = samples.BOUNCES[name]
    found = read(b"From MAILER-DAEMON Mon Nov  2 10:00:00 2026\r\n" + raw.replace(b"\n", b"\r\n"))
    assert {one.address for one in found.recipients} == set(expected)


@pytest.mark.parametrize("name", samples.DELAYS)
def test_delay(name):
    found = read(samples.DELAYS[name])
    assert found.kind == "delay"
    assert [(one.address, one.action) for one in found.recipients] == [("ann@there.test", "delayed")]
    assert all(one.judgement.bounce_class != "hard" for one in found.recipients)


@pytest.mark.parametrize("name", samples.VACATIONS)
def test_vacation(name):
    found = read(samples.VACATIONS[name])
    assert (found.kind, found.recipients) == ("vacation", ())


@pytest.mark.parametrize("name", samples.OTHERS)
def test_other(name):
    found = read(samples.OTHERS[name])
    assert found.kind == "other"
    assert all(one.judgement.bounce_class != "hard" for one in found.recipients)
