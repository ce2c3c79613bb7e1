"""Fuzz targets of the doors: what strangers send to SMTP submission, and forms of REST. As loadtest/fuzz/targets.py.

| target | what reads the bytes | what must hold |
|---|---|---|
| submission | a session after TLS, signed in or not | no command fails unexpectedly; what is accepted is signed in for, ours to send, and has no bare line end and none of our fields |
| form | `multipart.received`, in pieces | Problem, or a message and files as large as what came |
"""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import tempfile
from collections.abc import Coroutine, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from starlette.requests import Request

from avro.records import ApiKey, Submission, Tenant
from gateway.accept import ids_of
from gateway.api import multipart
from gateway.api.problems import Problem
from gateway.identity import Identity
from gateway.limits import Limits
from gateway.session import Session
from gateway.submission import Submissions
from postroad import keys
from postroad.addresses import normalise
from postroad.settings import Settings
from topics.client import Place

DOMAIN = "acme.test"
TENANTS: dict[str, Tenant] = {"acme": {"tenant": "acme", "domains": [{"domain": DOMAIN}]}}
LIMIT = 64 << 10
ENDS_S = 20.0
_OURS = re.compile(rb"(?im)^x-postroad-")


@cache
def _loop() -> asyncio.AbstractEventLoop:
    logging.getLogger("mail").setLevel(logging.CRITICAL)
    logging.getLogger("gateway").setLevel(logging.CRITICAL)
    return asyncio.new_event_loop()


@cache
def _key() -> tuple[ApiKey, str]:
    return keys.make("acme", ["send"], 1)


def _run(work: Coroutine[Any, Any, None]) -> None:
    _loop().run_until_complete(asyncio.wait_for(work, ENDS_S))


# -- submission ------------------------------------------------------------------------------------------------------


class _Accepted:
    def __init__(self) -> None:
        self.submissions: list[Submission] = []

    async def accept(self, submission: Submission) -> list[str]:
        self.submissions.append(submission)
        return ids_of(submission, Place(0, len(self.submissions), 1))


class _Transport(asyncio.Transport):
    """What is said goes nowhere."""

    def __init__(self, session: Session) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self._session, self._closing = session, False

    def write(self, data: Any) -> None:
        assert b"Traceback" not in data

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            _loop().call_soon(self._session.connection_lost, None)

    abort = close

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def submission(data: bytes) -> None:
    """See the module; an even first byte begins signed in."""
    _run(_submission(data[1:], bool(data) and data[0] % 2 == 0))


async def _submission(data: bytes, signed_in: bool) -> None:
    key, secret = _key()
    accepted = _Accepted()
    identity = Identity({key["key_id"]: key}, TENANTS, sleep=lambda wait: None)
    door = Submissions(Settings(size_max=LIMIT), TENANTS, identity, Limits(lambda subject: None), accepted)  # type: ignore[arg-type]  # in place of Kafka
    session = door.session(True)
    transport = _Transport(session)
    session.connection_made(transport)
    if signed_in:
        session.data_received(b"EHLO a\r\nAUTH PLAIN " + base64.b64encode(b"\0a\0" + secret.encode()) + b"\r\n")
    session.data_received(data)
    handler = session._handler_coroutine
    assert handler is not None
    while not handler.done() and (session._reader._buffer.find(b"\n") >= 0 or session.storing):  # type: ignore[attr-defined]  # asyncio's
        before = len(session._reader._buffer)  # type: ignore[attr-defined]
        for _ in range(20):
            await asyncio.sleep(0)
        if before == len(session._reader._buffer) and not session.storing:  # type: ignore[attr-defined]
            break
    transport.close()
    await asyncio.sleep(0)
    if not handler.done():
        handler.cancel()
    await asyncio.gather(handler, return_exceptions=True)
    assert not door.counts["failed"], "a command failed"
    assert signed_in or not accepted.submissions
    for one in accepted.submissions:
        raw = one["raw"] or b""
        end = raw.find(b"\r\n\r\n")
        assert raw.count(b"\r\n") == raw.count(b"\r") == raw.count(b"\n") and not _OURS.search(
            raw[: end if end >= 0 else len(raw)]
        )
        assert normalise(one["sender"]["address"]).ascii_domain.endswith(DOMAIN)
        assert all(normalise(to["address"]) for to in one["recipients"])


# -- form ------------------------------------------------------------------------------------------------------------


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="postroad-fuzz-form-"))


def form(data: bytes) -> None:
    """The Content-Type to the first line feed, how large pieces are by the next byte, then the body."""
    _run(_form(data))


async def _form(data: bytes) -> None:
    kind, _, rest = data.partition(b"\n")
    step, body = 1 + (rest[0] if rest else 0), rest[1:]
    pieces = [body[at : at + step] for at in range(0, len(body), step)]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": pieces.pop(0) if pieces else b"", "more_body": bool(pieces)}

    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": [(b"content-type", kind)]}
    try:
        async with multipart.received(Request(scope, receive), LIMIT, ENDS_S, _folder()) as found:
            sizes = [len(one.file.read()) for one in found.files]
            assert sizes == [one.size for one in found.files] and sum(sizes) + len(found.message) <= len(body)
    except Problem as problem:
        assert 400 <= problem.status < 500


# -- seeds -----------------------------------------------------------------------------------------------------------


def seeds(target: str) -> Iterator[bytes]:
    """What a target begins with."""
    if target == "submission":
        mail = b"From: Ann <ann@acme.test>\r\nX-Postroad-Tags: a, b\r\nTo: b@there.test\r\nSubject: x\r\n\r\n..dot\r\nhello\r\n.\r\n"
        given = (
            b"MAIL FROM:<ann@acme.test> SIZE=100 BODY=8BITMIME SMTPUTF8\r\nRCPT TO:<b@there.test>\r\nDATA\r\n" + mail
        )
        yield b"\0" + given + b"NOOP\r\nRSET\r\nQUIT\r\n"
        yield b"\0" + given + given
        yield b"\0" + given.replace(b"hello", b"a\n.\nMAIL FROM:<x@acme.test>\r.\r\n.\n")
        yield (
            b"\1EHLO a\r\nAUTH LOGIN\r\nYQ==\r\nYQ==\r\nAUTH PLAIN =\r\nHELO x\r\nVRFY a\r\nHELP MAIL\r\nEXPN\r\n"
            + given
        )
        yield b"\0MAIL FROM:<>\r\nRCPT TO:<\xc3\xbc@b\xc3\xbccher.test>\r\nRCPT TO:b@c.test NOTIFY=NEVER\r\nMAIL FROM:\r\nDATA x\r\n"
    else:
        body = (b'--b\r\nContent-Disposition: form-data; name="message"\r\n\r\n{"to": "a@b.test"}\r\n--b\r\nContent-Disposition: form-data;'
                b' name="attachments"; filename*=utf-8\'\'a.bin\r\nContent-Type: image/png\r\nContent-ID: <c>\r\n\r\n\0\xff\r\n--b--\r\n')  # fmt: skip
        yield b"multipart/form-data; boundary=b\n\xff" + body
        yield b'multipart/form-data; boundary="b"\n\0' + body
        yield b"multipart/form-data; boundary=b\n\x10" + body[:-4]
