"""One SMTP connection as a receiver sees it.

RFC 5321, 1870 (SIZE), 2034 (ENHANCEDSTATUSCODES), 2920 (PIPELINING), 3207 (STARTTLS), 6152 (8BITMIME), 6531 (SMTPUTF8).
Strict on purpose: it stands for the receiver that forgives nothing. Only CRLF ends a line, and a message with a bare CR
or LF, a NUL, a line over 998 bytes, or 8-bit data that was not announced, is refused after the dot.
"""

import asyncio
import re
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from loadtest.mxfarm.receiver import Receiver

COMMAND_LIMIT = 2048  # bytes of a command line; RFC 5321 4.5.3.1.4 asks for 512 and more for each extension
TEXT_LIMIT = 998  # bytes of a line of a message without CRLF; RFC 5321 4.5.3.1.6
RECIPIENTS = 100  # of one transaction; RFC 5321 4.5.3.1.8
ERRORS = 20  # replies 5xx to syntax errors until the session ends

# Of all connections: asyncio fills it and calls buffer_updated in one go, instead of allocating as much for each read.
_RECEIVED = memoryview(bytearray(256 * 1024))

_PATH = r'<((?:"(?:[^"\\\x00-\x1f]|\\[^\x00-\x1f])*"|[^<>"\s\x00-\x1f])*)>'
_MAIL = re.compile(r"FROM:" + _PATH + r"((?: \S+)*) *", re.IGNORECASE)
_RCPT = re.compile(r"TO:" + _PATH + r"((?: \S+)*) *", re.IGNORECASE)


class Session(asyncio.BufferedProtocol):
    """One connection. Input waits in `_input` while a reply is delayed or the peer does not read."""

    transport: asyncio.Transport

    def __init__(self, receiver: "Receiver", host: str) -> None:
        self._receiver, self._host = receiver, host
        self._input = bytearray()
        self._output: list[str] = []
        self._content: bytearray | None = None  # while in DATA; begins with the CRLF before the first line
        self._too_big = False
        self._skipping = False  # the rest of an overlong command line
        self._mute = False  # read on, say nothing
        self._waiting = self._choked = self._closing = False
        self._errors = 0
        self._tls = False
        self._source = ""
        self._helo = ""
        self._number = 0  # in the log of connections; 0: it has ended there
        self._reset()

    def _reset(self) -> None:
        self._mail_from: str | None = None
        self._recipients: list[str] = []
        self._eight_bit = self._utf8 = False

    # asyncio's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._source = transport.get_extra_info("peername")[0]
        receiver = self._receiver
        self._number = receiver.connections.opened(self._socket, receiver.site.name, self._source, self._host)
        limit = receiver.behaviour.connections
        too_many = limit and len(receiver.sessions) >= limit
        if too_many:
            self._end(f"421 4.7.0 {self._host} too many connections, try again later")
            return self._flush()
        receiver.sessions.add(self)
        if receiver.behaviour.mode == "silent":
            self._mute = True
            return
        self._reply(f"220 {self._host} ESMTP")
        if delay := receiver.behaviour.delay_ms:
            self._wait(delay / 1000)
        else:
            self._flush()

    def eof_received(self) -> None:
        self._note_end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._note_end()
        self._receiver.sessions.discard(self)

    def pause_writing(self) -> None:
        self._choked = True
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self._choked = False
        self.transport.resume_reading()
        self._work()

    def get_buffer(self, sizehint: int) -> memoryview:
        return _RECEIVED

    def buffer_updated(self, nbytes: int) -> None:
        if not (self._mute or self._closing):
            self._input += _RECEIVED[:nbytes]
            self._work()

    @property
    def _socket(self) -> socket.socket | None:
        found: socket.socket | None = self.transport.get_extra_info("socket")
        return found

    def _note_end(self) -> None:
        if self._number:
            self._receiver.connections.ended(self._socket, self._number)
            self._number = 0

    def cut(self) -> None:
        """Drop the connection as it is."""
        self._note_end()
        self._closing = True
        self._output.clear()
        self.transport.abort()

    # input to lines, replies to output

    def _work(self) -> None:
        while self._input and not (self._waiting or self._choked or self._closing or self._mute):
            if not (self._take_line() if self._content is None else self._take_content()):
                break
            if self._output and (delay := self._receiver.behaviour.delay_ms):
                self._wait(delay / 1000)
        if self._output and not self._waiting:
            self._flush()

    def _wait(self, seconds: float) -> None:
        self._waiting = True
        self.transport.pause_reading()
        asyncio.get_running_loop().call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        self._waiting = False
        if not self.transport.is_closing():
            self._flush()
            self.transport.resume_reading()
            self._work()

    def _flush(self) -> None:
        if self._output:
            self.transport.write(("\r\n".join(self._output) + "\r\n").encode())
            self._output.clear()
        if self._closing:
            self.transport.close()

    def _reply(self, text: str) -> None:
        self._output.append(text)

    def _end(self, text: str) -> None:
        self._reply(text)
        self._closing = True

    def _error(self, text: str) -> None:
        self._errors += 1
        if self._errors > ERRORS:
            self._end("421 4.7.0 too many errors")
        else:
            self._reply(text)

    def _take_line(self) -> bool:
        end = self._input.find(b"\n")
        if end < 0:
            if len(self._input) > COMMAND_LIMIT:
                self._skipping = True
                self._input.clear()
            return False
        line = bytes(self._input[: end + 1])
        del self._input[: end + 1]
        if self._skipping or len(line) > COMMAND_LIMIT:
            self._skipping = False
            self._error("500 5.5.2 line too long")
        elif line[-2:] != b"\r\n" or b"\r" in line[:-2] or b"\0" in line:
            self._error("500 5.5.2 a line ends with CRLF and holds no CR, LF or NUL")
        else:
            self._command(line[:-2])
        return True

    def _command(self, line: bytes) -> None:
        try:
            verb, _, rest = line.decode().partition(" ")
        except UnicodeDecodeError:
            return self._error("500 5.5.2 not UTF-8")
        handler = self._COMMANDS.get(verb.upper())
        if handler is None:
            return self._error("500 5.5.1 unknown command")
        handler(self, rest)

    # commands

    def _ehlo(self, rest: str) -> None:
        if not rest.strip() or not rest.isascii():
            return self._error("501 5.5.4 EHLO needs a host name")
        self._reset()
        self._helo = rest.strip()
        words = ["PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", f"SIZE {self._receiver.behaviour.size}"]
        if self._receiver.behaviour.starttls and not self._tls:
            words.append("STARTTLS")
        self._reply("".join(f"250-{word}\r\n" for word in [self._host, *words[:-1]]) + f"250 {words[-1]}")

    def _hello(self, rest: str) -> None:
        if not rest.strip() or not rest.isascii():
            return self._error("501 5.5.4 HELO needs a host name")
        self._reset()
        self._helo = rest.strip()
        self._reply(f"250 {self._host}")

    def _mail(self, rest: str) -> None:
        self._receiver.connections.mail(self._socket, self._number)
        found = _MAIL.fullmatch(rest)
        if not self._helo or self._mail_from is not None:
            return self._error("503 5.5.1 EHLO first" if not self._helo else "503 5.5.1 MAIL was already given")
        if not found:
            return self._error("501 5.5.4 syntax: MAIL FROM:<address>")
        eight_bit = utf8 = False
        for word in found[2].split():
            key, _, value = word.upper().partition("=")
            if key == "SIZE" and value.isascii() and value.isdigit() and len(value) <= 20:
                if int(value) > self._receiver.behaviour.size:
                    return self._reply("552 5.3.4 message too big")
            elif key == "BODY" and value in ("7BIT", "8BITMIME"):
                eight_bit = value == "8BITMIME"
            elif word.upper() == "SMTPUTF8":
                utf8 = True
            else:
                return self._error("555 5.5.4 unknown parameter of MAIL")
        if not (utf8 or found[1].isascii()):
            return self._error("553 5.6.7 SMTPUTF8 is needed for this address")
        self._mail_from, self._eight_bit, self._utf8 = found[1], eight_bit, utf8
        self._reply("250 2.1.0 ok")

    def _rcpt(self, rest: str) -> None:
        if self._mail_from is None:
            return self._error("503 5.5.1 MAIL first")
        found = _RCPT.fullmatch(rest)
        if not found or found[2]:
            return self._error(
                "555 5.5.4 unknown parameter of RCPT" if found else "501 5.5.4 syntax: RCPT TO:<address>"
            )
        local, _, domain = found[1].rpartition("@")
        if not local:
            return self._error("501 5.1.3 not an address")
        if not (self._utf8 or found[1].isascii()):
            return self._error("553 5.6.7 SMTPUTF8 is needed for this address")
        if len(self._recipients) >= RECIPIENTS:
            return self._reply("452 4.5.3 too many recipients")
        self._reply(self._rcpt_reply(found[1], local, domain))

    def _rcpt_reply(self, recipient: str, local: str, domain: str) -> str:
        behaviour, first_try = self._receiver.behaviour, self._receiver.first_try
        if not self._receiver.takes_domain(domain):
            return "550 5.7.1 not a domain of this host"
        for start, reply in behaviour.replies.items():
            if local.startswith(start):
                return reply
        if behaviour.greylist_s:
            now = time.monotonic()
            if now - first_try.setdefault((self._mail_from or "", recipient), now) < behaviour.greylist_s:
                return "451 4.7.1 greylisted, try again later"
        self._recipients.append(recipient)
        return "250 2.1.5 ok"

    def _data(self, rest: str) -> None:
        if rest or not self._recipients:
            return self._error("501 5.5.4 DATA has no parameters" if rest else "503 5.5.1 no valid recipients")
        self._content = bytearray(b"\r\n")
        self._too_big = False
        self._reply("354 end with a dot on a line of its own")
        if self._receiver.behaviour.mode == "stall-in-data":
            self._flush()
            self._mute = True

    def _rset(self, rest: str) -> None:
        self._reset()
        self._reply("250 2.0.0 ok")

    def _noop(self, rest: str) -> None:
        self._reply("250 2.0.0 ok")

    def _vrfy(self, rest: str) -> None:
        self._reply("252 2.5.0 send some mail and see")

    def _quit(self, rest: str) -> None:
        self._note_end()
        self._end("221 2.0.0 bye")

    def _starttls(self, rest: str) -> None:
        if not self._receiver.behaviour.starttls or self._tls:
            return self._error("502 5.5.1 no STARTTLS here")
        if rest or self._input:  # what came in clear must not count as said under TLS (CVE-2011-0411)
            return self._end("554 5.5.1 nothing may follow STARTTLS before the handshake")
        self._reply("220 2.0.0 go ahead")
        self._flush()
        self._waiting = True
        self._handshake = asyncio.get_running_loop().create_task(self._start_tls())

    async def _start_tls(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            upgraded = await loop.start_tls(self.transport, self, self._receiver.tls, server_side=True)
        except (OSError, asyncio.CancelledError):  # ssl.SSLError is one; there is nobody to tell
            upgraded = None
        if upgraded is None:
            self.cut()
            self._receiver.sessions.discard(self)
            return
        self.transport = upgraded
        self._tls, self._helo, self._waiting = True, "", False
        self._reset()
        self._work()

    # the message

    def _take_content(self) -> bool:
        content = self._content
        assert content is not None and self._mail_from is not None
        behaviour = self._receiver.behaviour
        if behaviour.drop_first and self._is_first_try():
            self.cut()
            return False
        start = max(0, len(content) - 4)
        content += self._input
        self._input.clear()
        end = content.find(b"\r\n.\r\n", start)
        if end < 0:
            if len(content) > behaviour.size + 7:
                self._too_big = True
            if self._too_big:
                del content[:-4]  # enough to see the end
            return False
        self._input += content[end + 5 :]
        del content[end + 2 :]
        self._content = None
        self._reply_to_content(content.replace(b"\r\n.", b"\r\n")[2:])
        self._reset()
        return True

    def _is_first_try(self) -> bool:
        key, first_try = (self._mail_from or "", *self._recipients), self._receiver.first_try
        if len(self._content or b"") > 2:  # in the middle of a message that was let in
            return False
        if first_try.pop(key, None) is not None:
            return False
        first_try[key] = time.monotonic()
        return True

    def _reply_to_content(self, content: bytearray) -> None:
        behaviour = self._receiver.behaviour
        if self._too_big or len(content) > behaviour.size:
            return self._reply("552 5.3.4 message too big")
        if problem := problem_of(content, self._eight_bit, self._utf8):
            return self._error(f"554 {problem}")
        dropped = behaviour.mode == "close-after-data" or (
            behaviour.drop_after_dot > 0 and self._receiver.random.random() < behaviour.drop_after_dot
        )
        try:
            queue = self._receiver.log.append(
                recipients=self._recipients,
                site=self._receiver.site.name,
                mail_from=self._mail_from or "",
                time=time.time_ns() // 1_000_000,
                raw=bytes(content),
                answered=not dropped,
                tls=self._tls,
                source=self._source,
                helo=self._helo,
            )
        except OSError as error:
            return self._reply(f"451 4.3.0 cannot store the message: {error.strerror}")
        if dropped:
            return self.cut()
        self._reply(f"250 2.0.0 taken as {queue}")
        for recipient in self._recipients:
            self._receiver.send_back(self._host, self._mail_from or "", recipient, bytes(content))

    _COMMANDS: ClassVar[dict[str, "Callable[[Session, str], None]"]] = {
        "EHLO": _ehlo,
        "HELO": _hello,
        "MAIL": _mail,
        "RCPT": _rcpt,
        "DATA": _data,
        "RSET": _rset,
        "NOOP": _noop,
        "VRFY": _vrfy,
        "QUIT": _quit,
        "STARTTLS": _starttls,
    }


def problem_of(content: bytearray, eight_bit: bool, utf8: bool) -> str:
    """Why a message is refused, as enhanced code and text; "" where it is not."""
    lines = content.count(b"\r\n")
    if content.count(b"\n") != lines or content.count(b"\r") != lines:
        return "5.6.0 bare CR or LF in the message"
    if b"\0" in content:
        return "5.6.0 NUL in the message"
    if max(map(len, content.split(b"\r\n"))) > TEXT_LIMIT:
        return f"5.6.0 a line is longer than {TEXT_LIMIT} bytes"
    if not content.isascii():
        header, _, body = content.partition(b"\r\n\r\n")
        if not (eight_bit or body.isascii()):
            return "5.6.1 8-bit data needs BODY=8BITMIME"
        if not (utf8 or header.isascii()):
            return "5.6.7 8-bit headers need SMTPUTF8"
    return ""
