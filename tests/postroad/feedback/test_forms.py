"""Each family's form gives its recipients with code and status; what is no bounce never fails anybody."""

import pytest

from postroad.feedback import read
from tests.postroad.feedback import lookalikes, other_languages, other_systems, samples


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


_OTHER = {**other_systems.BOUNCES, **other_languages.BOUNCES}


@pytest.mark.parametrize("name", _OTHER)
def test_bounce_of_another_system(name):
    raw, expected = _OTHER[name]
    found = read(raw)
    assert found.kind == "bounce"
    assert {one.address: (one.reply_code, one.status) for one in found.recipients} == expected


@pytest.mark.parametrize("name", lookalikes.MAIL)
def test_what_looks_like_a_bounce_suppresses_nobody(name):
    assert all(one.judgement.bounce_class != "hard" for one in read(lookalikes.MAIL[name]).recipients)


def test_each_recipient_of_a_transcript_has_its_own_reason():
    found = read(other_systems.BOUNCES["two recipients of one transcript"][0])
    assert [one.judgement.reason for one in found.recipients] == ["user-unknown", "mailbox-full"]
