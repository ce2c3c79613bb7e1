"""Who is at fault: nothing that may be said of us, of the mail or of another time takes a recipient off for good."""

import pytest

from avro.records import SmtpPhase
from postroad.bounces import judge
from postroad.reply import Reply
from tests.postroad.bounces.blame import NO_SUCH_RECIPIENT, NOT_THE_RECIPIENT

PHASES: tuple[SmtpPhase, ...] = ("rcpt", "body")


def bounce_class(line: str, phase: SmtpPhase) -> str:
    reply = Reply.parse(int(line[:3]), line[4:])
    return judge(reply.code, reply.enhanced, reply.text, phase=phase).bounce_class


@pytest.mark.parametrize("line", NOT_THE_RECIPIENT)
def test_what_may_be_about_anything_else_is_not_hard(line: str) -> None:
    assert [bounce_class(line, phase) for phase in PHASES].count("hard") == 0
    assert (
        judge(0, "", f"host mx.there.test[192.0.2.9] said: {line} (in reply to RCPT TO command)").bounce_class != "hard"
    )


@pytest.mark.parametrize("line", NO_SUCH_RECIPIENT)
def test_an_address_that_is_gone_is_hard(line: str) -> None:
    assert bounce_class(line, "rcpt") == "hard"


def test_a_domain_that_is_unknown_after_rcpt_is_another_one() -> None:
    line = "550 5.1.2 harbuor.test does not exist"
    assert bounce_class(line, "rcpt") == "hard"
    assert bounce_class(line, "body") == bounce_class(line, "mail") == "soft"
    assert bounce_class("550 unknown host", "rcpt") == "soft"  # who answers is the recipient's host
    assert (
        judge(0, "", "Host or domain name not found. Name service error for name=harbuor.test").bounce_class == "hard"
    )


@pytest.mark.parametrize(
    ("around", "expected"),
    [
        ("Callback failed for <b-1@acme.test> (result of RCPT TO: 550 no such user)", "soft"),
        ("Verification failed for <b-1@acme.test>. Called 192.0.2.1. Response: 550 no such user", "soft"),
        ("We asked mx.acme.test while verifying <b-1@acme.test>: 550 5.1.1 no such user", "soft"),
        ("Sender verification said: 550 5.1.1 no such user", "soft"),
        ("recipient verification failed: 550 5.1.1 no such user", "hard"),
        ("host mx.there.test[192.0.2.9] said: 550 5.1.1 no such user", "hard"),
    ],
)
def test_what_stands_around_a_reply_tells_a_check_of_the_sender(around: str, expected: str) -> None:
    assert judge(550, "", around, phase="rcpt").bounce_class == expected


def test_a_final_report_ends_what_was_temporary_where_words_say_that_there_is_no_such_user() -> None:
    for text in ("User unknown in virtual alias table", "no such mailbox jo", "recipient jo@there.test not found"):
        assert judge(450, "4.1.1", text, action="failed").bounce_class == "hard"
        assert (
            judge(450, "4.1.1", text).bounce_class == judge(450, "4.1.1", text, action="delayed").bounce_class == "soft"
        )
    assert judge(450, "4.1.1", "unverified address: host did not answer", action="failed").bounce_class == "soft"
