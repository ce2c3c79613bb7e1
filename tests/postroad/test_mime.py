"""MIME: what is built reads back as what was asked for, with the standard library's parser as the reader."""

import email
import email.policy
import hashlib
import typing
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import getaddresses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avro.records import Attachment, Recipient, Submission
from postroad import checks, mime
from postroad.headers import fold, mailbox_list

NOW = 1_764_000_000_123
SUBMISSION: Submission = {
    "tenant": "shop",
    "submission_id": "s1",
    "sender": {"address": "news@shop.example", "name": "Müller & Söhne"},
    "recipients": [{"address": "ann@a.example", "name": "Ann O'Hara, PhD"}],
    "subject": "Your order",
    "text": "Hello\n",
}


def submission(**changes: typing.Any) -> Submission:
    return typing.cast(Submission, SUBMISSION | changes)


def built(given: Submission, *, to_all: bool = True) -> bytes:
    assert checks.check_submission(given) is None
    files = [mime.file(typing.cast(bytes, attachment["content"])) for attachment in given.get("attachments", [])]
    raw = mime.build(given, files, date_ms=NOW, message_id="m1", to_all=to_all)
    assert checks.check_content(raw, domains=["shop.example"]) is None
    assert raw == mime.build(given, files, date_ms=NOW, message_id="m1", to_all=to_all)
    return raw


def parsed(raw: bytes) -> EmailMessage:
    message = typing.cast(EmailMessage, email.message_from_bytes(raw, policy=email.policy.default))
    assert not [defect for part in message.walk() for defect in part.defects]
    return message


def body(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    assert part is not None
    return typing.cast(str, part.get_content()).replace("\r\n", "\n")


def test_a_plain_mail() -> None:
    raw = built(submission(reply_to=[{"address": "help@shop.example", "name": 'The "Help" desk'}]))
    message = parsed(raw)
    assert message["From"].addresses[0].display_name == "Müller & Söhne"
    assert message["From"].addresses[0].addr_spec == "news@shop.example"
    assert message["To"].addresses[0].display_name == "Ann O'Hara, PhD"
    assert message["Reply-To"].addresses[0].display_name == 'The "Help" desk'
    assert message["Date"] == "Mon, 24 Nov 2025 16:00:00 +0000"
    assert message["Message-ID"] == "<m1@shop.example>"
    assert message["MIME-Version"] == "1.0"
    assert body(message, "plain") == "Hello\n"
    assert raw.isascii()


def test_recipients_stand_where_they_asked_to() -> None:
    people: list[Recipient] = [
        {"address": "a@x.example", "kind": "to"},
        {"address": "c@x.example", "kind": "cc", "name": "C"},
        {"address": "secret@x.example", "kind": "bcc", "name": "Secret"},
        {"address": "not an address", "kind": "to"},
        {"address": "b@bücher.example", "kind": "to"},
    ]
    raw = built(submission(recipients=people))
    message = parsed(raw)
    assert [one.addr_spec for one in message["To"].addresses] == ["a@x.example", "b@xn--bcher-kva.example"]
    assert [one.addr_spec for one in message["Cc"].addresses] == ["c@x.example"]
    assert b"ecret" not in raw and message["Bcc"] is None


def test_bcc_alone_names_nobody() -> None:
    message = parsed(built(submission(recipients=[{"address": "secret@x.example", "kind": "bcc"}])))
    assert str(message["To"]) == "undisclosed-recipients:;"


def test_an_individual_copy_is_top_and_content() -> None:
    given = submission(stream="broadcast")
    content = built(given, to_all=False)
    assert b"\nTo:" not in content and b"Message-ID" not in content
    message = parsed(mime.top(given, given["recipients"][0], "m2") + content)
    assert (message["To"].addresses[0].addr_spec, message["Message-ID"]) == ("ann@a.example", "<m2@shop.example>")


def test_a_copy_for_an_address_that_is_none_keeps_its_header_legal() -> None:
    top = mime.top(SUBMISSION, {"address": "a@b@c\r\nX: y"}, "m2")
    assert top == b"To: undisclosed-recipients:;\r\nMessage-ID: <m2@shop.example>\r\n"


@pytest.mark.parametrize(
    ("changes", "individual"),
    [
        ({}, False),
        ({"stream": "broadcast"}, True),
        ({"recipients": [{"address": "a@x.example"}, {"address": "b@x.example", "variables": {"n": "1"}}]}, True),
        ({"recipients": [{"address": "a@x.example", "variables": {}}]}, False),
        ({"stream": "broadcast", "raw": b"x"}, False),
    ],
)
def test_is_individual(changes: dict[str, typing.Any], individual: bool) -> None:
    assert mime.is_individual(submission(**changes)) is individual


# -- bodies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("plain\n", "7bit"),
        ("", "7bit"),
        ("no line end", "7bit"),
        ("x" * 998 + "\n", "7bit"),
        ("x" * 999 + "\n", "quoted-printable"),
        ("x" * 100_000, "quoted-printable"),
        ("Grüße aus München, mit viel gewöhnlichem Text drumherum\n", "quoted-printable"),
        ("日本語のテキスト\n" * 20, "base64"),
        ("a=b " * 2 + "é = ü" + " \t\n.\n..\nFrom here\n" + "lots of usual text\n" * 9, "quoted-printable"),
        ("nul \0 and \x0c and \x7f in much usual text\n", "quoted-printable"),
    ],
)
@pytest.mark.parametrize("kind", ["plain", "html"])
def test_texts_come_back_whole(text: str, encoding: str, kind: str) -> None:
    given = submission(text=text if kind == "plain" else None, html=text if kind == "html" else None)
    raw = built(given)
    message = parsed(raw)
    assert message["Content-Transfer-Encoding"] == encoding
    assert message.get_content_type() == f"text/{kind}"
    assert body(message, kind) == (text if text.endswith("\n") else text + "\n")
    assert raw.isascii() and not mime.needs_smtputf8(raw)


def test_line_ends_of_any_kind_become_crlf() -> None:
    raw = built(submission(text="a\r\nb\rc\nd"))
    assert raw.endswith(b"\r\n\r\na\r\nb\r\nc\r\nd\r\n")


def test_all_parts_have_their_place() -> None:
    files: list[Attachment] = [
        {"filename": "Übersicht 2025; \"final\" — with a long name.pdf", "content_type": "application/pdf", "content": b"%PDF\0\xff"},
        {"filename": "logo.png", "content_type": "image/png", "content": b"PNG", "content_id": "logo@shop"},
        {"filename": "a.csv", "content_type": "text/csv; charset=utf-8", "content": "é\r\nö".encode()},
    ]  # fmt: skip  # one file, one line
    message = parsed(built(submission(html='<img src="cid:logo@shop">', attachments=files)))
    shape = [part.get_content_type() for part in message.walk()]
    assert shape == [
        "multipart/mixed",
        "multipart/alternative",
        "text/plain",
        "multipart/related",
        "text/html",
        "image/png",
        "application/pdf",
        "text/csv",
    ]
    pdf, csv = message.iter_attachments()
    assert (pdf.get_filename(), pdf.get_content()) == (files[0]["filename"], files[0]["content"])
    assert csv.get_payload(decode=True) == files[2]["content"]
    (logo,) = [part for part in message.walk() if part.get_content_type() == "image/png"]
    assert (logo["Content-ID"], logo.get_content_disposition()) == ("<logo@shop>", "inline")
    assert len({part.get_boundary() for part in message.walk() if part.is_multipart()}) == 3


def test_inline_files_without_html_are_still_there() -> None:
    files = [{"filename": "logo.png", "content": b"PNG", "content_id": "x"}]
    message = parsed(built(submission(attachments=files)))
    assert [part.get_content_type() for part in message.walk()][1:] == ["text/plain", "application/octet-stream"]


def test_a_large_attachment_comes_back() -> None:
    data = hashlib.shake_128(b"x").digest(1_000_000)
    message = parsed(built(submission(attachments=[{"filename": "a.bin", "content": data}])))
    (part,) = message.iter_attachments()
    assert part.get_content() == data


# -- header fields ---------------------------------------------------------------------------------------------------


def test_list_headers_pass_unbroken() -> None:
    url = "<https://shop.example/unsubscribe/" + "x" * 300 + ">"
    headers = [
        {"name": "List-Unsubscribe", "value": f"{url}, <mailto:leave@shop.example>"},
        {"name": "List-Unsubscribe-Post", "value": "List-Unsubscribe=One-Click"},
        {"name": "X-Note", "value": "schöne Grüße " * 20},
    ]
    raw = built(submission(headers=headers))
    assert url.encode() in raw
    message = parsed(raw)
    assert message["List-Unsubscribe"] == f"{url}, <mailto:leave@shop.example>"
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert message["X-Note"] == ("schöne Grüße " * 20).strip()


@pytest.mark.parametrize(
    "subject", ["", "a", "Grüße 🎉", "é" * 500, "word " * 100, "=?utf-8?q?not_encoded?=", "tab\tand  two  spaces"]
)
def test_subjects_come_back(subject: str) -> None:
    raw = built(submission(subject=subject))
    message = parsed(raw)
    assert message["Subject"] == subject.strip()
    assert max(len(line) for line in raw.partition(b"\r\n\r\n")[0].split(b"\r\n")) <= 78


def test_internationalised_local_parts_need_smtputf8() -> None:
    given = submission(recipients=[{"address": "用户@例え.test", "name": "名前"}])
    raw = built(given)
    assert mime.needs_smtputf8(raw)
    assert "用户@xn--r8jz45g.test".encode() in raw
    assert mime.needs_smtputf8(mime.top(given, given["recipients"][0], "m"))
    assert not mime.needs_smtputf8(
        built(submission(text="ü", subject="ü", recipients=[{"address": "a@bücher.example"}]))
    )


def test_a_thousand_recipients_fit() -> None:
    people = [
        {"address": f"user{n}@site{n}.example", "name": f"Jürgen Übermaß-{n} von und zu " * 3} for n in range(1000)
    ]
    written = email.message_from_bytes(built(submission(recipients=people)))["To"]
    found = getaddresses([written])
    assert [address for _, address in found] == [one["address"] for one in people]
    # not by the newer parser: Python 3.11 leaves the blank between two encoded words of a phrase (RFC 2047 6.2 drops it)
    assert [str(make_header(decode_header(name))) for name, _ in found] == [one["name"].strip() for one in people]


NAMES = st.text(st.characters(blacklist_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=120)


@settings(max_examples=150, deadline=None)
@given(names=st.lists(NAMES, min_size=1, max_size=5), subject=NAMES)
def test_whatever_the_names_no_line_is_broken_wrongly(names: list[str], subject: str) -> None:
    people = [{"address": f"u{number}@x.example", "name": name} for number, name in enumerate(names)]
    raw = built(submission(recipients=people, subject=subject))
    section = raw.partition(b"\r\n\r\n")[0]
    for line in section.split(b"\r\n"):
        assert line.strip() and (line[:1] in b" \t" or b":" in line) and len(line) <= 998
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert [one.addr_spec for one in message["To"].addresses] == [one["address"] for one in people]
    assert set(message.keys()) == {
        *("MIME-Version", "Content-Type", "Content-Transfer-Encoding"),
        *("From", "To", "Message-ID", "Subject", "Date"),
    }


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from("ab ,\t"), max_size=300))
def test_folding_is_undone_by_unfolding(text: str) -> None:
    folded = fold("Subject", text)
    assert folded.replace("\r\n", "") == text
    assert all(line.strip() for line in folded.split("\r\n")[1:])


def test_a_name_cannot_be_an_address() -> None:
    assert mailbox_list("To", [{"address": "a@x.test", "name": 'x" <evil@x.test>, "'}]) == (
        '"x\\" <evil@x.test>, \\"" <a@x.test>'
    )


# -- variables -------------------------------------------------------------------------------------------------------


def test_variables_are_put_in_and_escaped_for_html_alone() -> None:
    hostile = "<script>&\"'"
    person: Recipient = {"address": "a@x.example", "variables": {"name": hostile, "n-1.x": "{{name}}", "größe": "L"}}
    given = submission(
        recipients=[person],
        subject="Hi {{ name }}",
        text="Hi {{name}} {{n-1.x}} {{größe}} {{}} {name} {{a b}}",
        html="<p>{{name}}</p>",
    )
    rendered = mime.render(given, person)
    assert rendered["subject"] == f"Hi {hostile}"
    assert rendered["text"] == f"Hi {hostile} {{{{name}}}} L {{{{}}}} {{name}} {{{{a b}}}}"
    assert rendered["html"] == "<p>&lt;script&gt;&amp;&quot;&#x27;</p>"
    assert given["text"] is not None and "{{name}}" in given["text"]


def test_a_variable_cannot_add_a_header() -> None:
    person: Recipient = {"address": "a@x.example", "variables": {"name": "x\r\nBcc: all@x.example\r\n\r\nbody\u2028"}}
    raw = built(mime.render(submission(recipients=[person], subject="Hi {{name}}"), person))
    assert parsed(raw)["Bcc"] is None
    assert parsed(raw)["Subject"] == "Hi x Bcc: all@x.example body"


def test_a_missing_variable_names_itself_and_its_recipient() -> None:
    people: list[Recipient] = [{"address": "a@x.example", "variables": {"n": "1"}}, {"address": "b@x.example"}]
    given = submission(recipients=people, html="{{n}}")
    assert mime.render(given, people[0])["html"] == "1"
    with pytest.raises(mime.MissingVariable, match=r"b@x\.example has no value for \{\{n\}\}"):
        mime.render(given, people[1])


def test_without_variables_placeholders_stay() -> None:
    given = submission(text="{{name}}")
    assert mime.render(given, given["recipients"][0]) is given


# -- raw messages ----------------------------------------------------------------------------------------------------


def raw_submission(raw: bytes, **changes: typing.Any) -> Submission:
    return submission(**{"raw": raw, "text": None, "subject": "", **changes})


def complete(raw: bytes, **changes: typing.Any) -> bytes:
    return mime.build(raw_submission(raw, **changes), [], date_ms=NOW, message_id="m1", to_all=True)


ADDED = b"Date: Mon, 24 Nov 2025 16:00:00 +0000\r\nMessage-ID: <m1@shop.example>\r\n"
WHOLE = b"Date: x\r\nMessage-ID: <y>\r\nFrom: a@shop.example\r\nSubject:  odd   =?x?=\r\n\tfolded \r\n\r\nB\xff dy \r\n.\r\nBcc: kept\r\n"


def test_a_whole_raw_message_is_not_touched() -> None:
    assert complete(WHOLE) == WHOLE


@pytest.mark.parametrize("line_end", [b"\n", b"\r", b"\r\n"])
def test_raw_line_ends(line_end: bytes) -> None:
    assert complete(WHOLE.replace(b"\r\n", line_end)) == WHOLE


@pytest.mark.parametrize(
    "bcc",
    [b"Bcc: a@x\r\n", b"BCC:a@x,\r\n b@x,\r\n\tc@x\r\n", b"bcc : a@x\r\n", b"Resent-Bcc: a@x\r\n b\r\n", b"Bcc:\r\n"],
)
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_bcc_goes_with_its_folded_lines(bcc: bytes, place: str) -> None:
    at = {"first": 0, "middle": WHOLE.index(b"From"), "last": WHOLE.index(b"\r\n\r\n") + 2}[place]
    assert complete(WHOLE[:at] + bcc + WHOLE[at:]) == WHOLE


def test_missing_date_and_message_id_are_added() -> None:
    bare = b"From: a@shop.example\r\n\r\nHi\r\n"
    assert complete(bare) == ADDED + bare
    assert complete(b"message-id: <q>\n" + bare) == ADDED.partition(b"\n")[0] + b"\nmessage-id: <q>\r\n" + bare


@pytest.mark.parametrize(
    "odd", [b"", b"\n", b"\r\n\r\nbody", b"From: a@x", b"From: a@x\n\n", b"no header at all\n\n\n"]
)
def test_odd_raw_messages_become_something_checkable(odd: bytes) -> None:
    made = complete(odd)
    assert made.startswith(ADDED) and made.endswith(b"\r\n")
    assert made.count(b"\n") == made.count(b"\r\n") == made.count(b"\r")


def test_extra_headers_stand_above_a_raw_message() -> None:
    assert (
        complete(WHOLE, headers=[{"name": "List-Id", "value": "<l.shop.example>"}])
        == b"List-Id: <l.shop.example>\r\n" + WHOLE
    )


# marks of every copy


def marked(**fields):
    given = {
        "tenant": "acme",
        "submission_id": "s",
        "sender": {"address": "a@shop.example"},
        "recipients": [],
        **fields,
    }
    return mime.marks(given, "b-1-2", "post").decode().split("\r\n")[1]


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({}, "Feedback-ID: :transactional:acme:post"),
        ({"stream": "broadcast", "tags": ["spring", "x"]}, "Feedback-ID: spring:broadcast:acme:post"),
        (
            {"tags": ["spring"], "metadata": {"campaign": "a: b\r\nX: y"}},
            "Feedback-ID: a--b--X--y:transactional:acme:post",
        ),
        ({"tags": ["ü" * 99]}, f"Feedback-ID: {'-' * 60}:transactional:acme:post"),
        ({"headers": [{"name": "feedback-ID", "value": "mine"}]}, ""),
        ({"raw": b"From: a@b\nFEEDBACK-ID : mine\n\nFeedback-ID: x"}, ""),
        ({"raw": b"From: a@b\r\n\r\nFeedback-ID: not a header\r\n"}, "Feedback-ID: :transactional:acme:post"),
    ],
)
def test_feedback_id_is_ours_where_the_producer_has_none(fields, line):
    assert marked(**fields) == line
