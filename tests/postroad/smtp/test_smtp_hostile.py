"""Receivers that mean harm, or are broken: each ends in bounded time and memory, with a named outcome."""

import asyncio
import tracemalloc

import pytest
from smtp_hosts import PIPELINING, QUICK, SITE, Farm, Host, deliver, until

from postroad.smtp import Reply
from postroad.smtp_wire import MAX_REPLY


@pytest.mark.parametrize(
    ("says", "phase", "outcome"),
    [
        ({"BANNER": b"SSH-2.0-OpenSSH_9.6"}, "banner", "protocol-error"),
        ({"BANNER": b"999 hello"}, "banner", "protocol-error"),
        ({"BANNER": b"220-" + b"x" * 20_000}, "banner", "protocol-error"),
        ({"BANNER": b"220-x\r\n" * 20_000}, "banner", "protocol-error"),
        ({"BANNER": b"554 5.7.1 go away"}, "banner", "replied"),
        ({"BANNER": b"421 4.7.0 too many connections"}, "banner", "replied"),
        ({"EHLO": b"550 no", "HELO": b"550 no"}, "ehlo", "replied"),
        ({"BANNER": b"250 hello"}, "banner", "protocol-error"),
        ({"BANNER": b"120 wait"}, "banner", "protocol-error"),
        (
            {"EHLO": b"250-mx\r\n" + b"".join(b"250-X%d\r\n" % n for n in range(10_000)) + b"250 Y"},
            "ehlo",
            "protocol-error",
        ),
        ({"EHLO": b"354 go on"}, "ehlo", "protocol-error"),
        ({"MAIL": b"354 go on"}, "mail", "protocol-error"),
        ({"RCPT": b"220 ready"[::-1]}, "rcpt", "protocol-error"),
        ({"RCPT": b"25"}, "rcpt", "protocol-error"),
        ({"RCPT": b"2500 OK"}, "rcpt", "protocol-error"),
        ({"RCPT": b"\x00\xff\x00"}, "rcpt", "protocol-error"),
        ({"MAIL": b"250 OK\r\n250 OK"}, "rcpt", "protocol-error"),
        ({"DATA": b"354 go\r\n354 go"}, "data", "protocol-error"),
        ({"DATA": b"250 fine"}, "data", "protocol-error"),
        ({"BODY": b"354 more"}, "body", "protocol-error"),
        ({"RCPT": b"250-a\r\n" * 20_000}, "rcpt", "protocol-error"),
    ],
)
async def test_hosts_that_do_not_speak_smtp(
    farm: Farm, says: dict[str, bytes | None], phase: str, outcome: str
) -> None:
    result = await deliver(await farm(Host(says)))
    assert (result.phase, result.outcome) == (phase, outcome)


@pytest.mark.parametrize("verb", ["BANNER", "EHLO", "MAIL", "RCPT", "DATA", "BODY"])
async def test_silence_ends_in_time_with_a_name(farm: Farm, verb: str) -> None:
    result = await deliver(await farm(Host({verb: None})), timeouts=QUICK)
    assert (result.phase, result.outcome) == (verb.lower(), "timeout")
    assert result.reply.text.startswith("timeout: ")


async def test_host_that_stops_reading(farm: Farm) -> None:
    host = Host({"EHLO": b"250 mx"})

    async def stop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        while not (await reader.readline()).startswith(b"DATA"):
            writer.write(b"250 OK\r\n")
        writer.write(b"354 go on\r\n")
        await asyncio.sleep(10)

    host.serve = stop  # type: ignore[method-assign]
    result = await deliver(await farm(host), b"x\r\n" * 7_000_000, timeouts=QUICK)
    assert (result.phase, result.outcome) == ("data", "timeout")


async def test_refused_in_the_middle_of_a_large_message(farm: Farm) -> None:
    host = Host({"EHLO": b"250 mx"})

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        while not (await reader.readline()).startswith(b"DATA"):
            writer.write(b"250 OK\r\n")
        writer.write(b"354 go on\r\n")
        await reader.readexactly(1000)
        writer.write(b"552 5.3.4 enough\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()

    host.serve = refuse  # type: ignore[method-assign]
    result = await deliver(await farm(host), b"x" * 76 + b"\r\n" * 5_000_000)
    assert not result.delivered
    assert (result.phase, result.reply.code) in (("body", 552), ("data", 0))  # a reset may overtake the reply


class Streamer(Host):
    """Says pieces for ever at one point, and nothing else from there on."""

    def __init__(self, at: str, piece: bytes, pause: float = 0, says: dict[str, bytes | None] | None = None) -> None:
        super().__init__(says)
        self.at, self.piece, self.pause, self.said = at, piece, pause, 0

    async def say(self, verb: str, writer: asyncio.StreamWriter) -> bool:
        if verb != self.at:
            return await super().say(verb, writer)
        while True:
            writer.write(self.piece)
            await writer.drain()
            self.said += len(self.piece)
            await asyncio.sleep(self.pause)


STATES = ["BANNER", "EHLO", "MAIL", "RCPT", "DATA", "BODY"]


@pytest.mark.parametrize("verb", STATES)
async def test_an_endless_reply_of_many_lines(farm: Farm, verb: str) -> None:
    code = b"354-" if verb == "DATA" else b"220-" if verb == "BANNER" else b"250-"
    result = await deliver(await farm(Streamer(verb, code + b"and more\r\n")))
    assert (result.phase, result.outcome) == (verb.lower(), "protocol-error")


@pytest.mark.parametrize("verb", STATES)
async def test_a_line_without_an_end_is_not_kept(farm: Farm, verb: str) -> None:
    """As the first bytes of 2 GB: the connection is gone after some KB."""
    client, host = await farm(), Streamer(verb, b"250 " + b"x" * 1_000_000)
    client = await farm(host)
    tracemalloc.start()
    try:
        result = await deliver(client)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (result.phase, result.outcome) == (verb.lower(), "protocol-error")
    assert most < 30_000_000 and len(str(result.reply)) < MAX_REPLY


@pytest.mark.parametrize("verb", STATES)
@pytest.mark.parametrize("piece", [b"2", b"250-x\r\n"])
async def test_a_reply_that_drips_must_be_complete_in_time(farm: Farm, verb: str, piece: bytes) -> None:
    """Every byte comes soon after the last, so that a time-out of each read would never strike."""
    result = await deliver(await farm(Streamer(verb, piece, pause=0.02)), timeouts=QUICK)
    assert (result.phase, result.outcome) == (verb.lower(), "timeout")


@pytest.mark.parametrize("verb", STATES)
async def test_closed_in_every_state(farm: Farm, verb: str) -> None:
    client = await farm(Host({verb: b""}))
    result = await deliver(client)
    assert (result.phase, result.outcome) == (verb.lower(), "connection-lost")
    await until(lambda: client.pool.connections == {})


@pytest.mark.parametrize("verb", STATES)
async def test_half_a_reply_and_closed(farm: Farm, verb: str) -> None:
    class Half(Host):
        async def say(self, said: str, writer: asyncio.StreamWriter) -> bool:
            if said != verb:
                return await super().say(said, writer)
            writer.write(b"250-half\r\n250 o")
            return False

    result = await deliver(await farm(Half()))
    assert (result.phase, result.outcome) == (verb.lower(), "connection-lost")


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "BODY"])
@pytest.mark.parametrize("ehlo", [PIPELINING, b"250-mx\r\n250 8BITMIME"])
async def test_421_at_any_moment(farm: Farm, verb: str, ehlo: bytes) -> None:
    """Also where nobody has asked: with the reply to the command before."""
    said = {"MAIL": b"250 OK", "RCPT": b"250 OK", "DATA": b"354 go", "BODY": b"250 OK"}[verb]
    result = await deliver(await farm(Host({"EHLO": ehlo, verb: said + b"\r\n421 4.3.2 going down"})))
    if verb == "BODY":
        assert result.delivered
    elif ehlo == PIPELINING and verb != "DATA":
        assert result.reply.code == 421 and result.outcome == "replied"
    else:
        assert (result.outcome, result.reply) == ("replied", Reply(421, "4.3.2", "going down"))


async def test_replies_to_nothing_on_an_idle_connection(farm: Farm) -> None:
    class Chatty(Host):
        async def say(self, verb: str, writer: asyncio.StreamWriter) -> bool:
            going = await super().say(verb, writer)
            if verb == "BODY":
                asyncio.get_running_loop().call_later(0.05, writer.write, b"250 and something else\r\n")
            return going

    host = Chatty()
    client = await farm(host)
    assert (await deliver(client)).delivered
    await asyncio.sleep(0.1)
    again = await deliver(client)
    assert again.delivered and not again.reused and len(host.bodies) == 2


async def test_nuls_in_replies_do_not_reach_events(farm: Farm) -> None:
    result = await deliver(await farm(Host({"RCPT": b"550 5.1.1 no\0such\x1b[2J \xff user"})))
    assert result.reply == Reply(550, "5.1.1", "no\ufffdsuch\ufffd[2J \ufffd user")


async def test_a_host_that_does_not_go_after_quit_holds_its_place_for_a_bounded_time(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stays(Host):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await super().serve(reader, _Open(writer))  # type: ignore[arg-type]

    class _Open:
        def __init__(self, writer: asyncio.StreamWriter) -> None:
            self.write, self.drain = writer.write, writer.drain

        def close(self) -> None:
            """Not now."""

    monkeypatch.setattr("postroad.smtp_wire.QUIT_S", 0.1)
    client = await farm(Stays())
    assert (await deliver(client, messages_per_connection=1)).delivered
    assert client.pool.connections == {SITE: 1}, "it counts as long as the host has it"
    await until(lambda: client.pool.connections == {})
