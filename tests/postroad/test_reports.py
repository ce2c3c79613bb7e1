"""Delivery status notifications as receivers write them, and bytes that are none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.reports import MAX_RECIPIENTS, Status, is_about, read


def dsn(*groups, kind="message/delivery-status"):
    body = "\r\n\r\n".join(["Reporting-MTA: dns; mx.there.test", *groups])
    return (
        'Content-Type: multipart/report; report-type=delivery-status; boundary="b"\r\n\r\n'
        "--b\r\nContent-Type: text/plain\r\n\r\nYour mail could not be delivered.\r\n"
        f"--b\r\nContent-Type: {kind}\r\n\r\n{body}\r\n\r\n--b--\r\n"
    ).encode()


FAILED = "Final-Recipient: rfc822; r@there.test\r\nAction: failed\r\nStatus: 5.1.1 (no such user)\r\nDiagnostic-Code: smtp; 550 5.1.1\r\n  unknown"


def test_failed_for_good():
    (status,) = read(dsn(FAILED))
    assert status == Status("r@there.test", "failed", "5.1.1", "550 5.1.1 unknown")
    assert status.failed_for_good


@pytest.mark.parametrize(
    ("old", "new", "for_good"),
    [
        ("failed", "FAILED", True),
        ("failed", "delayed", False),
        ("failed", "delivered", False),
        ("5.1.1 (", "4.4.7 (", False),
        ("Status: 5.1.1", "Status: ", False),
        ("Final-Recipient", "Original-Recipient", True),
        ("rfc822; r@there.test", "rfc822;<r@there.test>", True),
        ("rfc822; ", "", True),
    ],
)
def test_ways_to_say_it(old, new, for_good):
    (status,) = read(dsn(FAILED.replace(old, new)))
    assert status.recipient == "r@there.test"
    assert status.failed_for_good is for_good


def test_several_recipients_and_the_group_about_the_message():
    found = read(dsn(FAILED, FAILED.replace("r@", "s@").replace("failed", "delayed")))
    assert [(status.recipient, status.action) for status in found] == [
        ("r@there.test", "failed"),
        ("s@there.test", "delayed"),
    ]


def test_a_report_has_its_limits():
    (first, *rest) = read(dsn(*[FAILED.replace("unknown", "x" * 9999)] * (2 * MAX_RECIPIENTS)))
    assert len(first.diagnostic) == 500
    assert len(rest) < MAX_RECIPIENTS


@pytest.mark.parametrize(
    ("final", "original", "about"),
    [
        ("r@there.test", "", True),
        ("R@THERE.test", "", True),
        ("forwarded@else.test", "r@there.test", True),
        ("victim@there.test", "", False),
        ("victim@there.test", "other@there.test", False),
        ("r@there.test.evil.test", "", False),
    ],
)
def test_whom_a_status_is_about(final, original, about):
    group = FAILED.replace("r@there.test", final)
    if original:
        group += f"\r\nOriginal-Recipient: rfc822; {original}"
    (status,) = read(dsn(group))
    assert is_about(status, "r@there.test") is about


def test_a_status_names_an_international_domain_in_either_form():
    (status,) = read(dsn(FAILED.replace("there.test", "xn--bcher-kva.test")))
    assert is_about(status, "r@Bücher.test")


def test_what_is_no_dsn():
    assert read(b"Subject: Out of office\r\n\r\nI am away.\r\n") == []
    assert read(dsn(FAILED, kind="text/plain")) == []
    assert read(dsn()) == []


@given(st.binary(max_size=300), st.integers(0, 400), st.integers(0, 400))
def test_any_bytes_do(noise, start, end):
    read(noise)
    whole = dsn(FAILED)
    for status in read(whole[:start] + noise + whole[start + end :]):
        assert status.recipient


NESTED = b"".join(b'Content-Type: multipart/mixed; boundary="%d"\r\n\r\n--%d\r\n' % (n, n) for n in range(800))
STATUS = b"Content-Type: message/delivery-status\r\n\r\n"


@pytest.mark.timeout(10)  # each takes some 10 ms; the library's parser took up to 15 s
@pytest.mark.parametrize(
    "raw",
    [
        NESTED + dsn(FAILED),
        NESTED + b"x\r\n" * 200_000,
        b"Content-Type: multipart/mixed; boundary=x\r\n\r\n" + b"--x\r\n\r\n" * 800_000,
        b"a: b\r\n" * 1_000_000,
        STATUS + b"a: b\r\n\r\n" * 300_000,
        STATUS + b"Final-Recipient: x" + b"\r\n y" * 1_000_000,
        STATUS + b"\r\n" * 1_000_000 + FAILED.encode(),
    ],
    ids=["nested", "lines below", "parts", "header", "groups", "folded", "empty lines"],
)
def test_bombs_are_read_in_bounds(raw):
    assert len(read(raw)) <= 1  # found or not: it comes back
