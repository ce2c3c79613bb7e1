"""What a host tells around a reply decides: its own sentence, the program's words, the line above sendmail's summary."""

import pytest

from postroad.feedback import Recipient, read

HEAD = "From: Mail Delivery Subsystem <MAILER-DAEMON@relay.test>\nTo: <b-1@acme.test>\nSubject: Returned mail: see transcript\n"
REPORT = (
    HEAD + 'Content-Type: multipart/report; report-type=delivery-status; boundary="xx"\n\n--xx\n\n{}\n\n--xx\n'
    "Content-Type: message/delivery-status\n\nReporting-MTA: dns; relay.test\n\nFinal-Recipient: rfc822; jo@there.test\n"
    "Action: {}\nStatus: {}\nDiagnostic-Code: {}\n\n--xx--\n"
)


def recipient(text: str) -> Recipient:
    (one,) = read(text.encode()).recipients
    return one


def fields(said: str, action: str, status: str, diagnostic: str) -> Recipient:
    return recipient(REPORT.format(said, action, status, diagnostic))


@pytest.mark.parametrize(
    ("diagnostic", "said", "reason"),
    [
        ("x-unix; temporary failure", "temporary failure", "mailer-error"),
        ("X-UNIX; filter gave no answer", "Your mail was not delivered", "mailer-error"),
        ("x-unix; sh: cannot execute", "Your mail was not delivered", "mailer-error"),
        ("x-unix; jo: no such user", "Your mail was not delivered", "user-unknown"),
        ("x-unix; 75", "Your mail was not delivered:\n554 5.3.0 unknown mailer error 75", "mailer-error"),
        ("x-unix; 73", "Your mail was not delivered:\n552 5.2.2 mailbox full", "mailbox-full"),
        ("smtp; 451 temporary failure", "temporary failure", "system-error"),
    ],
)
def test_a_programs_words_are_its_own_and_a_bare_status_says_nothing(diagnostic: str, said: str, reason: str) -> None:
    assert fields(said, "failed", "5.3.0", diagnostic).judgement.reason == reason


@pytest.mark.parametrize(
    ("above", "summary", "reason"),
    [
        ("mail.local: unknown user: jo", "554 <jo@there.test>... Service unavailable", "user-unknown"),
        ("deliver: no such mailbox: jo", "554 5.0.0 <jo@there.test>... Service unavailable", "user-unknown"),
        ("spool: mailbox is full", "554 <jo@there.test>... unknown mailer error 1", "mailbox-full"),
        ("<<< 550 5.7.1 relaying denied", "554 <jo@there.test>... Remote protocol error", "relay-denied"),
        (">>> RCPT TO:<jo@there.test>", "554 <jo@there.test>... Service unavailable", "system-error"),
        ("spool: mailbox is full", "550 5.1.1 <jo@there.test>... User unknown", "user-unknown"),
    ],
)
def test_the_line_above_sendmails_summary(above: str, summary: str, reason: str) -> None:
    text = (
        f"{HEAD}\n   ----- The following addresses had permanent fatal errors -----\n<jo@there.test>\n\n"
        f"   ----- Transcript of session follows -----\n{above}\n{summary}\n"
    )
    assert recipient(text).judgement.reason == reason


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("The user(s) account is disabled.", ("soft", "suspended")),
        ("Your account has been temporarily suspended", ("soft", "suspended")),
        ("The recipient's mailbox is currently full.", ("soft", "mailbox-full")),
        ("Not enough disk space", ("soft", "mailbox-full")),
        ("The mailbox may be full, or the account is disabled.", ("hard", "user-unknown")),
        ("Either the mailbox is full or there is no such user", ("hard", "user-unknown")),
        ("The mail could not be delivered.", ("hard", "user-unknown")),
    ],
)
def test_a_hosts_own_sentence_says_that_the_mailbox_is_there(said: str, expected: tuple[str, str]) -> None:
    found = fields(said, "failed", "5.1.1", "smtp; 550 5.1.1 User unknown").judgement
    assert (found.bounce_class, found.reason) == expected


@pytest.mark.parametrize(
    ("heading", "reason"),
    [
        ("-------SMTP command\nDATA", "filtered"),
        ("--- last command:\nDATA", "filtered"),
        ("=== Failed SMTP command ===\n  BDAT 1020", "filtered"),
        ("-------SMTP command\nRCPT TO:<jo@there.test>", "user-unknown"),
        ("The command DATA is part of SMTP", "user-unknown"),
    ],
)
def test_a_heading_names_the_command_that_failed(heading: str, reason: str) -> None:
    text = f"{HEAD}\nThe mail to this address could not be delivered.\njo@there.test\n\n-------server message\n550 no such user <jo@there.test>\n\n{heading}\n"
    assert recipient(text).judgement.reason == reason


def test_a_final_report_of_a_user_that_is_unknown_is_hard_though_its_code_is_temporary() -> None:
    said = "smtp; 450 4.1.1 <jo@there.test>: no such user"
    assert fields("Given up.", "failed", "4.1.1", said).judgement.bounce_class == "hard"
    assert fields("Still trying.", "delayed", "4.1.1", said).judgement.bounce_class == "soft"
    assert (
        fields("Given up.", "failed", "4.1.1", "smtp; 450 4.1.1 no such user, try later").judgement.bounce_class
        == "soft"
    )
