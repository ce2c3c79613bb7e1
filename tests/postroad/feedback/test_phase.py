"""The command that a reply answers: found in sentences and transcripts, and given to the judge."""

import pytest

from postroad.feedback import dsn, read
from postroad.feedback.phase import phase_of, phases
from tests.postroad.feedback import samples


@pytest.mark.parametrize(
    ("text", "phase"),
    [
        ("host mx.there.test said: 550 no (in reply to RCPT TO command)", "rcpt"),
        ("host mx.there.test said: 550 no (in reply to\n    end of DATA command)", "body"),
        ("550 no (in reply to end of DATA command)", "body"),
        ("550 no (in reply to MAIL FROM command)", "mail"),
        ("SMTP error from remote mail server after RCPT TO:<ann@there.test>:\n  550 no", "rcpt"),
        ("SMTP error from remote mail server after initial connection: 554 no", "connect"),
        ("SMTP error from remote mail server after EHLO out.sender.test: 550 no", "ehlo"),
        ("host mx.there.test refused to talk to me: 554 no", "banner"),
        ("192.0.2.1 does not like recipient.\nRemote host said: 550 no", "rcpt"),
        ("failed during the DATA phase", "body"),
        (">>> MAIL From:<bounce@sender.test>\n<<< 553 no", "mail"),
        (">>> RCPT TO:<ann@there.test>\n<<< 550 no", "rcpt"),
        (">>> MAIL From:<bounce@sender.test>\n<<< 250 ok\n>>> DATA\n<<< 550 spam", "body"),
        (">>> DATA\n<<< 550 5.1.1 <ann@there.test>... User unknown\n550 no\n<<< 503 5.0.0 Need RCPT (recipient)", "rcpt"),
        ("User unknown", ""),
    ],
)  # fmt: skip
def test_phase(text, phase):
    assert phase_of(text) == phase


def test_each_recipient_has_the_command_of_its_own_part():
    text = "<ann@there.test>: 550 no (in reply to RCPT TO command)\n<bob@there.test>: 550 no (in reply to end of DATA command)"
    assert phases(["bob@there.test", "ann@there.test", "eve@there.test"], text) == ["body", "rcpt", ""]


def test_a_list_of_recipients_before_the_transcript_gives_none_the_command_of_another():
    text = "<ann@there.test>\n<bob@there.test>\n\n>>> RCPT To:<ann@there.test>\n<<< 550 no\n"
    assert phases(["ann@there.test", "bob@there.test"], text) == ["rcpt", ""]
    assert phases(["eve@there.test", "joe@there.test"], text) == ["", ""]
    assert phases([], text) == []


@pytest.mark.parametrize(("command", "bounce_class"), [("RCPT TO", "hard"), ("end of DATA", "soft")])
def test_the_judge_knows_the_command_that_only_the_text_tells(command, bounce_class):
    fields = "Final-Recipient: rfc822; ann@there.test\nAction: failed\nStatus: 5.2.1\nDiagnostic-Code: smtp; 550 5.2.1 User unknown\n"
    found = read(
        samples.report(fields, text=f"<ann@there.test>: host said: 550 User unknown (in reply to {command} command)\n")
    )
    assert [one.judgement.bounce_class for one in found.recipients] == [bounce_class]


def test_a_judge_that_fails_leaves_the_report_readable_and_suppresses_nobody(monkeypatch, caplog):
    def broken(*_, **__):
        raise FileNotFoundError("model.json.gz")

    monkeypatch.setattr(dsn, "judge", broken)
    found = read(samples.report("Final-Recipient: rfc822; ann@there.test\nAction: failed\nStatus: 5.1.1\n"))
    assert (found.kind, [one.address for one in found.recipients]) == ("bounce", ["ann@there.test"])
    assert found.recipients[0].judgement == dsn.JUDGE_FAILED
    assert "mend the rules or the model" in caplog.text


def test_a_sender_that_is_refused_is_not_the_recipients_fault():
    raw = samples.mixed(
        "This message was created automatically by mail delivery software.\n\nA message that you sent could not be delivered.\n\n"
        "  ann@there.test\n    SMTP error from remote mail server after MAIL FROM:<bounce@sender.test> SIZE=10:\n"
        "    host mx.there.test [192.0.2.1]: 553 5.1.0 sender.test does not exist\n"
    )
    assert [one.judgement.bounce_class for one in read(raw).recipients] == ["soft"]
