"""gateway/smtp_orders.py: our header fields are read, checked and removed."""

import pytest

from gateway.smtp_orders import BadOrder, Orders, has_bare_line_end, take

MAIL = (
    b"From: a@acme.example\r\nX-Postroad-Stream: broadcast\r\nx-postroad-tags: one, two\r\nSubject: s\r\n folded\r\n"
    b'X-POSTROAD-Metadata: {"order":\r\n "17"}\r\nX-Postroad-Tags: two,three\r\nX-Postroad-Send-At: 1970-01-01T00:00:01Z\r\n'
    b"X-Postroad-Dedupe-Id : d1\r\n\r\nX-Postroad-Stream: of the body\r\n"
)


def test_fields_are_read_and_leave_the_mail():
    orders, raw = take(MAIL)
    assert orders == Orders("broadcast", ("one", "two", "three"), {"order": "17"}, 1000, None, "d1")
    assert raw == b"From: a@acme.example\r\nSubject: s\r\n folded\r\n\r\nX-Postroad-Stream: of the body\r\n"


@pytest.mark.parametrize("raw", [b"", b"\r\nX-Postroad-Stream: b\r\n", b"A: b\r\n\r\nX-Postroad-X: y\r\n", b"A: b"])
def test_mail_without_them_stays_as_it_is(raw):
    assert take(raw) == (Orders(), raw)


@pytest.mark.parametrize(
    "field",
    [
        b"Stream: other", b"Colour: red", b"Metadata: [1]", b'Metadata: {"a": 1}', b"Metadata: " + b"[" * 100_000,
        b"Send-At: 2026-11-23T15:00:00", b"Send-At: soon", b"Expires-At: 0001-01-01T00:00:00+23:59", b"Tags: \xff",
        b"Dedupe-Id: a\r\nX-Postroad-Dedupe-Id: b",
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(field):
    with pytest.raises(BadOrder, match="X-Postroad-"):
        take(b"X-Postroad-" + field + b"\r\n\r\n")


@pytest.mark.parametrize(
    ("raw", "bare"), [(b"a\r\nb\r\n", False), (b"a\nb", True), (b"a\rb", True), (b"a\r\r\n", True)]
)
def test_bare_line_ends(raw, bare):
    assert has_bare_line_end(raw) is bare
