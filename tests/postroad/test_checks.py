"""Checks: what breaks a rule is found, and what keeps them all passes."""

import typing
from pathlib import Path

import pytest

from avro.records import Submission
from postroad import checks
from postroad.checks import SIZE_MAX, author, check_content, check_submission

MIME = Path(__file__).parents[2] / "../shared/corpora/mime"
SUBMISSION: Submission = {
    "tenant": "shop",
    "submission_id": "s1",
    "sender": {"address": "news@shop.example", "name": "Shop"},
    "recipients": [{"address": "ann@a.example", "name": "Ann"}],
    "subject": "Hello",
    "text": "Hi",
}
CONTENT = b"From: Shop <news@shop.example>\r\nTo: a@x.example\r\nDate: x\r\n\r\nHi\r\n"
FILE = {"filename": "a.pdf", "content": b"x"}


def changed(**changes: typing.Any) -> Submission:
    return typing.cast(Submission, SUBMISSION | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"text": ""},
        {"text": None, "html": "<p>"},
        {"text": None, "subject": "", "raw": b"x"},
        {"recipients": [{"address": "a@x.example"}] * 1000},
        {"recipients": [{"address": "malformed"}]},  # its own message says so
        {"tags": ["x" * 100] * 10},
        {"metadata": {str(n): "v" * 300 for n in range(50)}},
        {"metadata": {"k": "v" * 4_000}, "recipients": [{"address": "a@x.example"}] * 1000},
        {"attachments": [FILE] * 100},
        {"submission_id": "x" * 200},
        {"send_at": 1, "expires_at": 2},
        {"headers": [{"name": "List-Unsubscribe", "value": "<https://x.example/ü>\tx"}]},
        {"headers": [{"name": "Reply-To", "value": "a@x.example"}]},
        {
            "attachments": [
                {**FILE, "filename": "größe.pdf", "content_type": 'text/calendar; method=REQUEST; name="x y"'}
            ]
        },
        {"attachments": [{**FILE, "content_id": "img.1@x"}]},
    ],
)
def test_good_submissions(changes: dict[str, typing.Any]) -> None:
    assert check_submission(changed(**changes)) is None


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"submission_id": ""}, "submission-id"),
        ({"submission_id": "x" * 201}, "submission-id"),
        ({"recipients": []}, "recipients"),
        ({"recipients": [{"address": "a@x.example"}] * 1001}, "recipients"),
        ({"recipients": [{"address": "a@x.example\r\nBcc: b@x.example"}]}, "header-injection"),
        ({"recipients": [{"address": "a@x.example", "name": "x\nBcc: y"}]}, "header-injection"),
        ({"sender": {"address": "nobody"}}, "sender"),
        ({"sender": {"address": "a@x.example", "name": "a\rb"}}, "header-injection"),
        ({"reply_to": [{"address": "a@x.example\n"}]}, "reply_to"),
        ({"text": None}, "parts"),
        ({"raw": b"x", "subject": ""}, "parts"),
        ({"raw": b"x", "text": None}, "parts"),
        ({"raw": b"x", "text": None, "subject": "", "attachments": [FILE]}, "parts"),
        ({"raw": b"x", "text": None, "subject": "", "reply_to": [{"address": "a@x.example"}]}, "parts"),
        (
            {
                "raw": b"x",
                "text": None,
                "subject": "",
                "recipients": [{"address": "a@x.example", "variables": {"a": "b"}}],
            },
            "parts",
        ),
        ({"raw": b"a: b\n" * 60_000 + b"\nx", "text": None, "subject": ""}, "header-size"),
        ({"raw": b"a: b\r \r" * 60_000, "text": None, "subject": ""}, "header-size"),
        ({"subject": "a\r\nBcc: x"}, "header-injection"),
        ({"subject": "a\0"}, "header-injection"),
        ({"subject": "a\u2028b"}, "header-injection"),
        ({"subject": "a\x85b"}, "header-injection"),
        ({"subject": "x" * 1200}, "line-length"),
        ({"headers": [{"name": "X-A", "value": "a\nBcc: x"}]}, "header-injection"),
        ({"headers": [{"name": "X-A: b\r\nBcc", "value": "a"}]}, "header-name"),
        ({"headers": [{"name": "X A", "value": "a"}]}, "header-name"),
        ({"headers": [{"name": "", "value": "a"}]}, "header-name"),
        ({"headers": [{"name": "X-Ü", "value": "a"}]}, "header-name"),
        ({"headers": [{"name": "X-A", "value": "x" * 1000}]}, "line-length"),
        ({"headers": [{"name": "bCc", "value": "a@x.example"}]}, "header-own"),
        ({"headers": [{"name": "DKIM-Signature", "value": "a"}]}, "header-own"),
        ({"headers": [{"name": "Content-Transfer-Encoding", "value": "8bit"}]}, "header-own"),
        ({"headers": [{"name": "Reply-To", "value": "x"}], "reply_to": [{"address": "a@x.example"}]}, "header-own"),
        ({"attachments": [{**FILE, "filename": ""}]}, "filename"),
        ({"attachments": [{**FILE, "filename": "../a"}]}, "filename"),
        ({"attachments": [{**FILE, "filename": "C:\\a"}]}, "filename"),
        ({"attachments": [{**FILE, "filename": ".."}]}, "filename"),
        ({"attachments": [{**FILE, "filename": "ü" * 101}]}, "filename"),
        ({"attachments": [{**FILE, "filename": 'a"\r\nX: y'}]}, "header-injection"),
        ({"attachments": [{**FILE, "content_type": "text"}]}, "content-type"),
        ({"attachments": [{**FILE, "content_type": "text/html\r\nX: y"}]}, "content-type"),
        ({"attachments": [{**FILE, "content_type": "multipart/mixed; boundary=x"}]}, "content-type"),
        ({"attachments": [{**FILE, "content_type": "Message/rfc822"}]}, "content-type"),
        ({"attachments": [{**FILE, "content_id": "a>\r\nX: y"}]}, "content-id"),
        ({"tags": ["x"] * 11}, "tags"),
        ({"tags": ["x" * 101]}, "tags"),
        ({"metadata": {str(n): "" for n in range(51)}}, "metadata"),
        ({"metadata": {"k": "ü" * 8_192}}, "metadata"),
        ({"metadata": {"k": "v" * 8_192}, "recipients": [{"address": "a@x.example"}] * 1000}, "metadata"),
        ({"dedupe_id": "x" * 201}, "dedupe-id"),
        ({"tenant": "x" * 101}, "names"),
        ({"egress_pool": "x" * 101}, "names"),
        ({"sender": {"address": "x" * 1_001}}, "mailbox-length"),
        ({"recipients": [{"address": "a@x.example", "name": "x" * 1_001}]}, "mailbox-length"),
        ({"reply_to": [{"address": "a@x.example"}] * 101}, "reply_to"),
        ({"headers": [{"name": "X-A", "value": "b"}] * 101}, "header-size"),
        ({"headers": [{"name": "X-A", "value": "b " * 40_000}]}, "header-size"),
        ({"subject": "b " * 10_000}, "subject"),
        ({"attachments": [FILE] * 101}, "attachments"),
        ({"send_at": -1}, "times"),
        ({"send_at": 1_764_000_000_123_000}, "times"),
        ({"send_at": 5, "expires_at": 5}, "times"),
    ],
)
def test_bad_submissions(changes: dict[str, typing.Any], rule: str) -> None:
    problem = check_submission(changed(**changes))
    assert problem is not None and problem.rule == rule
    assert problem.reason in ("content", "bad-address")
    assert 0 < len(problem.text) < 400 and "\n" not in problem.text


@pytest.mark.parametrize(
    "raw",
    [
        CONTENT,
        CONTENT.replace(b"\r\n\r\nHi\r\n", b"\r\n"),  # a header alone
        CONTENT.replace(b"Hi", b"x" * 998),
        CONTENT + b"\xff\xfe 8 bit\r\n",
        CONTENT.replace(b"Shop", "Läden".encode()),
        CONTENT.replace(b"From: Shop <", b"From: Shop\r\n\t <"),
        CONTENT.replace(b"From:", b"FROM:"),
    ],
)
def test_good_content(raw: bytes) -> None:
    assert check_content(raw, domains=["shop.example"]) is None


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        (b"", "header-count"),
        (b"\r\nFrom: a@shop.example\r\n", "header-count"),
        (CONTENT.replace(b"From", b"X-From"), "header-count"),
        (b"From: a@shop.example\r\n" + CONTENT, "header-count"),
        (b"From : a@evil.example\r\n" + CONTENT, "header-syntax"),
        (CONTENT.replace(b"Date:", b"Date :"), "header-syntax"),
        (b"SUBJECT: a\r\nSubject: b\r\n" + CONTENT, "header-count"),
        (b"From me@x Mon Jan 1\r\n" + CONTENT, "header-syntax"),
        (b" folded\r\n" + CONTENT, "header-syntax"),
        (b"X: y\r\n \t \r\n" + CONTENT, "header-syntax"),
        (b"X-\xc3\xbc: y\r\n" + CONTENT, "header-syntax"),
        (b"X: \xff\r\n" + CONTENT, "header-syntax"),
        (b"no header\r\n", "header-syntax"),
        (CONTENT + b"a\nb\r\n", "line-end"),
        (CONTENT + b"a\rb\r\n", "line-end"),
        (CONTENT + b"\n.\r\nMAIL FROM:<x>\r\n", "line-end"),
        (CONTENT + b"\r\n\r", "line-end"),
        (CONTENT + b"a\n\r\r\n", "line-end"),
        (CONTENT + b"a\0\r\n", "nul"),
        (b"X: a\0b\r\n" + CONTENT, "nul"),
        (CONTENT + b"x" * 999 + b"\r\n", "line-length"),
        (CONTENT + b"x" * 999, "line-length"),
        (CONTENT + (b"y" * 90 + b"\r\n") * 50 + b"x" * 999 + b"\r\n" + (b"y" * 90 + b"\r\n") * 50, "line-length"),
        (b"X: " + b"y" * 1000 + b"\r\n" + CONTENT, "line-length"),
        (b"X: y\r\n" * 60_000 + CONTENT, "header-size"),
        (CONTENT + b"x\r\n" * (SIZE_MAX // 3), "size"),
    ],
)
def test_bad_content(raw: bytes, rule: str) -> None:
    problem = check_content(raw, domains=["shop.example"])
    assert problem is not None and problem.rule == rule
    assert problem.reason == "content" and len(problem.text) < 300


@pytest.mark.parametrize("length", [*range(990, 1010), 1995, 1996, 1997, 1998])
def test_line_length_at_every_edge(length: int) -> None:
    """Beside the quick way, the plain one."""
    for before in (0, 1, 500, 996):
        raw = CONTENT + b"a" * before + b"\r\n" + b"b" * length + b"\r\nc\r\n"
        assert (check_content(raw) is None) == (max(map(len, raw.split(b"\r\n"))) <= 998)


@pytest.mark.parametrize(
    "sender",
    [
        b"a@evil.example",
        b'"news@shop.example" <a@evil.example>',
        b"news@shop.example, a@evil.example",
        b"<news@shop.example>, <a@evil.example>",
        b"news@shop.example <a@evil.example>",
        b"x: news@shop.example, a@evil.example;",
        b"=?utf-8?q?news=40shop=2Eexample?= <a@evil.example>",
        b"a@evil.example (news@shop.example)",
        b"\r\n a@evil.example",
        b"a@notshop.example",
        b"a@shop.example.evil.example",
        b"",
        b"nobody",
        b"<>",
        b"a@[192.0.2.1]",
        b"<news@shop.example",
        b"(" * 5_000,
    ],
)
def test_a_raw_from_of_another_domain(sender: bytes) -> None:
    raw = b"\r\n".join(sender[at : at + 900] for at in range(0, len(sender) or 1, 900)).replace(b"\r\n(", b"\r\n (")
    problem = check_content(b"From: " + raw + b"\r\n\r\nx\r\n", domains=["shop.example"])
    assert problem is not None and (problem.reason, problem.rule) == ("sender-domain", "from")


@pytest.mark.parametrize(
    "sender",
    [
        b"news@shop.example",
        b"<news@mail.Shop.Example>",
        b'"Shop, Inc." <news@shop.example>',
        b"John Q. Shop <news@shop.example>",  # RFC 5322 4.1: obsolete, and everywhere
        b"Shop (the big one)\r\n <news@shop.example>",
        b"=?utf-8?q?L=C3=A4den?= <news@shop.example>",
        "Läden <größe@shop.example>".encode(),
        b"a@shop.example, b@shop.example",
    ],
)
def test_a_raw_from_of_the_tenants_own_domain(sender: bytes) -> None:
    assert check_content(b"From: " + sender + b"\r\n\r\nx\r\n", domains=["shop.example"]) is None


@pytest.mark.parametrize(
    "section",
    [
        b"From: " + b"a,\r\n " * 2_000 + b"a@shop.example\r\n",
        b"From: a@shop.example\r\nSender: " + b"a,\r\n " * 2_000 + b"a@shop.example\r\n",
    ],
)
def test_a_long_sender_field_is_not_parsed(section: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = checks._domains_in
    monkeypatch.setattr(
        checks, "_domains_in", lambda field: looked(field) if len(field) < 100 else pytest.fail("parsed")
    )
    problem = check_content(section + b"\r\nx\r\n", domains=["shop.example"])
    assert problem is not None and problem.reason == "sender-domain"


def test_a_line_too_long_is_found_before_a_field_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_check_fields", lambda *_: pytest.fail("read"))
    problem = check_content(b"From: " + b"a," * 32_000 + b"\r\n\r\nx\r\n", domains=["shop.example"])
    assert problem is not None and problem.rule == "line-length"


@pytest.mark.timeout(10)  # the library's parser took 12 s for the list, and failed at others
@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (b"=?utf-8?q?J=C3=B6rg?=\r\n <joerg@acme.example>", {"address": "joerg@acme.example", "name": "Jörg"}),
        (b"a@b.example, c@d.example", {"address": "a@b.example", "name": ""}),
        (b"=?utf-8?q?=FF?= <a@b.example>", {"address": "a@b.example", "name": "?"}),
        (b"", None),
        (b"\xff\xfe", None),
        (b"group:;", None),
        (b"<<<<", None),
        (b'"', None),
        (b"a@[", None),
        (b"@", None),
        (b"(" * 5_000, None),
        (b"(" * 1_500, None),
        (b"a," * 20_000, None),
    ],
)
def test_author(field: bytes, expected: typing.Any) -> None:
    assert author(b"Subject: x\r\nFrom: " + field + b"\r\n\r\nhello\r\n") == expected


def test_a_lifetime_has_a_bound() -> None:
    month = checks.LIFETIME_MAX_MS
    assert checks.check_lifetime(changed(), 5) is None
    assert checks.check_lifetime(changed(expires_at=5 + month), 5) is None
    assert checks.check_lifetime(changed(expires_at=6 + month), 5) is not None
    assert checks.check_lifetime(changed(expires_at=6 + month, send_at=6), 5) is None


@pytest.mark.skipif(not MIME.exists(), reason="needs ../shared/corpora")
def test_no_mail_of_the_corpora_breaks_the_checks() -> None:
    for path in MIME.rglob("*"):
        if path.is_file():
            raw = path.read_bytes()
            for data in (raw, raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"), raw[: len(raw) // 2]):
                check_content(data, domains=["shop.example"])
