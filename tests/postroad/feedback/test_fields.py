"""RFC 3464, 6533 and 5965: what the fields say is what comes out; hostile reports stay bounded."""

import random

import pytest

from postroad.feedback import read
from tests.postroad.feedback import samples

FAILED = "Final-Recipient: rfc822; ann@there.test\nAction: failed\nStatus: 5.1.1 (no such user)\nDiagnostic-Code: smtp; 550-5.1.1 unknown\n 550 5.1.1 user\nRemote-MTA: dns; mx.there.test\n"


def test_what_a_recipient_says():
    found = read(samples.report(FAILED))
    (one,) = found.recipients
    assert (found.kind, found.rule) == ("bounce", "dsn")
    assert (one.address, one.action, one.status, one.reply_code) == ("ann@there.test", "failed", "5.1.1", 550)
    assert one.remote_mta == "mx.there.test"
    assert "unknown" in one.diagnostic
    assert one.is_about("Ann@There.test")


def test_what_the_returned_message_says():
    original = read(samples.report(FAILED)).original
    assert (original.message_id, original.feedback_id) == ("abc@sender.test", "spring:broadcast:shop:one")
    assert (original.mark, original.return_path) == ("b-token", "bounce@sender.test")
    assert (original.sender, original.recipients) == ("news@sender.test", ("ann@there.test",))


def test_the_mark_has_the_name_that_is_set():
    raw = samples.report(FAILED).replace(b"X-Postroad-Id", b"X-Other")
    assert read(raw).original.mark == ""
    assert read(raw, "X-Other").original.mark == "b-token"


@pytest.mark.parametrize(
    ("fields", "address"),
    [
        ("Final-Recipient: utf-8; \\x{E4}nn@there.test", "änn@there.test"),
        ("Final-Recipient: rfc822; ann+40there.test", "ann@there.test"),
        ("Final-Recipient: rfc822;<ann@there.test>", "ann@there.test"),
        ("Final-Recipient: ann@there.test", "ann@there.test"),
        ("Final-Recipient: rfc822; @relay.test:ann@there.test", "ann@there.test"),
        ('Final-Recipient: rfc822; "ann b"@there.test', '"ann b"@there.test'),
        ("Final-Recipient: local; ann\nOriginal-Recipient: rfc822;ann@there.test", "ann@there.test"),
        ("Final-Recipient: rfc822; alias@there.test\nOriginal-Recipient: rfc822;ann@there.test", "ann@there.test"),
        ("Final-Recipient: rfc822; ann@away.test\nOriginal-Recipient: rfc822;ann@there.test", "ann@away.test"),
    ],
)
def test_addresses(fields, address):
    (one,) = read(
        samples.report(f"{fields}\nAction: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 no\n")
    ).recipients
    assert one.address == address


def test_a_redacted_address_is_none():
    assert read(samples.report("Final-Recipient: rfc822; ann...@there.test\nAction: failed\n")).recipients == () or all(
        "..." not in one.address
        for one in read(samples.report("Final-Recipient: rfc822; ann...@there.test\nAction: failed\n")).recipients
    )


def test_several_recipients_with_and_without_empty_lines():
    second = FAILED.replace("ann@", "bob@").replace("failed", "delayed").replace("5.1.1", "4.2.2")
    for between in ("\n", ""):
        found = read(samples.report(FAILED + between + second))
        assert [(one.address, one.action) for one in found.recipients] == [
            ("ann@there.test", "failed"),
            ("bob@there.test", "delayed"),
        ]
        assert found.kind == "bounce"


def arf(fields: str, original: str = samples.RETURNED) -> bytes:
    return samples.mail(
        f"--b\nContent-Type: text/plain\n\nAn abuse report.\n--b\nContent-Type: message/feedback-report\n\n{fields}\n--b\n"
        f"Content-Type: message/rfc822\n\n{original}\n--b--\n",
        sender="fbl@there.test",
        subject="FW: The news",
        more="Content-Type: multipart/report; report-type=feedback-report; boundary=b\n",
    )


@pytest.mark.parametrize("kind", ["abuse", "fraud", "not-spam", "auth-failure", "virus", "opt-out", "other"])
def test_complaint(kind):
    found = read(
        arf(
            f"Feedback-Type: {kind}\nUser-Agent: Loop/1\nVersion: 1\nSource-IP: 192.0.2.9\nOriginal-Mail-From: <bounce@sender.test>\n"
            "Original-Rcpt-To: <ann@there.test>\nOriginal-Rcpt-To: <bob@there.test>\nReported-Domain: sender.test\nArrival-Date: Mon, 2 Nov 2026\n"
        )
    )
    assert found.kind == "complaint"
    assert found.complaint is not None
    assert found.complaint.feedback_type == kind
    assert found.complaint.original_rcpt_to == ("ann@there.test", "bob@there.test")
    assert (found.complaint.source_ip, found.complaint.original_mail_from) == ("192.0.2.9", "bounce@sender.test")
    assert {one.judgement.bounce_class for one in found.recipients} == {"undetermined"}


def test_a_redacted_complaint_names_its_message():
    found = read(
        arf("Feedback-Type: abuse\nVersion: 1\n", samples.RETURNED.replace("To: ann@there.test", "To: [redacted]"))
    )
    assert found.complaint is not None
    assert found.complaint.original_rcpt_to == ()
    assert (found.original.mark, found.original.message_id) == ("b-token", "abc@sender.test")


def test_outlooks_form_without_a_feedback_report():
    raw = samples.mixed(
        "",
        "X-HmXmrOriginalRecipient: <ann@hot.test>\n" + samples.RETURNED,
        sender="staff@hot.test",
        subject="complaint about message from 192.0.2.9",
    )
    found = read(raw)
    assert (found.kind, found.rule) == ("complaint", "fbl-form")
    assert [one.address for one in found.recipients] == ["ann@hot.test"]


HOSTILE = {
    "ten thousand groups": samples.report("\n".join(FAILED.replace("ann@", f"u{number}@") for number in range(10_000))),
    "ten thousand lines": samples.mail("could not be delivered:\n\n" + "".join(f"<u{number}@there.test>: 550 no\n" for number in range(10_000))),
    "deep": samples.mail("--b\nContent-Type: multipart/mixed; boundary=b\n\n" * 5_000, more="Content-Type: multipart/mixed; boundary=b\n"),
    "messages in messages": b"Content-Type: message/rfc822\n\n" * 20_000,
    "broken base64": samples.mail("!!==AAA\0" * 10_000, more="Content-Type: text/plain\nContent-Transfer-Encoding: base64\n"),
    "a huge header": samples.mail("undeliverable", more="X-A: " + "a@" * 300_000 + "\n"),
    "NULs": b"\0" * 300_000,
    "dashes": samples.mail(("-" * 400 + "\n") * 2_000),
    "header lines": samples.mail("From: x\n" * 20_000),
    "styles": samples.mail("<style>" * 50_000, more="Content-Type: text/html\n"),
    "one address": samples.mail("<br>u@there.test" * 8_000, more="Content-Type: text/html\n"),
    "brackets": samples.mail('{"notificationType":' + "[" * 200_000),
    "noise": random.Random(1).randbytes(200_000),
}  # fmt: skip


@pytest.mark.timeout(5)  # of what took minutes before it was bounded
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_reports_are_bounded(name):
    found = read(HOSTILE[name])
    assert len(found.recipients) <= 100
    assert all(len(one.diagnostic) <= 1_000 for one in found.recipients)
