"""DKIM: public vectors, dkimpy's verifier beside ours, and what must not be signed."""

import re
from collections.abc import Callable
from pathlib import Path

import dkim as dkimpy
import pytest
from dkim.canonicalization import Relaxed
from hypothesis import assume, given
from hypothesis import strategies as st

from postroad.dkim import (
    BodyHashes,
    DkimError,
    SigningKey,
    body_hash,
    canonical_fields,
    generate,
    published,
    relaxed_body,
    sign,
    verify,
)

CORPUS = Path(__file__).parents[3] / "shared" / "corpora" / "dkim"
needs_corpus = pytest.mark.skipif(not CORPUS.exists(), reason="the corpora are not here")

MAIL = (
    b"From: Jane <jane@example.com>\r\nTo: joe@example.org\r\nSubject: dinner  at\r\n eight\r\n"
    b"Received: from nowhere\r\nReceived: from elsewhere\r\nMessage-ID: <1@example.com>\r\n"
    b"List-Unsubscribe: <https://example.com/u>\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
    b"Hello  \t you \r\n\r\n.\r\nBye\r\n\r\n\r\n"
)
RSA_PEM, RSA_TXT = generate("rsa")
ED_PEM, ED_TXT = generate("ed25519")
RECORDS = {"r1._domainkey.example.com": RSA_TXT.encode(), "e1._domainkey.example.com": ED_TXT.encode()}
KEYS = [SigningKey.from_pem("r1", "rsa", RSA_PEM), SigningKey.from_pem("e1", "ed25519", ED_PEM)]

# RFC 8463 appendix A
RFC8463 = {
    "brisbane._domainkey.football.example.com": b"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    "test._domainkey.football.example.com": b"v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP"
    b"3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZy"
    b"VYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB",
}


def crlf(data: bytes) -> bytes:
    return re.sub(rb"\r?\n", b"\r\n", data)


def test_both_signatures_hold() -> None:
    signed = sign(MAIL, "example.com", KEYS, now_ms=1_790_000_000_123) + MAIL
    assert verify(signed, RECORDS.get) == [True, True]
    assert signed.count(b"t=1790000000;") == 2
    assert max(len(line) for line in signed.split(b"\r\n")) <= 78


def test_dkimpy_agrees() -> None:
    signed = sign(MAIL, "example.com", KEYS[:1]) + MAIL
    assert dkimpy.verify(signed, dnsfunc=lambda name, timeout=5: RECORDS[name.decode().rstrip(".")])


@pytest.mark.parametrize(
    "change",
    [
        lambda mail: mail.replace(b"Bye", b"Buy"),
        lambda mail: mail.replace(b"joe@", b"eve@"),
        lambda mail: mail.replace(b"/u>", b"/v>"),
        lambda mail: b"From: eve@example.com\r\n" + mail,  # oversigned: none may be added
        lambda mail: mail.replace(b"b=", b"b=AAAA", 2),
        lambda mail: mail.replace(b"d=example.com", b"d=example.net"),
    ],
)
def test_a_changed_message_does_not_verify(change: Callable[[bytes], bytes]) -> None:
    assert verify(change(sign(MAIL, "example.com", KEYS) + MAIL), RECORDS.get) == [False, False]


def test_what_relays_add_and_rewrap_does_no_harm() -> None:
    signed = sign(MAIL, "example.com", KEYS) + MAIL
    relayed = b"Received: from us\r\n" + signed.replace(b"dinner  at\r\n eight", b"dinner at eight") + b"\r\n\r\n"
    assert verify(relayed, RECORDS.get) == [True, True]


def test_body_hash_once_per_content() -> None:
    cache = BodyHashes(size=2)
    assert cache.get("h1", MAIL) == body_hash(MAIL)
    assert cache.get("h1", b"never looked at") == body_hash(MAIL)
    for other in ("h2", "h3"):
        cache.get(other, b"From: a\r\n\r\nx")
    assert cache.get("h1", b"From: a\r\n\r\ny") == body_hash(b"From: a\r\n\r\ny")
    assert verify(sign(MAIL, "example.com", KEYS, bh=body_hash(MAIL)) + MAIL, RECORDS.get) == [True, True]


def test_a_line_of_one_recipient_above_the_content_leaves_its_body_hash() -> None:
    assert body_hash(b"To: a@example.org\r\n" + MAIL) == body_hash(MAIL)


@pytest.mark.parametrize(
    "message", [b"", b"Subject: x\r\n\r\nbody", b" folded first\r\nFrom: a\r\n\r\n", b"From a@b\r\nnonsense\r\n\r\n"]
)
def test_messages_that_cannot_be_signed(message: bytes) -> None:
    with pytest.raises(DkimError):
        sign(message, "example.com", KEYS)


def test_no_keys_no_lines() -> None:
    assert sign(MAIL, "example.com", []) == b""


@pytest.mark.parametrize(("algorithm", "pem"), [("rsa", "nonsense"), ("rsa", ED_PEM), ("ed25519", RSA_PEM)])
def test_keys_that_cannot_be_used(algorithm: str, pem: str) -> None:
    with pytest.raises(DkimError, match="DKIM key s1"):
        SigningKey.from_pem("s1", algorithm, pem)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "record", [None, b"", b"v=DKIM1; p=", b"v=DKIM1; k=rsa; p=%%%", b"v=DKIM1; k=ed25519; p=AAAA", ED_TXT.encode()]
)
def test_records_that_hold_no_key_of_it(record: bytes | None) -> None:
    signed = sign(MAIL, "example.com", KEYS[:1]) + MAIL
    assert verify(signed, lambda name: record) == [False]


@given(st.lists(st.sampled_from([b" ", b"\t", b"\r\n", b"x", b".", "é".encode()])).map(b"".join))
def test_relaxed_body_is_dkimpys(body: bytes) -> None:
    assert relaxed_body(body) == Relaxed.canonicalize_body(body)


@given(
    st.lists(st.sampled_from([b"From: ", b"From ", b"X-\xe9", b"To", b":", b" ", b"\t", b"\r\n", b"a", b"\x0b", b"\0"]))
)
def test_canonical_fields_are_dkimpys(parts: list[bytes]) -> None:
    head = b"".join(parts).partition(b"\r\n\r\n")[0]
    assume(not re.search(rb"^From .*\r\n[ \t]", head, re.MULTILINE))  # which dkimpy hangs on to the field before
    try:
        theirs = Relaxed.canonicalize_headers(dkimpy.rfc822_parse(head + b"\r\n\r\n")[0])
        usable = all(b":" not in name for name, _ in theirs)  # dkimpy takes ":x:" for a field
    except (dkimpy.MessageFormatError, IndexError):
        usable = False
    if not usable:
        with pytest.raises(DkimError):
            canonical_fields(head)
    else:
        assert [line for _, line in canonical_fields(head)] == [name + b":" + value for name, value in theirs]


@given(st.binary(max_size=300))
def test_verify_takes_any_bytes(junk: bytes) -> None:
    assert not any(verify(b"DKIM-Signature: " + junk + b"\r\n\r\n" + junk, lambda name: junk))


def test_a_megabyte_of_blanks_is_no_trouble() -> None:
    assert relaxed_body(b"a" + b" " * 1_000_000 + b"b") == b"a b\r\n"


@needs_corpus
@pytest.mark.parametrize("number", [f"{number:02}" for number in (*range(1, 15), *range(19, 26))])
def test_canonical_forms_of_flanker(number: str) -> None:
    message = crlf((CORPUS / "flanker" / f"email.{number}").read_bytes())
    _, body = dkimpy.rfc822_parse(message)
    canonical = b"".join(line for _, line in canonical_fields(message.partition(b"\r\n\r\n")[0]))
    assert canonical + b"\r\n" + relaxed_body(body) == (CORPUS / "flanker" / f"relaxed.expected.{number}").read_bytes()


@needs_corpus
def test_example_of_rfc8463() -> None:
    message = crlf((CORPUS / "mimekit" / "rfc8463-example.msg").read_bytes())
    assert verify(message, RFC8463.get) == [True, True]


@needs_corpus
def test_real_mail_verifies() -> None:
    message = crlf((CORPUS / "mimekit" / "gmail.msg").read_bytes())
    pem = (CORPUS / "mimekit" / "gmail.pub").read_bytes()
    record = b"v=DKIM1; p=" + b"".join(
        line for line in pem.split() if b"-" not in line and line not in (b"PUBLIC", b"KEY")
    )
    assert verify(message, lambda name: record if name.startswith("20120113.") else None) == [True]
    signed = crlf((CORPUS / "dkimpy" / "rfc6376.signed.rsa.msg").read_bytes())
    assert verify(signed, RFC8463.get) == [True]  # simple/simple, the same test key


@needs_corpus
@pytest.mark.parametrize("folder", ["dkimpy", "mimekit"])
def test_each_message_of_the_corpus_signs_and_verifies(folder: str) -> None:
    signed = 0
    for path in sorted((CORPUS / folder).glob("*.m*s*g*")):
        message = crlf(path.read_bytes())
        try:
            lines = sign(message, "example.com", KEYS)
        except DkimError:
            continue
        assert verify(lines + message, RECORDS.get)[:2] == [True, True], path.name
        signed += 1
    assert signed >= 3


@pytest.mark.parametrize(
    ("domain", "selector"),
    [
        ("example.com;\r\nX-Evil: yes", "s1"),
        ("example.com", "s1;\r\nX-Evil: yes"),
        ("", "s1"),
        ("example.com", "s 1"),
        ("a..b", "s1"),
    ],
)
def test_no_header_comes_in_by_a_name(domain: str, selector: str) -> None:
    with pytest.raises(DkimError, match="to sign with"):
        sign(MAIL, domain, [SigningKey.from_pem(selector, "ed25519", ED_PEM)])


@pytest.mark.parametrize("header", [b"Subject: a\nBcc: x\r\n", b"Subject: a\rBcc: x\r\n"])
def test_a_header_with_half_a_line_end_is_not_signed(header: bytes) -> None:
    with pytest.raises(DkimError, match="bare CR or LF"):
        sign(header + MAIL, "example.com", KEYS)


def test_neither_length_nor_expiry_is_in_a_signature() -> None:
    assert not re.search(rb"[ ;](l|x)=", sign(MAIL, "example.com", KEYS, now_ms=1))


def test_the_record_of_a_key_is_the_one_it_was_made_with() -> None:
    assert published("rsa", RSA_PEM) == RSA_TXT and published("ed25519", ED_PEM) == ED_TXT
