"""Fuzz targets: `target(data)` raises on whatever must not happen, and returns on everything else.

| target | what reads the bytes | what must hold |
|---|---|---|
| codec | `Codec.decode` of every schema, framed by the bytes themselves or by us | DecodeError, or a whole record that encodes again where it is valid |
| schema | a writer's schema from a registry, and a record of ours read by it | DecodeError, or as above |
| mime | a submission made of the bytes: checks, `render`, `build`, DKIM | what the checks let pass is built, sound, and read back as it was meant |
| reading | any bytes as a mail: `read`, `score`, `check_content` | a Sample in its bounds, a finite score |
| feedback | any bytes as a bounce, a complaint, a vacation reply | a Feedback in its bounds; only a failure is hard, and only in a bounce |
| replies | an MX's reply: `Reply.parse`, `classify` | a verdict; only a 5xx about the recipient is a hard bounce |
| judge | a diagnostic text with any code, status, action and site | a Judgement of a known reason; nothing temporary is hard |
| addresses | text as an address, a domain, a name: `normalise`, `mailbox_list` | BadAddress, or a form that is its own form |

`submission` and `form` are in loadtest/fuzz/doors.py. Time and memory are the fuzzer's to watch (libFuzzer's -timeout and -rss_limit_mb).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import asdict
from email import message_from_bytes, policy
from functools import cache
from typing import Any, get_args

from fastavro.validation import validate

import avro
from avro import samples
from avro.records import SmtpPhase
from loadtest.fuzz import doors
from postroad import addresses, bounces, budget, checks, dkim, feedback, headers, mime, reading, scoring
from postroad.feedback.model import MAX_DIAGNOSTIC, MAX_RECIPIENTS, Action, FeedbackType, Kind
from postroad.reply import MAX_TEXT, Reply
from topics.codec import Codec, CodecError, DecodeError, EncodeError, UnknownSchema
from topics.schemas import SINGLE_OBJECT

Target = Callable[[bytes], None]
PHASES = get_args(SmtpPhase)
DOMAIN = "acme.test"
DATE_MS = 1_700_000_000_000


class Bytes:
    """Gives out parts of the input; nothing is left at its end: zeros and empty texts."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def number(self, below: int) -> int:
        """From 0 to below `below` (at most 256)."""
        byte = self._data[self._at] if self._at < len(self._data) else 0
        self._at += 1
        return byte % below

    def piece(self) -> bytes:
        """To the next 0xFF, which is in no UTF-8, or to the end."""
        end = self._data.find(b"\xff", self._at)
        end = len(self._data) if end < 0 else end
        piece, self._at = self._data[self._at : end], max(self._at, end + 1)
        return piece

    def text(self) -> str:
        return self.piece().decode("utf-8", "replace")


# -- codec -----------------------------------------------------------------------------------------------------------


@cache
def _codecs() -> list[Codec]:
    return [Codec(name) for name in avro.names()]


def _own_header(codec: Codec) -> bytes:
    return samples.encoded(codec.name, "minimal", "single")[: len(SINGLE_OBJECT) + 8]


def _decoded(codec: Codec, raw: bytes) -> None:
    try:
        value = codec.decode(raw)
    except UnknownSchema:
        raise  # no registry here
    except CodecError:
        return
    assert value.keys() == {field["name"] for field in avro.load(codec.name)["fields"]}
    try:
        again = codec.encode(value)
    except EncodeError:  # fastavro reads an int of more than 32 bits, and writes it where it stands in no union
        assert not validate(value, avro.load(codec.name), raise_errors=False)
        return
    assert codec.encode(codec.decode(again)) == again  # as bytes: a score may be NaN


def codec(data: bytes) -> None:
    source = Bytes(data)
    chosen, framed = _codecs()[source.number(len(_codecs()))], source.number(2)
    raw = data[2:]
    _decoded(chosen, _own_header(chosen) + raw if framed else raw)


class _OneSchema:
    """A registry whose every id is one schema."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema

    async def schema(self, id: int) -> Any:
        return self._schema

    async def register(self, subject: str, schema: Any) -> int:
        raise NotImplementedError


def _now(work: Coroutine[Any, Any, None]) -> None:
    """Run what awaits nothing that takes time."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits")


def schema(data: bytes) -> None:
    text, _, record = data.partition(b"\0")
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):  # topics/registry.py says the same
        return
    reader = Codec("Suppression", _OneSchema(given))
    try:
        _now(reader.learn(1))
    except DecodeError:
        return
    try:
        reader.decode(b"\0\0\0\0\1" + record)
    except DecodeError:
        return


# -- mail ------------------------------------------------------------------------------------------------------------


@cache
def _key() -> tuple[dkim.SigningKey, bytes]:
    pem, record = dkim.generate("ed25519")
    return dkim.SigningKey.from_pem("s1", "ed25519", pem), record.encode()


def _mailbox(source: Bytes, domain: str) -> dict[str, str]:
    local, name = source.text(), source.text()
    return {"address": f"{local or 'a'}@{domain}", "name": name}


def _submission(source: Bytes) -> dict[str, Any]:
    """Whatever the checks may get; the pieces are short of what `check_limits` is about."""
    has = source.number(256)
    made: dict[str, Any] = {
        "tenant": "acme", "submission_id": "s", "sender": _mailbox(source, DOMAIN), "subject": source.text(),
        "recipients": [
            {**_mailbox(source, "there.test"), "kind": ("to", "cc", "bcc")[source.number(3)],
             "variables": {source.text(): source.text()} if has & 1 else {}}
            for _ in range(1 + source.number(3))
        ],
    }  # fmt: skip
    if has & 2:
        made["raw"] = source.piece()
    if has & 4:
        made["text"] = source.text()
    if has & 8:
        made["html"] = source.text()
    if has & 16:
        made["headers"] = [{"name": source.text(), "value": source.text()} for _ in range(1 + source.number(3))]
    if has & 32:
        made["attachments"] = [
            {"filename": source.text(), "content_type": source.text(), "content": source.piece(),
             "content_id": source.text() if has & 64 else None}
            for _ in range(1 + source.number(2))
        ]  # fmt: skip
    if has & 128:
        made["reply_to"] = [_mailbox(source, "there.test")]
    return made


#: Rules that a mail may still break that was built of a submission without fault: by variables, by lengths of words, and
#: by a sender whose local part looks like an encoded word, which the library's parser then reads.
AFTER = {"size", "line-length", "header-size", "header-syntax", "from"}


def mime_(data: bytes) -> None:
    given: Any = _submission(Bytes(data))
    if checks.check_submission(given) is not None:
        return
    files = [mime.file(attachment["content"]) for attachment in given.get("attachments", [])]
    attached = sum(len(file.body) for file in files)
    for recipient, problem in zip(
        given["recipients"], budget.problems(given, given["recipients"], attached, checks.SIZE_MAX), strict=True
    ):
        if problem is not None:
            continue
        try:
            rendered = mime.render(given, recipient)
        except mime.MissingVariable:
            continue
        alone = mime.is_individual(given)
        content = mime.build(rendered, files, date_ms=DATE_MS, message_id="m", to_all=not alone)
        whole = (mime.top(given, recipient, "m") if alone else b"") + content
        found = checks.check_content(whole, domains=[DOMAIN])
        if given.get("raw") is None:
            assert found is None or found.rule in AFTER, found
            if found is None:
                _read_back(rendered, whole)
        if found is None:
            reading.read(whole).words()
            _signed(whole)


def _read_back(rendered: Any, whole: bytes) -> None:
    """A mail program of the standard library's sees the fields that are meant, and the text that was written."""
    parsed = message_from_bytes(whole, policy=policy.compat32)
    known = {"from", "to", "cc", "subject", "date", "message-id", "mime-version", "reply-to", "content-type",
             "content-transfer-encoding", "content-disposition", "content-id"}  # fmt: skip
    extra = {header["name"].lower() for header in rendered.get("headers", [])}
    assert {name.lower() for name in parsed.keys()} <= known | extra, parsed.keys()  # noqa: SIM118  # a Message, no dict
    assert sum(name.lower() == "from" for name in parsed.keys()) == 1  # noqa: SIM118  # the same
    for kind, text in (("text/plain", rendered.get("text")), ("text/html", rendered.get("html"))):
        part = next((p for p in parsed.walk() if p.get_content_type() == kind and not p.get_filename("")), None)
        if text is not None:
            assert part is not None, kind
            payload: Any = part.get_payload(decode=True)
            assert _lines(payload.decode()) == _lines(text), (kind, payload, text)
    files = [p for p in parsed.walk() if p["Content-Disposition"] is not None]
    wanted = [mime.file(attachment["content"]).digest for attachment in rendered.get("attachments", [])]
    assert sorted(mime.file(p.get_payload(decode=True)).digest for p in files) == sorted(wanted)  # type: ignore[arg-type]


def _lines(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text if text.endswith("\n") else text + "\n"


def _signed(whole: bytes) -> None:
    key, record = _key()
    field = dkim.sign(whole, DOMAIN, [key], now_ms=DATE_MS)
    assert dkim.verify(field + whole, lambda name: record) == [True]


def reading_(data: bytes) -> None:
    sample = reading.read(data)
    sample.words()
    assert len(sample.links) <= reading.LINKS_MAX
    assert len(sample.text) + len(sample.page) <= 2 * (reading.TEXT_MAX + reading.PARTS_MAX)
    assert math.isfinite(scoring.score(data)["value"])
    checks.check_content(data, domains=[DOMAIN])


def feedback_(data: bytes) -> None:
    found = feedback.read(data)
    assert found.kind in get_args(Kind) and found.rule
    assert len(found.recipients) <= MAX_RECIPIENTS
    for one in found.recipients:
        assert one.address and len(one.diagnostic) <= MAX_DIAGNOSTIC
        assert one.action in get_args(Action) and re.fullmatch(r"([245]\.\d{1,3}\.\d{1,3})?", one.status)
        assert one.reply_code == 0 or 100 <= one.reply_code < 1000
        _judged(one.judgement)
        if one.judgement.bounce_class == "hard":
            assert found.kind == "bounce" and one.action in ("failed", ""), found
        one.is_about("r@there.test")
    if found.complaint is not None:
        assert found.kind == "complaint" and found.complaint.feedback_type in get_args(FeedbackType)
    for text in _texts(asdict(found)):
        text.encode()  # it becomes events: no surrogates


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for pair in value.items() for part in pair for text in _texts(part))
    elif isinstance(value, (list, tuple)):
        yield from (text for part in value for text in _texts(part))


def _judged(judgement: bounces.Judgement) -> None:
    assert judgement.reason in bounces.REASONS and judgement.rule and 0 <= judgement.confidence <= 1, judgement
    assert judgement.bounce_class in ("hard", "soft", "undetermined")


def judge(data: bytes) -> None:
    source = Bytes(data)
    code = (0, *range(200, 600))[source.number(256) + source.number(146)]
    action = ("failed", "delayed", "delivered", "")[source.number(4)]
    status, site, text = source.text(), source.text(), source.text()
    judgement = bounces.judge(code, status, text, action=action, site=site)
    _judged(judgement)
    if judgement.bounce_class == "hard":
        assert action != "delayed", judgement
        assert not 400 <= code < 500 or (action == "failed" and judgement.reason == "user-unknown"), judgement
    verdict = bounces.classify(Reply(code, status, text), "rcpt", site)
    same = bounces.judge(code, status, text, phase="rcpt", site=site)
    assert verdict.outcome != "hard" or same.bounce_class == "hard", (verdict, same)


def replies(data: bytes) -> None:
    source = Bytes(data)
    code = 100 * source.number(10) + source.number(100)
    phase = PHASES[source.number(len(PHASES))]
    reply = Reply.parse(code, data[3:].decode("ascii", "surrogateescape"))
    assert len(reply.text) <= MAX_TEXT and re.fullmatch(r"([245]\.\d{1,3}\.\d{1,3})?", reply.enhanced)
    str(reply).encode()
    verdict = bounces.classify(reply, phase)
    if verdict.outcome == "hard":
        assert 500 <= code < 600 and phase not in bounces.ABOUT_US
    if verdict.outcome == "delivered":
        assert phase == "done"


def addresses_(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    try:
        found = addresses.normalise(text)
    except addresses.BadAddress as error:
        error.text.encode("utf-8", "replace")
        assert len(error.text) <= 300
    else:
        assert len(found.text.encode()) <= addresses.ADDRESS_MAX + 2 and found.ascii_domain.isascii()
        assert addresses.normalise(found.text) == found
        assert headers.CONTROLS.search(found.text) is None
    assert addresses.key(addresses.key(text)) == addresses.key(text)
    domain, _, name = text.partition("\n")
    try:
        ours = addresses.ascii_domain(domain)
    except addresses.BadAddress:
        pass
    else:
        assert addresses.ascii_domain(ours) == ours and addresses.lies_in(ours, domain)
    if headers.CONTROLS.search(name) is None and name.isprintable():
        field = headers.mailbox_list("To", [{"address": f"a@{DOMAIN}", "name": name}])
        assert "\r\n\r\n" not in field and not re.search(r"\r\n(?![ \t])", field)


TARGETS: dict[str, Target] = {
    "codec": codec, "schema": schema, "mime": mime_, "reading": reading_, "feedback": feedback_, "replies": replies, "judge": judge,
    "addresses": addresses_, "submission": doors.submission, "form": doors.form,
}  # fmt: skip


# -- seeds -----------------------------------------------------------------------------------------------------------

_MAIL = b"""From: =?utf-8?q?J=C3=B6rg?= <a@acme.test>\r\nTo: r@there.test\r\nSubject: =?utf-8?b?w7w=?=\r\n hello\r
Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: text/html; charset=iso-8859-1\r
Content-Transfer-Encoding: quoted-printable\r\n\r\n<a href=3D"http://x@evil.test/&#106;">https://bank.test</a>\r\n--b\r
Content-Type: message/rfc822\r\n\r\nContent-Disposition: attachment; filename*0*=utf-8''r%C3%A9; filename*1=".exe"\r
Content-Transfer-Encoding: base64\r\n\r\nTVo=\r\n--b--\r\n"""
_DSN = b"""Content-Type: multipart/report; report-type=delivery-status; boundary="b"\r\n\r\n--b\r\n\r\nfailed\r\n--b\r
Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.there.test\r\n\r\nFinal-Recipient: rfc822; r@there.test\r
Original-Recipient: rfc822;R@there.test\r\nAction: failed\r\nStatus: 5.1.1 (no)\r\nDiagnostic-Code: smtp; 550 5.1.1\r
  unknown\r\n\r\nFinal-Recipient: rfc822; s@there.test\r\nAction: delayed\r\nStatus: 4.4.7\r\n--b--\r\n"""
_ARF = b"""From: fbl@there.test\nContent-Type: multipart/report; report-type=feedback-report; boundary=b\n\n--b\n\nabuse\n--b
Content-Type: message/feedback-report\n\nFeedback-Type: abuse\nUser-Agent: x/1\nVersion: 1\nOriginal-Mail-From: <a@acme.test>
Original-Rcpt-To: <r@there.test>\nSource-IP: 192.0.2.1\n\n--b\nContent-Type: message/rfc822\n\nFrom: a@acme.test
Message-ID: <x@acme.test>\nFeedback-ID: c:s:t:i\n\nhello\n--b--\n"""
_TOLD = b"""From: Mail Delivery System <MAILER-DAEMON@there.test>\nSubject: Undelivered Mail Returned to Sender
X-Failed-Recipients: r@there.test\n\nThis message was created automatically. Delivery failed:\n\n  r@there.test
    SMTP error from remote mail server after RCPT TO:<r@there.test>: 550 5.1.1 user unknown
\n------ This is a copy of the message ------\n\nFrom: a@acme.test\nTo: r@there.test\nMessage-ID: <x@acme.test>\n"""
_AWAY = b"""From: r@there.test\nSubject: Out of office: hello\nAuto-Submitted: auto-replied\nPrecedence: bulk\n\nI am away.\n"""
_ADDRESSES = (
    "a@b.test", '"a b"@b.test', "a+tag@sub.B.test", "ü@bücher.test", "a@xn--bcher-kva.test", "a.@b.test", "a@b", "a@b..test",
    "a@[192.0.2.1]", "a@1.2.3.4", "x" * 64 + "@b.test", "A (c) <a@b.test>", "acme.test.\nThe \"Help\" désk =?", "ß@ß.test",
)  # fmt: skip


def _pieces(*pieces: bytes | str | int) -> bytes:
    """The input of which `Bytes` gives these parts."""
    made = b""
    for piece in pieces:
        if isinstance(piece, int):
            made += bytes((piece,))
        else:
            made += (piece.encode() if isinstance(piece, str) else piece) + b"\xff"
    return made


def seeds(target: str) -> Iterator[bytes]:
    """What a target begins with: small, and of its own kind."""
    if target == "codec":
        for number, name in enumerate(avro.names()):
            for case in samples.CASES:
                raw = samples.encoded(name, case, "single")
                yield bytes((number, 0)) + raw
                yield bytes((number, 1)) + raw[10:]
                yield bytes((number, 0)) + samples.encoded(name, case, "confluent")
    elif target == "schema":
        ours = avro.load("Suppression")
        record = samples.encoded("Suppression", "full", "single")[10:]
        yield json.dumps(ours, separators=(",", ":")).encode() + b"\0" + record
        fields = [field for field in ours["fields"] if field["name"] != "detail"]
        later = {"name": "later", "type": {"type": "map", "values": ["null", "string"]}, "default": {}}
        yield json.dumps({**ours, "fields": [*fields, later]}).encode() + b"\0" + record
        yield b'{"type":"record","name":"Suppression","fields":[{"name":"x","type":["null","Suppression"]}]}\0\0'
    elif target == "mime":
        yield _pieces(4, "news", "Acme", "Hello", 0, "r", "", 0, "text\nüber")
        yield _pieces(0b11101101, "news", "Ä", "Hi {{n}}", 1, "r", "R", 0, "n", "N<", "s", "", 1, "n", "x", "t {{n}}", "<p>{{n}}</p>",
                      0, "weiß.pdf", "application/pdf", b"%PDF\0", "cid", "help", "He\"lp")  # fmt: skip
        yield _pieces(0b00011110, "news", "Acme", "S", 0, "r", "", 2, b"From: news@acme.test\nSubject: x\n\nhello\n", "t", "h", 0,
                      "X-A", "b")  # fmt: skip
        yield _pieces(2, "news", "", "", 0, "r", "", 0, b"From: news@acme.test\r\nBcc: x@y.test\r\n z\r\n\r\nhello")
        yield _pieces(
            0b00010100,
            "news",
            "Acme",
            "S",
            0,
            "r",
            "",
            2,
            "t",
            1,
            "List-Unsubscribe",
            "<https://acme.test/" + "u" * 90 + ">",
            "X-B",
            "ü" * 99,
        )
    elif target == "reading":
        yield _MAIL
        yield _MAIL.replace(b"\r\n", b"\n")
        yield _DSN
        yield b"From: a@acme.test\r\nSender: b@acme.test\r\n\r\nhttp://[2600::1]/ http://0x08080808/\r\n"
    elif target == "feedback":
        yield _DSN
        yield _DSN.replace(b"\r\n", b"\n")
        yield b"Content-Type: message/delivery-status\n\nStatus: 5.0.0\n\nFinal-Recipient: x\n"
        yield from (_ARF, _TOLD, _AWAY)
    elif target == "judge":
        for rule in bounces.RULES:
            yield _pieces(255, 96, 0, "5.0.0", "", rule.sample)
        yield _pieces(
            0,
            0,
            1,
            "4.4.7",
            "there",
            "host there.test[192.0.2.1] said: 550 5.1.1 <r@there.test>: user unknown (in reply to RCPT TO)",
        )
    elif target == "replies":
        for rule in bounces.RULES:
            code, _, text = rule.sample.partition(" ")
            if code.isdigit():
                yield bytes((int(code) // 100, int(code) % 100, PHASES.index("rcpt"))) + text.encode()
        yield bytes((5, 50, PHASES.index("body"))) + b"5.7.1 two\n5.7.1 lines \xff\xc3\xbc"
    elif target == "addresses":
        yield from (text.encode() for text in _ADDRESSES)
    else:
        yield from doors.seeds(target)
