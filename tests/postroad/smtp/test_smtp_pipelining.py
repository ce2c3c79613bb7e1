"""PIPELINING: three commands in one write, and each reply is that of its command, whatever the host makes of them."""

import asyncio
import contextlib

import pytest
from smtp_hosts import MAIL, PIPELINING, QUICK, Farm, Host, deliver

from postroad.smtp import Reply


class Piper(Host):
    """Offers PIPELINING; notes what came in each read."""

    def __init__(self, says: dict[str, bytes | None] | None = None) -> None:
        super().__init__({"EHLO": PIPELINING, **(says or {})})
        self.reads: list[bytes] = []

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own = asyncio.StreamReader()

        async def pump() -> None:
            while data := await reader.read(100_000):
                self.reads.append(data)
                own.feed_data(data)
            own.feed_eof()

        pumping = asyncio.create_task(pump())
        try:
            await super().talk(own, writer)
        finally:
            pumping.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await pumping


async def test_mail_rcpt_and_data_in_one_write(farm: Farm) -> None:
    host = Piper()
    client = await farm(host)
    first, second = await deliver(client), await deliver(client)
    assert first.delivered and second.delivered and second.reused
    commands = [read for read in host.reads if read.startswith(b"MAIL")]
    assert len(commands) == 2 and all(read.endswith(b"DATA\r\n") and read.count(b"\r\n") == 3 for read in commands)
    assert host.bodies == [MAIL.replace(b"\r\n.", b"\r\n..") + b".\r\n"] * 2


REFUSED = b"550 5.1.1 no"


@pytest.mark.parametrize(
    ("says", "phase", "reply"),
    [
        ({"MAIL": REFUSED, "RCPT": b"503 5.5.1 MAIL first", "DATA": b"503 5.5.1 RCPT first"}, "mail", REFUSED),
        ({"RCPT": REFUSED, "DATA": b"554 5.5.1 no valid recipients"}, "rcpt", REFUSED),
        ({"RCPT": b"450 4.2.0 grey", "DATA": b"503 5.5.1 RCPT first"}, "rcpt", b"450 4.2.0 grey"),
        ({"DATA": REFUSED}, "data", REFUSED),
        ({"RCPT": b"450-4.2.0 grey\r\n450 4.2.0 list", "DATA": b"503-a\r\n503 b"}, "rcpt", b"450 4.2.0 grey\nlist"),
    ],
)
async def test_the_first_refusal_is_the_result_and_the_connection_goes_on(
    farm: Farm, says: dict[str, bytes | None], phase: str, reply: bytes
) -> None:
    host = Piper(says)
    client = await farm(host)
    result = await deliver(client)
    assert (result.phase, result.outcome) == (phase, "replied")
    assert result.reply == Reply.parse(int(reply[:3]), reply[4:].decode())
    assert host.bodies == []
    host.says.update(MAIL=b"250 OK", RCPT=b"250 OK", DATA=b"354 go on")
    again = await deliver(client)
    assert again.delivered and again.reused and len(host.bodies) == 1
    assert ("RSET" in host.commands) == (phase != "mail"), "only where MAIL had begun something"


@pytest.mark.parametrize("verb", ["MAIL", "RCPT"])
@pytest.mark.parametrize("after", [b"554 5.5.1 no valid recipients", b"250 2.0.0 taken, by nobody"])
async def test_no_body_to_nobody(farm: Farm, verb: str, after: bytes) -> None:
    """RFC 2920 3.1: the host says 354 though it has no recipient: a dot alone ends it."""
    host = Piper({verb: REFUSED, "BODY": after})
    client = await farm(host)
    result = await deliver(client)
    assert (result.phase, result.reply.code) == (verb.lower(), 550)
    assert host.bodies == [b".\r\n"], "not one byte of the message"
    host.says.update(MAIL=b"250 OK", RCPT=b"250 OK", BODY=b"250 2.0.0 taken")
    assert (await deliver(client)).reused and len(host.bodies) == 2 and "RSET" in host.commands


@pytest.mark.parametrize(
    "says", [{"BODY": b""}, {"BODY": None}, {"BODY": b"nonsense"}, {"DATA": b""}, {"DATA": b"421 x"}]
)
async def test_a_refusal_stands_whatever_comes_after_it(farm: Farm, says: dict[str, bytes | None]) -> None:
    host = Piper({"RCPT": REFUSED, **says})
    client = await farm(host)
    result = await deliver(client, timeouts=QUICK)
    assert (result.phase, result.reply) == ("rcpt", Reply(550, "5.1.1", "no"))
    host.says.update(RCPT=b"250 OK", DATA=b"354 go on", BODY=b"250 OK")
    again = await deliver(client)
    assert again.delivered and not again.reused, "nobody knows in what state the old connection is"


async def test_421_in_the_middle_of_three(farm: Farm) -> None:
    host = Piper({"RCPT": b"421 4.3.2 going down"})
    result = await deliver(await farm(host))
    assert (result.phase, result.reply.code, host.bodies) == ("rcpt", 421, [])


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
async def test_more_replies_than_commands(farm: Farm, verb: str) -> None:
    """A reply too many, early: from there on replies would be taken for those of other commands."""
    host = Piper({"MAIL": b"250 OK\r\n" * 3 + b"250 one too many"})
    result = await deliver(await farm(host))
    assert (result.outcome, host.bodies) == ("protocol-error", [])


async def test_354_twice(farm: Farm) -> None:
    host = Piper({"DATA": b"354 go on\r\n354 go on, I said"})
    result = await deliver(await farm(host))
    assert (result.phase, result.outcome, host.bodies) == ("data", "protocol-error", [])


async def test_the_reply_to_the_message_before_the_message(farm: Farm) -> None:
    """It must not count as the host's word for a message that it has not read."""
    host = Piper({"DATA": b"354 go on\r\n250 2.0.0 taken"})
    result = await deliver(await farm(host))
    assert not result.delivered and (result.phase, result.outcome) == ("data", "protocol-error")


async def test_a_stale_connection_is_replaced(farm: Farm) -> None:
    host = Piper()
    client = await farm(host)
    assert (await deliver(client)).delivered
    host.says["MAIL"] = b"421 4.4.2 idle for too long"
    task = asyncio.create_task(deliver(client))
    host.closed.clear()
    await host.closed.wait()
    host.says["MAIL"] = b"250 OK"
    result = await task
    assert result.delivered and not result.reused and len(host.bodies) == 2
