"""The SMTP client against real sockets: a small server on loopback whose every word a test decides."""

import asyncio
import contextlib
import datetime
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiosmtplib.errors import SMTPTimeoutError
from aiosmtplib.response import SMTPResponse
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from postroad.dns import AddressAnswer, ScriptedResolver
from postroad.egress import Source
from postroad.reply import Result
from postroad.smtp import (
    AioTransport,
    Client,
    Envelope,
    Pool,
    PoolSettings,
    Reply,
    ScriptedTransport,
    SmtpTimeouts,
    Step,
    failed,
)
from postroad.smtp_session import CHUNK, Failure, Session, to_wire

SOURCE = Source("s1", "127.0.0.1", "out.example.com")
ENVELOPE = Envelope("b-1@bounce.example.com", "user@example.org")
MAIL = b"From: a@example.com\r\nSubject: hi\r\n\r\n.dot first\r\nline\r\n..two\r\n"
QUICK = SmtpTimeouts(0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5)


class Host:
    """A receiving host: `says` overrides replies by verb (BANNER, EHLO, MAIL, RCPT, DATA, BODY, RSET, STARTTLS).

    A reply of b"" closes the connection without a word; None says nothing and waits.
    """

    def __init__(self, says: dict[str, bytes | None] | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.says = {
            "BANNER": b"220 mx.example.org ESMTP",
            "EHLO": b"250-mx.example.org\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 1000000",
            "HELO": b"250 mx.example.org",
            "MAIL": b"250 2.1.0 OK",
            "RCPT": b"250 2.1.5 OK",
            "DATA": b"354 go on",
            "BODY": b"250 2.0.0 taken",
            "RSET": b"250 OK",
            "STARTTLS": b"220 ready",
            **(says or {}),
        }
        self.tls = tls
        if tls:
            self.says["EHLO"] = b"250-mx.example.org\r\n250 STARTTLS"
        self.commands: list[str] = []
        self.bodies: list[bytes] = []
        self.connections = self.now_open = self.most_open = 0
        self.closed = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.now_open += 1
        self.most_open = max(self.most_open, self.now_open)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ConnectionError):
            await self.talk(reader, writer)
        self.now_open -= 1
        self.closed.set()
        writer.close()

    async def say(self, verb: str, writer: asyncio.StreamWriter) -> bool:
        reply = self.says.get(verb, b"500 what?")
        if reply is None:
            await asyncio.sleep(10)
            return False
        writer.write(reply + b"\r\n" if reply else b"")
        await writer.drain()
        return bool(reply) and not reply.startswith(b"421")

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        going = await self.say("BANNER", writer)
        while going:
            line = await reader.readline()
            if not line or line.upper().startswith(b"QUIT"):
                return
            self.commands.append(line.decode().rstrip())
            verb = line.split()[0].decode().upper()
            going = await self.say(verb, writer)
            if verb == "DATA" and self.says["DATA"] == b"354 go on":
                self.bodies.append(await reader.readuntil(b"\r\n.\r\n"))
                going = await self.say("BODY", writer)
            if verb == "STARTTLS" and going:
                assert self.tls
                await writer.start_tls(self.tls)


Farm = Callable[..., Awaitable[Client]]


@pytest.fixture
async def farm() -> AsyncIterator[Farm]:
    """Start hosts at 127.0.0.2, .3, ... on one port; gives a client that knows them as mx1, mx2, ..."""
    servers: list[asyncio.Server] = []
    clients: list[Client] = []

    async def start(*hosts: Host, settings: PoolSettings | None = None) -> Client:
        port = 0
        for number, host in enumerate(hosts, 2):
            server = await asyncio.start_server(host.serve, f"127.0.0.{number}", port)
            port = server.sockets[0].getsockname()[1]
            servers.append(server)
        pool = Pool(AioTransport(QUICK), settings, port)
        known = {f"mx{number}": [f"127.0.0.{number + 1}"] for number in range(1, len(hosts) + 3)}
        clients.append(Client(pool, ScriptedResolver(known=known)))
        return clients[-1]

    yield start
    for client in clients:
        client.pool.close()
    for server in servers:
        server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def deliver(client: Client, message: bytes = MAIL, envelope: Envelope = ENVELOPE, hosts: int = 1) -> Result:
    names = [f"mx{number}" for number in range(1, hosts + 1)]
    return await asyncio.wait_for(client.deliver(envelope, message, names, SOURCE, "example.org"), 5)


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


@pytest.mark.parametrize("verb", ["BANNER", "EHLO", "MAIL", "RCPT", "DATA", "BODY"])
async def test_silence_ends_in_time_with_a_name(farm: Farm, verb: str) -> None:
    result = await deliver(await farm(Host({verb: None})))
    assert (result.phase, result.outcome) == (verb.lower(), "timeout")
    assert result.reply.text.startswith("timeout: ")


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
    assert client.pool.connections == {"example.org": 1}


async def test_connection_closed_while_idle_is_not_used(farm: Farm) -> None:
    host = Host({"BODY": b"250 OK\r\n421 bye"})  # and a second reply that must never be paired with a command
    client = await farm(host)
    assert (await deliver(client)).delivered
    host.says["BODY"] = b"250 OK"
    result = await deliver(client)
    assert result.delivered and not result.reused


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


async def test_next_host_after_a_bad_one(farm: Farm) -> None:
    bad = [Host({"BANNER": b"421 busy"}), Host({"BANNER": b""}), Host({"EHLO": b"421 no"})]
    good = Host()
    result = await deliver(await farm(*bad, good), hosts=4)
    assert result.delivered and result.mx_host == "mx4"
    assert [host.connections for host in bad] == [1, 1, 1]


async def test_what_a_host_says_of_the_recipient_stands(farm: Farm) -> None:
    second = Host()
    result = await deliver(await farm(Host({"RCPT": b"450 4.2.0 greylisted"}), second), hosts=2)
    assert result.reply.code == 450 and second.connections == 0


async def test_nobody_there(farm: Farm) -> None:
    client = await farm(Host())
    result = await client.deliver(ENVELOPE, MAIL, ["mx3"], SOURCE, "example.org")
    assert (result.phase, result.outcome) == ("connect", "connect-failed")
    result = await client.deliver(ENVELOPE, MAIL, ["nowhere"], SOURCE, "example.org")
    assert (result.phase, result.outcome) == ("dns", "no-address")


async def test_addresses_tried_are_bounded() -> None:
    busy = failed("connect", "timeout", "asleep")
    names = [f"127.0.0.{number}" for number in range(2, 100)]
    transport = ScriptedTransport(refuse=dict.fromkeys(names, busy))
    result = await Client(Pool(transport), ScriptedResolver()).deliver(ENVELOPE, MAIL, names, SOURCE, "site")
    assert (result.outcome, len(transport.connections)) == ("timeout", 5)


@dataclass
class Tarpits(ScriptedTransport):
    """Hosts that keep every connection for `each` seconds before they turn out to be of no use; `now` is the clock."""

    each: float = 0
    now: float = 0

    async def connect(self, source: Source, host: str, address: str, port: int) -> Session:
        self.now += self.each
        self.refuse[host] = failed("ehlo", "timeout", f"{host} says nothing")
        return await super().connect(source, host, address, port)


@pytest.mark.parametrize("scale", [0.02, 1, 10])
async def test_an_attempt_over_tarpits_ends_at_its_deadline(scale: float) -> None:
    transport = Tarpits(timeouts=SmtpTimeouts(scale=scale), each=599 * scale)  # banner and EHLO
    resolver = ScriptedResolver(known={f"mx{n}": [f"127.0.0.{n}"] for n in range(1, 6)})
    client = Client(Pool(transport), resolver, clock=lambda: transport.now)
    result = await client.deliver(ENVELOPE, MAIL, list(resolver.known), SOURCE, "site")
    assert (result.phase, result.outcome, result.reply.temporary) == ("ehlo", "timeout", True)
    assert (result.mx_host, len(transport.connections)) == ("mx2", 2), "the last one's reply stands"
    assert result.duration_ms == pytest.approx(2 * 599_000 * scale)
    in_one = ScriptedResolver(known={"mx": [f"127.0.0.{n}" for n in range(1, 6)]})
    transport.connections.clear()
    await Client(Pool(transport), in_one, clock=lambda: transport.now).deliver(ENVELOPE, MAIL, ["mx"], SOURCE, "site")
    assert len(transport.connections) == 2, "of one host too"


async def test_one_address_is_tried_however_slow_dns_was() -> None:
    class Slow(ScriptedResolver):
        async def addresses(self, host: str) -> AddressAnswer:
            transport.now += 1000
            return await super().addresses(host)

    transport = Tarpits()
    client = Client(Pool(transport), Slow(known={"mx1": ["127.0.0.1"]}), clock=lambda: transport.now)
    result = await client.deliver(ENVELOPE, MAIL, ["mx1", "mx2"], SOURCE, "site")
    assert (result.mx_host, result.phase, len(transport.connections)) == ("mx1", "ehlo", 1)
    result = await client.deliver(ENVELOPE, MAIL, ["nowhere", "mx1"], SOURCE, "site")
    assert (result.outcome, result.reply.temporary, len(transport.connections)) == ("no-address", True, 1)


class Latest:
    """A wire to a host that says every word at the last moment, as long as `late`; else at once. `now` is the clock.

    It offers STARTTLS and fails at it; then it refuses EHLO and takes HELO. It stands in for aiosmtplib's protocol.
    """

    now = 0.0
    late = False
    connect_s = body_s = 0.0
    first: "Latest"  # the one that the pool keeps
    unsolicited = False
    transport = None

    def __init__(self) -> None:
        self.is_connected, self.secure, self.blocks = True, False, 0
        self.pass_by(Latest.connect_s)

    def pass_by(self, seconds: float) -> None:
        Latest.now += seconds if Latest.late else 0

    async def read_response(self, seconds: float) -> SMTPResponse:
        self.pass_by(seconds)
        return SMTPResponse(220, "mx") if not self.blocks else SMTPResponse(250, "taken")

    async def execute_command(self, command: bytes, **within: float) -> SMTPResponse:
        self.pass_by(within["timeout"])
        verb = command[:4]
        if Latest.late and self is Latest.first and verb == b"MAIL":  # RSET was answered: it has gone stale just now
            raise SMTPTimeoutError("late")
        if verb == b"EHLO":
            if self.secure:
                return SMTPResponse(250, "mx\nSTARTTLS")
            return SMTPResponse(500, "what?") if Latest.late else SMTPResponse(250, "mx")
        if verb == b"RCPT" and not Latest.late:
            return SMTPResponse(450, "later")
        return SMTPResponse(354 if verb == b"DATA" else 250, "OK")

    async def start_tls(self, context: ssl.SSLContext, server_hostname: str, **within: float) -> SMTPResponse:
        self.pass_by(2 * within["timeout"])  # its reply, the handshake
        raise SMTPTimeoutError("late")

    async def write_body(self, wire: bytes, block_timeout: float) -> None:
        self.blocks += 1
        self.pass_by(block_timeout if len(wire) <= CHUNK else Latest.body_s)

    def abort(self) -> None:
        self.is_connected = False


@pytest.mark.parametrize("scale", [0.02, 1, 10])
async def test_nothing_takes_longer_than_the_time_outs_say(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slowest host there can be, after the deadline has just not been reached: the sum of `longest`, to the second."""
    timeouts = SmtpTimeouts(scale=scale)
    opened: list[Latest] = []

    async def create_connection(*_: object, **__: object) -> tuple[None, Latest]:
        wire = Latest()
        wire.secure = Latest.late and len(opened) == 1
        opened.append(wire)
        return None, wire

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", create_connection)
    monkeypatch.setattr(Latest, "now", 0.0)
    monkeypatch.setattr(Latest, "connect_s", timeouts.of("connect"))
    monkeypatch.setattr(Latest, "body_s", timeouts.of("body"))
    resolver = ScriptedResolver(known={"mx": ["127.0.0.2"]})
    client = Client(Pool(AioTransport(timeouts)), resolver, clock=lambda: Latest.now)
    result = await client.deliver(ENVELOPE, MAIL, ["mx"], SOURCE, "site")
    assert (result.phase, Latest.now) == ("rcpt", 0), "a connection is in the pool, its next word is RSET"
    monkeypatch.setattr(Latest, "first", opened[0], raising=False)
    monkeypatch.setattr(Latest, "late", True)
    result = await client.deliver(ENVELOPE, bytes(2 * CHUNK), ["mx"], SOURCE, "site")
    assert result.delivered and len(opened) == 3
    assert Latest.now == pytest.approx(timeouts.longest - timeouts.of("attempt"))
    client.pool.close()


async def test_helo_where_ehlo_is_not_known(farm: Farm) -> None:
    host = Host({"EHLO": b"502 what?"})
    assert (await deliver(await farm(host))).delivered
    assert host.commands[1:3] == ["HELO out.example.com", "MAIL FROM:<b-1@bounce.example.com>"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody.else")])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
    folder: Path = tmp_path_factory.mktemp("tls")
    (folder / "both.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "both.pem")
    return context


async def test_starttls_with_any_certificate(farm: Farm, certificate: ssl.SSLContext) -> None:
    host = Host(tls=certificate)
    result = await deliver(await farm(host))
    assert result.delivered and result.tls.startswith("TLSv1.3 ")
    assert [command.split()[0] for command in host.commands] == ["EHLO", "STARTTLS", "EHLO", "MAIL", "RCPT", "DATA"]


@pytest.mark.parametrize("says", [b"454 4.7.0 not now", b"220 ready\r\n250 injected", b"", None])
async def test_plain_text_on_a_new_connection_where_starttls_fails(farm: Farm, says: bytes | None) -> None:
    refuse_all = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # no certificate: no handshake can succeed
    host = Host({"STARTTLS": says}, tls=refuse_all)
    result = await deliver(await farm(host))
    assert result.delivered and result.tls == "" and host.connections == 2


async def test_smtputf8_only_where_needed(farm: Farm) -> None:
    host = Host()
    client = await farm(host)
    assert (await deliver(client, envelope=Envelope("b@example.com", "jörg@example.org"))).delivered
    assert any(command.startswith("MAIL") and command.endswith(" SMTPUTF8") for command in host.commands)
    host.commands.clear()
    assert (await deliver(client, MAIL + "é\r\n".encode())).delivered
    assert any(command.startswith("MAIL") and command.endswith(" BODY=8BITMIME") for command in host.commands)


@pytest.mark.parametrize(
    ("envelope", "message", "reply"),
    [
        (Envelope("b@example.com", "jörg@example.org"), MAIL, (553, "5.6.7")),
        (Envelope("b@example.com", "a@example.org", smtputf8=True), MAIL, (553, "5.6.7")),
        (Envelope("b@example.com", "a@example.org>\r\nRCPT TO:<b@example.org"), MAIL, (553, "5.1.3")),
        (Envelope("b@example.com> AUTH=<>", "a@example.org"), MAIL, (553, "5.1.3")),
        (Envelope("b@example.com", "a\udce9@example.org"), MAIL, (553, "5.1.3")),
        (ENVELOPE, b"x" * 2000, (552, "5.3.4")),
    ],
)
async def test_what_the_host_cannot_take_is_not_sent(
    farm: Farm, envelope: Envelope, message: bytes, reply: tuple[int, str]
) -> None:
    host = Host({"EHLO": b"250-mx\r\n250 SIZE 1000"})
    result = await deliver(await farm(host), message, envelope)
    assert (result.phase, result.outcome) == ("mail", "local")
    assert (result.reply.code, result.reply.enhanced, result.reply.permanent) == (*reply, True)
    assert not [command for command in host.commands if command.startswith("MAIL")]


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


async def test_host_that_stops_reading(farm: Farm) -> None:
    host = Host({"EHLO": b"250 mx"})

    async def stop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        while not (await reader.readline()).startswith(b"DATA"):
            writer.write(b"250 OK\r\n")
        writer.write(b"354 go on\r\n")
        await asyncio.sleep(10)

    host.serve = stop  # type: ignore[method-assign]
    result = await deliver(await farm(host), b"x\r\n" * 7_000_000)
    assert (result.phase, result.outcome) == ("data", "timeout")


async def test_no_more_connections_than_the_site_allows(farm: Farm) -> None:
    host = Host()
    client = await farm(host, settings=PoolSettings(connections=2, wait_s=5))
    results = await asyncio.gather(*(deliver(client) for _ in range(30)))
    assert all(result.delivered for result in results)
    assert host.most_open == 2 and len(host.bodies) == 30


async def test_connection_limit_is_an_outcome(farm: Farm) -> None:
    client = await farm(Host({"BODY": None}), settings=PoolSettings(connections=1, wait_s=0.1))
    waiting = asyncio.create_task(deliver(client))
    await asyncio.sleep(0.05)
    result = await deliver(client)
    assert (result.phase, result.outcome, result.reply.code) == ("connect", "connection-limit", 0)
    assert (await waiting).outcome == "timeout"
    assert client.pool.connections == {}


async def test_a_site_is_full_after_somebody_has_waited_in_vain_and_until_a_connection_is_free() -> None:
    now = 0.0
    pool = Pool(ScriptedTransport(), PoolSettings(connections=1, wait_s=0.01, full_s=3), clock=lambda: now)
    session, _ = await pool.acquire("site", SOURCE, "mx.test", "127.0.0.2")
    assert not pool.is_full("site") and not pool.is_full("another")
    with pytest.raises(Failure):
        await pool.acquire("site", SOURCE, "mx.test", "127.0.0.2")
    assert pool.is_full("site")
    now = 3.0
    assert not pool.is_full("site"), "one may wait again"
    now = 2.0
    pool.release("site", SOURCE, session)
    assert not pool.is_full("site")
    pool.close()


async def test_messages_per_connection_and_idle_time(farm: Farm) -> None:
    host = Host()
    client = await farm(host, settings=PoolSettings(messages=2, idle_s=0.1))
    for _ in range(3):
        await deliver(client)
    assert host.connections == 2
    await asyncio.sleep(0.3)
    assert client.pool.connections == {} and host.now_open == 0


async def test_cancelled_delivery_gives_its_place_back(farm: Farm) -> None:
    host = Host({"BODY": None})
    client = await farm(host, settings=PoolSettings(connections=1))
    stuck, waiting = asyncio.create_task(deliver(client)), asyncio.create_task(deliver(client))
    await asyncio.sleep(0.05)
    waiting.cancel()
    stuck.cancel()
    await asyncio.gather(stuck, waiting, return_exceptions=True)
    assert client.pool.connections == {}
    host.says["BODY"] = b"250 OK"
    assert (await deliver(client)).delivered


async def test_an_idle_connection_makes_room_for_another_host() -> None:
    transport = ScriptedTransport()
    client = Client(Pool(transport, PoolSettings(connections=1)), ScriptedResolver())
    for host in ("127.0.0.2", "127.0.0.3", "127.0.0.3"):
        assert (await client.deliver(ENVELOPE, MAIL, [host], SOURCE, "site")).delivered
    assert transport.connections == [("s1", "127.0.0.2"), ("s1", "127.0.0.3")]
    client.pool.close()


async def test_scripted_transport_refuses_and_answers() -> None:
    busy = Step("rcpt", "replied", Reply(450, "4.2.0", "later"))
    transport = ScriptedTransport(lambda host, envelope: busy, {"127.0.0.2": failed("connect", "timeout", "asleep")})
    client = Client(Pool(transport), ScriptedResolver())
    result = await client.deliver(ENVELOPE, MAIL, ["127.0.0.2", "127.0.0.3"], SOURCE, "site")
    assert (result.mx_host, result.reply) == ("127.0.0.3", busy.reply)
    assert transport.sent == [("127.0.0.3", ENVELOPE, MAIL)]
    client.pool.close()


async def test_a_source_uses_addresses_of_its_family() -> None:
    resolver = ScriptedResolver(known={"mx": ["2001:db8::1", "127.0.0.9"]})
    client = Client(Pool(ScriptedTransport()), resolver)
    assert (await client.deliver(ENVELOPE, MAIL, ["mx"], SOURCE, "site")).mx_address == "127.0.0.9"
    six = Source("s6", "::1", "out6.example.com")
    assert (await client.deliver(ENVELOPE, MAIL, ["mx"], six, "site")).mx_address == "2001:db8::1"
    client.pool.close()


@pytest.mark.parametrize(
    ("code", "text", "reply"),
    [
        (550, "5.1.1 no such user", Reply(550, "5.1.1", "no such user")),
        (550, "#5.1.1 no", Reply(550, "5.1.1", "no")),
        (250, "5.1.1 odd", Reply(250, "", "5.1.1 odd")),  # RFC 2034: the class must agree with the code
        (452, "4.2.2 full\n4.2.2 try later", Reply(452, "4.2.2", "full\ntry later")),
        (421, "", Reply(421, "", "")),
        (550, "5.1.1", Reply(550, "5.1.1", "")),
        (550, "caf\udce9", Reply(550, "", "caf\ufffd")),
    ],
)
def test_reply_parse(code: int, text: str, reply: Reply) -> None:
    parsed = Reply.parse(code, text)
    assert parsed == reply
    parsed.text.encode()  # always fit for a record


def test_reply_text_is_bounded() -> None:
    assert len(Reply.parse(550, "x" * 5000).text) == 1000


@given(st.lists(st.sampled_from([b".", b"\r", b"\n", b"\r\n", b"a", b"QUIT"])).map(b"".join))
def test_wire_form_has_one_end_and_reads_back(message: bytes) -> None:
    wire = to_wire(message)
    assert wire.endswith(b"\r\n.\r\n")
    assert wire.count(b"\r\n") == wire.count(b"\r") == wire.count(b"\n")
    lines = wire.split(b"\r\n")[:-2]
    assert b"." not in lines  # the only final dot is the last line
    read = b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines)
    if message.endswith(b"\r\n") and message.count(b"\r\n") == message.count(b"\r") == message.count(b"\n"):
        assert read + b"\r\n" == message
