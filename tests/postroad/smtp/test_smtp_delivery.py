"""The SMTP client against real sockets: envelopes, hosts in order, what each reply leads to."""

import asyncio
from dataclasses import replace

import pytest
from smtp_hosts import ENVELOPE, LIMITS, MAIL, QUICK, SITE, SOURCE, Farm, Host, deliver, until

from postroad.dns import ScriptedResolver
from postroad.egress import Source
from postroad.lame import Lame
from postroad.smtp import (
    Client,
    Envelope,
    Pool,
    Reply,
    ScriptedTransport,
    Step,
    Turn,
    failed,
)


async def test_accepted_unchanged_and_connection_reused(farm: Farm) -> None:
    host = Host()
    client = await farm(host)
    first, second = await deliver(client), await deliver(client)
    assert (first.phase, first.reply) == ("done", Reply(250, "2.0.0", "taken"))
    assert (first.mx_host, first.mx_address, first.tls) == ("mx1", "127.0.0.2", "")
    assert (first.reused, second.reused, host.connections) == (False, True, 1)
    assert host.bodies[0] == MAIL.replace(b"\r\n.", b"\r\n..") + b".\r\n"
    assert host.commands[:3] == [
        "EHLO out.example.com",
        f"MAIL FROM:<b-1@bounce.example.com> SIZE={len(MAIL)}",
        "RCPT TO:<user@example.org>",
    ]
    assert "RSET" not in host.commands


@pytest.mark.parametrize(("verb", "phase"), [("MAIL", "mail"), ("RCPT", "rcpt"), ("DATA", "data"), ("BODY", "body")])
@pytest.mark.parametrize("code", [450, 550])
async def test_refusal_has_its_phase_and_the_session_goes_on(farm: Farm, verb: str, phase: str, code: int) -> None:
    host = Host({verb: b"%d %d.1.1 no" % (code, code // 100)})
    client = await farm(host)
    result = await deliver(client)
    assert (result.phase, result.outcome) == (phase, "replied")
    assert result.reply == Reply(code, f"{code // 100}.1.1", "no")
    assert not result.possible_duplicate
    host.says[verb] = {"DATA": b"354 go on"}.get(verb, b"250 OK")
    again = await deliver(client)
    assert again.delivered and again.reused and host.connections == 1
    assert ("RSET" in host.commands) == (verb in ("RCPT", "DATA"))


@pytest.mark.parametrize(("verb", "phase"), [("RCPT", "rcpt"), ("DATA", "data"), ("BODY", "body")])
async def test_421_in_the_middle_is_temporary_and_ends_the_connection(farm: Farm, verb: str, phase: str) -> None:
    host = Host({verb: b"421 4.3.2 going down"})
    client = await farm(host)
    result = await deliver(client)
    assert (result.phase, result.reply.code, result.reply.temporary) == (phase, 421, True)
    host.says[verb] = b"354 go on" if verb == "DATA" else b"250 OK"
    assert (await deliver(client)).delivered and host.connections == 2


async def test_closed_after_the_final_dot_may_be_a_duplicate(farm: Farm) -> None:
    result = await deliver(await farm(Host({"BODY": b""})))
    assert (result.phase, result.outcome, result.reply.code) == ("body", "connection-lost", 0)
    assert result.possible_duplicate and not result.delivered


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
async def test_closed_before_the_body_is_no_duplicate(farm: Farm, verb: str) -> None:
    result = await deliver(await farm(Host({verb: b""})))
    assert (result.phase, result.outcome) == (verb.lower(), "connection-lost")
    assert not result.possible_duplicate


async def test_stale_connections_are_replaced_without_a_word_about_them(farm: Farm) -> None:
    host = Host()
    client = await farm(host)
    await asyncio.gather(deliver(client), deliver(client))
    assert host.connections == 2
    host.says["MAIL"] = b""  # the next MAIL of an old connection finds it closed
    task = asyncio.create_task(deliver(client))
    host.closed.clear()
    await host.closed.wait()
    host.says["MAIL"] = b"250 OK"
    result = await task
    assert result.delivered and not result.reused and host.connections == 3
    await until(lambda: client.pool.connections == {SITE: 1})


async def test_connection_closed_while_idle_is_not_used(farm: Farm) -> None:
    host = Host({"BODY": b"250 OK\r\n421 bye"})  # and a second reply that must never be paired with a command
    client = await farm(host)
    assert (await deliver(client)).delivered
    host.says["BODY"] = b"250 OK"
    result = await deliver(client)
    assert result.delivered and not result.reused


async def test_next_host_after_a_bad_one(farm: Farm) -> None:
    bad = [Host({"BANNER": b"421 busy"}), Host({"BANNER": b""}), Host({"EHLO": b"421 no"})]
    good = Host()
    result = await deliver(await farm(*bad, good), hosts=4)
    assert result.delivered and result.mx_host == "mx4"
    assert [host.connections for host in bad] == [1, 1, 1]


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("says", [b"", b"421 4.3.2 going down", b"huh"])
async def test_next_host_when_one_breaks_off_before_the_body(farm: Farm, verb: str, says: bytes) -> None:
    bad, good = Host({verb: says}), Host()
    result = await deliver(await farm(bad, good), hosts=2)
    assert result.delivered and result.mx_host == "mx2" and not bad.bodies and len(good.bodies) == 1


@pytest.mark.parametrize("says", [b"", b"421 4.3.2 going down", b"451 4.3.0 no room", b"huh"])
async def test_no_next_host_once_the_body_was_sent(farm: Farm, says: bytes) -> None:
    second = Host()
    result = await deliver(await farm(Host({"BODY": says}), second), hosts=2)
    assert result.phase == "body" and second.connections == 0
    assert result.possible_duplicate == (says in (b"", b"huh"))


@pytest.mark.parametrize("reply", [b"450 4.2.0 greylisted", b"550 5.1.1 nobody"])
async def test_what_a_host_says_of_the_recipient_stands(farm: Farm, reply: bytes) -> None:
    second = Host()
    result = await deliver(await farm(Host({"RCPT": reply}), second), hosts=2)
    assert (result.phase, result.about_us) == ("rcpt", False)
    assert result.reply.code == int(reply[:3]) and second.connections == 0


@pytest.mark.parametrize(("verb", "phase"), [("BANNER", "banner"), ("EHLO", "ehlo")])
@pytest.mark.parametrize("reply", [b"450 4.7.1 slowly", b"554 5.7.1 you are on a list"])
async def test_a_refusal_before_mail_is_about_us(farm: Farm, verb: str, phase: str, reply: bytes) -> None:
    result = await deliver(await farm(Host({verb: reply, "HELO": reply})))
    assert (result.phase, result.outcome, result.about_us) == (phase, "replied", True)
    assert not (await deliver(await farm(Host({verb: b""})))).about_us


async def test_a_lame_host_is_tried_last_until_it_works_again() -> None:
    asleep = failed("connect", "timeout", "asleep")
    transport, now, lame = ScriptedTransport(refuse={"127.0.0.2": asleep}), 0.0, Lame()
    client = Client(Pool(transport), ScriptedResolver(), clock=lambda: now, lame=lame)

    async def asked() -> list[str]:
        transport.connections.clear()
        limits = replace(LIMITS, idle_s=0)
        result = await client.deliver(ENVELOPE, MAIL, ["127.0.0.2", "127.0.0.3"], SOURCE, SITE, limits)
        assert result.delivered
        return [host for _, host in transport.connections]

    assert await asked() == ["127.0.0.2", "127.0.0.3"]
    assert await asked() == ["127.0.0.3"]
    transport.refuse = {"127.0.0.3": asleep}
    assert await asked() == ["127.0.0.3", "127.0.0.2"], "last, but not never"
    assert await asked() == ["127.0.0.2"], "it has taken a connection; the other is lame now"


async def test_nobody_there(farm: Farm) -> None:
    client = await farm(Host())
    result = await client.deliver(ENVELOPE, MAIL, ["mx3"], SOURCE, SITE, LIMITS)
    assert (result.phase, result.outcome) == ("connect", "connect-failed")
    result = await client.deliver(ENVELOPE, MAIL, ["nowhere"], SOURCE, SITE, LIMITS)
    assert (result.phase, result.outcome) == ("dns", "no-address")


async def test_addresses_tried_are_bounded() -> None:
    busy = failed("connect", "timeout", "asleep")
    names = [f"127.0.0.{number}" for number in range(2, 100)]
    transport = ScriptedTransport(refuse=dict.fromkeys(names, busy))
    result = await Client(Pool(transport), ScriptedResolver()).deliver(ENVELOPE, MAIL, names, SOURCE, SITE, LIMITS)
    assert (result.outcome, len(transport.connections)) == ("timeout", 5)


async def test_helo_where_ehlo_is_not_known(farm: Farm) -> None:
    host = Host({"EHLO": b"502 what?"})
    assert (await deliver(await farm(host))).delivered
    assert host.commands[1:3] == ["HELO out.example.com", "MAIL FROM:<b-1@bounce.example.com>"]


async def test_smtputf8_only_where_needed(farm: Farm) -> None:
    host = Host()
    client = await farm(host)
    assert (await deliver(client, envelope=Envelope("b@example.com", "jörg@example.org"))).delivered
    assert any(command.startswith("MAIL") and command.endswith(" SMTPUTF8") for command in host.commands)
    host.commands.clear()
    assert (await deliver(client, MAIL + "é\r\n".encode())).delivered
    assert any(command.startswith("MAIL") and command.endswith(" BODY=8BITMIME") for command in host.commands)


@pytest.mark.parametrize(
    ("envelope", "message", "outcome", "reply"),
    [
        (Envelope("b@example.com", "jörg@example.org"), MAIL, "no-smtputf8", (553, "5.6.7")),
        (Envelope("b@example.com", "a@example.org", smtputf8=True), MAIL, "no-smtputf8", (553, "5.6.7")),
        (ENVELOPE, MAIL + "é\r\n".encode(), "no-8bitmime", (554, "5.6.3")),
        (Envelope("b@example.com", "a@example.org>\r\nRCPT TO:<b@example.org"), MAIL, "local", (553, "5.1.3")),
        (Envelope("b@example.com> AUTH=<>", "a@example.org"), MAIL, "local", (553, "5.1.3")),
        (Envelope("b@example.com", "a\udce9@example.org"), MAIL, "local", (553, "5.1.3")),
        (ENVELOPE, b"x" * 2000, "too-large", (552, "5.3.4")),
    ],
)
async def test_what_the_host_cannot_take_is_not_sent(
    farm: Farm, envelope: Envelope, message: bytes, outcome: str, reply: tuple[int, str]
) -> None:
    host = Host({"EHLO": b"250-mx\r\n250 SIZE 1000"})
    client = await farm(host)
    result = await deliver(client, message, envelope)
    assert (result.phase, result.outcome) == ("mail", outcome)
    assert (result.reply.code, result.reply.enhanced, result.reply.permanent) == (*reply, True)
    assert result.reply.text.startswith("local: ")
    assert not [command for command in host.commands if command.startswith("MAIL")]
    assert (await deliver(client)).reused, "the connection is as good as before"


@pytest.mark.parametrize("size", ["-5", "0", "", "99999999999999999999999999", "²", "1e3", "10 20"])
async def test_a_size_that_is_none_is_no_limit(farm: Farm, size: str) -> None:
    result = await deliver(await farm(Host({"EHLO": f"250-mx\r\n250 SIZE {size}".encode()})))
    assert result.delivered


async def test_large_message_passes_whole(farm: Farm) -> None:
    host = Host({"EHLO": b"250 mx"})
    message = MAIL + b".0123456789abcdef\r\n" * 30_000
    server_limit = asyncio.streams._DEFAULT_LIMIT  # type: ignore[attr-defined]  # readuntil takes no longer line
    assert len(message) > server_limit

    async def read_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        data = b""
        while (line := await reader.readline()) and not line.startswith(b"QUIT"):
            if line.startswith(b"DATA"):
                writer.write(b"354 go on\r\n")
                while (line := await reader.readline()) != b".\r\n":
                    data += line[1:] if line.startswith(b".") else line
                writer.write(b"250 OK\r\n")
                host.bodies.append(data)
            else:
                writer.write(b"250 OK\r\n")

    host.serve = read_all  # type: ignore[method-assign]
    assert (await deliver(await farm(host), message)).delivered
    assert host.bodies == [message]


async def test_scripted_transport_refuses_and_answers() -> None:
    busy = Step("rcpt", "replied", Reply(450, "4.2.0", "later"))
    transport = ScriptedTransport(lambda host, envelope: busy, {"127.0.0.2": failed("connect", "timeout", "asleep")})
    client = Client(Pool(transport), ScriptedResolver())
    result = await client.deliver(ENVELOPE, MAIL, ["127.0.0.2", "127.0.0.3"], SOURCE, SITE, LIMITS)
    assert (result.mx_host, result.reply) == ("127.0.0.3", busy.reply)
    assert transport.sent == [("127.0.0.3", ENVELOPE, MAIL)]
    client.pool.close()


async def test_each_phase_says_how_long_it_took(farm: Farm) -> None:
    client = await farm(Host())
    first, second = await deliver(client), await deliver(client)
    assert list(first.phases) == ["dns", "connect", "banner", "ehlo", "mail", "rcpt", "data", "body"]
    assert list(second.phases) == ["dns", "mail", "rcpt", "data", "body"]
    assert sum(first.phases.values()) <= first.duration_ms + len(first.phases)
    slow = await deliver(await farm(Host({"RCPT": None})), timeouts=QUICK)
    assert slow.phases["rcpt"] >= 200 and "data" not in slow.phases


async def test_a_source_uses_addresses_of_its_family() -> None:
    resolver = ScriptedResolver(known={"mx": ["2001:db8::1", "127.0.0.9"]})
    client = Client(Pool(ScriptedTransport()), resolver)
    assert (await client.deliver(ENVELOPE, MAIL, ["mx"], SOURCE, SITE, LIMITS)).mx_address == "127.0.0.9"
    six = Source("s6", "::1", "out6.example.com")
    assert (await client.deliver(ENVELOPE, MAIL, ["mx"], six, SITE, LIMITS)).mx_address == "2001:db8::1"
    client.pool.close()


async def test_a_turn_begins_on_each_connection_before_the_first_word_about_the_message(farm: Farm) -> None:
    bad, good, said = Host({"MAIL": b"421 4.3.2 going down"}), Host(), list[tuple[int, int]]()

    async def begin() -> None:
        said.append((bad.connections, good.connections))

    result = await deliver(await farm(bad, good), hosts=2, turn=Turn(True, begin))
    assert result.delivered and said == [(1, 0), (1, 1)]


async def test_a_turn_that_never_comes_gives_the_place_back(farm: Farm) -> None:
    async def begin() -> None:
        raise asyncio.CancelledError

    client = await farm(Host())
    with pytest.raises(asyncio.CancelledError):
        await deliver(client, turn=Turn(begin=begin))
    result = await deliver(client)
    assert result.delivered and not result.reused, "its site may be another worker's: the connection was closed"
