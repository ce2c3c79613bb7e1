"""Replies as values; the body as bytes, read back by a receiver that forgives nothing."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postroad.smtp import Reply
from postroad.smtp_wire import blocks


@pytest.mark.parametrize(
    ("code", "text", "reply"),
    [
        (550, "5.1.1 no such user", Reply(550, "5.1.1", "no such user")),
        (550, "#5.1.1 no", Reply(550, "5.1.1", "no")),
        (250, "5.1.1 odd", Reply(250, "", "5.1.1 odd")),  # RFC 2034: the class must agree with the code
        (452, "4.2.2 full\n4.2.2 try later", Reply(452, "4.2.2", "full\ntry later")),
        (421, "", Reply(421, "", "")),
        (550, "5.1.1", Reply(550, "5.1.1", "")),
        (550, "a\0b\x1b[2Jc", Reply(550, "", "a\ufffdb\ufffd[2Jc")),  # no escape sequences for terminals
        (550, "caf\udce9", Reply(550, "", "caf\ufffd")),
    ],
)
def test_reply_parse(code: int, text: str, reply: Reply) -> None:
    parsed = Reply.parse(code, text)
    assert parsed == reply
    parsed.text.encode()  # always fit for a record


def test_reply_text_is_bounded() -> None:
    assert len(Reply.parse(550, "x" * 5000).text) == 1000


def receive(wire: bytes) -> bytes:
    """As RFC 5321 4.5.2 says, byte by byte, and strict: only CRLF ends a line, a CR or LF alone is an error. It stops at the
    first line that is a dot alone, and raises where that is not the end of the bytes."""
    lines: list[bytes] = []
    at = 0
    while True:
        end = wire.index(b"\r\n", at)
        line, at = wire[at:end], end + 2
        assert b"\r" not in line and b"\n" not in line, "smuggling: somebody may take it for a line end"
        if line == b".":
            assert at == len(wire), "a second message"
            return b"".join(lines)
        lines.append((line[1:] if line.startswith(b".") else line) + b"\r\n")


def as_lines(message: bytes) -> bytes:
    """What the receiver should have: the same lines, however they were ended."""
    lines = message.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return (lines if lines.endswith(b"\n") or not lines else lines + b"\n").replace(b"\n", b"\r\n")


BITS = st.sampled_from(
    [b".", b"..", b"\r", b"\n", b"\r\n", b"a", b"\0", b"\r\n.\r\n", b"\n.\n", b"\r.\r", b"MAIL FROM:<a@b>"]
)


@given(st.lists(BITS).map(b"".join), st.integers(1, 9))
@example(b"a\r\n.\r\nMAIL FROM:<a@b>\r\n", 3)
@example(b"a\n.\r\n", 1)
@example(b"a\r\n.\n", 2)
@example(b"", 1)
def test_one_message_arrives_whatever_is_in_it(message: bytes, size: int) -> None:
    cut = list(blocks(message, size))
    assert receive(b"".join(cut)) == as_lines(message)
    assert b"\r\n.\r\n" not in b"".join(cut)[:-3] and cut[-1].endswith(b".\r\n")
    assert b"".join(cut) == b"".join(blocks(message)), "wherever it is cut"


def test_blocks_are_small_and_what_is_in_form_passes_unchanged() -> None:
    message = b"0123456789abcdef\r\n" * 20_000
    cut = list(blocks(message))
    assert b"".join(cut) == message + b".\r\n" and len(cut) > 4 and max(map(len, cut)) < 70_000
