"""Reading: what a mail program would show is found, and nothing makes it fail or run away."""

import base64
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroad.reading import _URL, LINKS_MAX, PARTS_MAX, TEXT_MAX, _urls, read

MIME = Path(__file__).parents[2] / "../shared/corpora/mime"
NESTED = b"""\
Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=
 =?utf-8?q?_aus?= Wien
From: a@x.example
Content-Type: multipart/mixed;
 boundary="a"

preamble
--a
Content-Type: multipart/alternative; boundary="a1"

--a1
Content-Transfer-Encoding: quoted-printable
Content-Type: text/plain; charset=iso-8859-1

sch=F6n
--a1
Content-Type: TEXT/HTML; charset="utf-8"
Content-Transfer-Encoding: base64

PGEgaHJlZj0iaHR0cDovL3gudGVzdC8/YT0xJmFtcDtiPTIiPjxiPkNsaWNrPC9iPjwvYT4=
--a1--
--a
Content-Type: application/pdf; name="other.pdf"
Content-Disposition: attachment; filename*0*=utf-8''r%C3%A9; filename*1="sum.pdf"

%PDF
--a
Content-Type: message/rfc822

Subject: inner
Content-Type: image/png; name="=?utf-8?b?w7wucG5n?="

x
--a--
epilogue
"""


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_all_that_is_shown_is_found(line_end: bytes) -> None:
    sample = read(NESTED.replace(b"\n", line_end))
    assert (sample.subject, sample.sender) == ("Grüße aus Wien", "a@x.example")
    assert sample.text.strip() == "schön"
    assert sample.files == ["résum.pdf", "other.pdf", "ü.png"]
    (link,) = sample.links
    assert (link.url, link.text, link.host) == ("http://x.test/?a=1&b=2", "Click", "x.test")
    assert "Click" in sample.words() and "<b>" not in sample.words()


@pytest.mark.parametrize(
    ("url", "host", "userinfo"),
    [
        ("http://x.test/path@y", "x.test", ""),
        ("HTTPS://X.Test:8080?q", "x.test", ""),
        ("http://paypal.example@evil.test/", "evil.test", "paypal.example"),
        ("http://u:p@[2001:db8::1]:80/", "[2001:db8::1]", "u:p"),
        ("http:\\\\x.test\\a", "x.test", ""),
        ("//x.test", "x.test", ""),
        ("http://%78.test", "x.test", ""),
        ("/relative", "", ""),
        ("mailto:a@x.test", "", ""),
        ("http://[", "[]", ""),
        (" http://x.test. ", "x.test", ""),
    ],
)
def test_hosts_of_links(url: str, host: str, userinfo: str) -> None:
    (link,) = read(f'Content-Type: text/html\n\n<A class=x HREF="{url}">x</A>'.encode()).links
    assert (link.host, link.userinfo) == (host, userinfo)


@pytest.mark.parametrize(
    "charset", ["nonsense", "punycode", "idna", "hex", "utf-7", "utf-16", "\0", "undefined", "x" * 500]
)
@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", "8bit", "x-unknown"])
def test_odd_charsets_and_encodings(charset: str, encoding: str) -> None:
    head = f"Content-Type: text/plain; charset={charset}\nContent-Transfer-Encoding: {encoding}\n\n".encode()
    for body in (b"", b"=", b"A", b"AAAAA", b"\xff\xfe\0=ZZ", b"+AGE-" * 10):
        assert isinstance(read(head + body).text, str)


def test_a_reference_by_a_long_number_hides_nothing() -> None:
    """Python refuses to read a number of more than 4,300 digits, so the mail had no score."""
    zeros, nines = b"&#" + b"0" * 5_000 + b"106;", b"&#" + b"9" * 5_000 + b";"
    assert read(mail("text/html", b"<p>" + zeros + nines + b" lottery</p>")).words().strip() == "j\ufffd lottery"


def test_base64_of_any_length_is_read_to_its_end() -> None:
    for length in range(1, 20):
        body = base64.b64encode(b"x" * length)
        for written in (body, body.rstrip(b"="), body[:3] + b"\r\n !" + body[3:]):
            text = read(b"Content-Transfer-Encoding: base64\n\n" + written).text
            assert text == "x" * length


def mail(kind: str, body: bytes) -> bytes:
    return f"Content-Type: {kind}\n\n".encode() + body


BOMBS = {
    "many parts": mail("multipart/mixed; boundary=x", b"--x\n\na\n" * 100_000),
    "almost boundaries": mail("multipart/mixed; boundary=x", b"\n--xy" * 200_000),
    "deep": b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(5_000)),
    "mail in mail": b"Content-Type: message/rfc822\n\n" * 30_000,
    "open tags": mail("text/html", b"<a " * 300_000),
    "links": mail("text/html", b"<a href=http://x.test>" * 50_000),
    "urls": mail("text/plain", b"http://x.test " * 70_000),
    "entities": mail("text/html", b"&x" * 500_000),
    "subject": b"Subject: " + b"=?utf-8?q?" * 100_000 + b"\n\n",
    "header": b"a:b\n" * 300_000,
    "one line": b"\n " * 500_000,
    "parameters": b"Content-Type: multipart/mixed; boundary=x" + b'; a="' * 200_000 + b"\n\n--x\n",
    "own boundary": mail("multipart/mixed; boundary=x", b"--x\nContent-Type: multipart/mixed; boundary=x\n\n" * 2_000),
    "text": mail("text/plain", b"word " * 400_000),
    "punycode by another name": mail("text/plain; charset=-Punycode!", b"a-" + b"zzzz9" * 50_000),
}


@pytest.mark.timeout(10)  # each takes some 10 ms; what runs away takes minutes
@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_read_in_bounds(name: str) -> None:
    sample = read(BOMBS[name])
    assert len(sample.text) + len(sample.page) <= TEXT_MAX + PARTS_MAX
    assert len(sample.links) <= LINKS_MAX and len(sample.files) <= 2 * PARTS_MAX


def test_the_names_behind_a_large_attachment_are_seen() -> None:
    big = b"--x\nContent-Type: application/pdf\nContent-Transfer-Encoding: base64\n\n" + (b"A" * 76 + b"\n") * 20_000
    raw = mail(
        "multipart/mixed; boundary=x", big + b"--x\nContent-Disposition: attachment; filename=a.exe\n\nMZ\n--x--\n"
    )
    assert read(raw).files == ["a.exe"]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.integers(0, len(NESTED)))
def test_any_bytes_give_a_sample(rubbish: bytes, at: int) -> None:
    read(rubbish).words()
    read(NESTED[:at] + rubbish + NESTED[at:]).words()


@pytest.mark.skipif(not MIME.exists(), reason="needs ../shared/corpora")
def test_the_corpora_whole_cut_and_bent() -> None:
    chance = random.Random(1)
    for path in MIME.rglob("*"):
        if not path.is_file():
            continue
        raw = path.read_bytes()
        read(raw).words()
        if len(raw) < 20_000:
            bent = bytearray(raw)
            for _ in range(min(20, len(raw))):
                bent[chance.randrange(len(bent))] = chance.randrange(256)
            read(bytes(bent)).words()
            read(raw[: chance.randrange(len(raw) + 1)]).words()


@given(st.text(st.sampled_from("htpsHTPS:/. <>\n\"'a\u017f"), max_size=80) | st.lists(st.sampled_from(["http://", "HTTPS://", "://", "s", " ", "a.b/c", "'"]), max_size=20).map("".join))  # fmt: skip
def test_urls_are_those_that_the_pattern_finds(text: str) -> None:
    assert list(_urls(text)) == [match[0] for match in _URL.finditer(text)]
