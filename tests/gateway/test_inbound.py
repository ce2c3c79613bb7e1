"""The inbound MX over real sockets: what it takes, what it refuses, and that a hostile client costs little."""

import asyncio
import smtplib
import ssl
from contextlib import asynccontextmanager

import pytest

from gateway.host import network
from gateway.inbound import KEPT_MAX, Inbound, Unavailable, bounce_domains, evidence
from gateway.tls import context
from postroad import feedback
from postroad.content import MemoryContents
from postroad.ids import message_id
from postroad.settings import Settings

ID = message_id(1_700_000_000_000, "acme", "s", "0:1", "r@there.test")
TENANTS = {
    "acme": {
        "tenant": "acme",
        "domains": [{"domain": "acme.test", "return_path": "b.acme.test"}, {"domain": "Bücher.test"}],
    }
}
PATH = Settings().return_paths().sign(ID, "b.acme.test")
FORGED = f"b-{ID}-{'0' * 16}@b.acme.test"
MAIL = b"Subject: Returned mail\r\n\r\nSorry.\r\n"
SETTINGS = {"feedback_addresses": ["fbl@acme.test"], "inbound_host": "in.acme.test", "inbound_domains": ["more.test"]}


class Written:
    """In place of Kafka."""

    def __init__(self):
        self.reports, self.away, self.gate = [], False, None

    async def put(self, report):
        if self.gate is not None:
            await self.gate.wait()
        if self.away:
            raise Unavailable("Kafka is away")
        self.reports.append(report)


class Rig:
    def __init__(self, inbound, port, written, contents):
        self.inbound, self.port, self.written, self.contents = inbound, port, written, contents

    async def talk(self, *lines, end=b""):
        """The replies to raw lines, the greeting first; the connection ends with the last."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        replies = [await reader.readline()]
        for line in lines:
            writer.write(line if line.endswith(b"\n") else line + b"\r\n")
            await writer.drain()
            while True:
                reply = await reader.readline()
                if reply[3:4] != b"-":
                    break
            replies.append(reply.rstrip())
            if not reply:
                break
        writer.close()
        return replies[1:]

    async def smtp(self, work):
        """What `work(client)` gives, a client of the standard library in a thread."""

        def run():
            with smtplib.SMTP("127.0.0.1", self.port, timeout=10) as client:
                return work(client)

        return await asyncio.to_thread(run)

    async def send(self, *to, sender="", raw=MAIL):
        """Reply to the dot, or what was refused."""

        def work(client):
            client.ehlo("peer.test")
            client.docmd(f"MAIL FROM:<{sender}>")
            refused = [
                (code, text) for address in to for code, text in [client.docmd(f"RCPT TO:<{address}>")] if code != 250
            ]
            return refused[0] if len(refused) == len(to) else client.data(raw)

        return await self.smtp(work)


@asynccontextmanager
async def rig(tls=None, clock=None, **settings):
    written, contents = Written(), MemoryContents()
    more = {"clock": clock} if clock else {}
    inbound = Inbound(Settings(**{**SETTINGS, **settings}), TENANTS, contents, written, tls=tls, **more)
    port = await inbound.open("127.0.0.1", 0)
    try:
        yield Rig(inbound, port, written, contents)
    finally:
        await inbound.close(0.0)


HELLO = (b"EHLO peer.test", b"MAIL FROM:<>")


async def test_a_bounce_is_written_before_the_250():
    async with rig() as mx:
        code, text = await mx.send(PATH)
        assert (code, text.decode()) == (250, f"2.0.0 {evidence(PATH, MAIL)}")
        (report,) = mx.written.reports
    assert (report["rcpt_to"], report["mail_from"], report["helo"], report["peer"]) == (
        PATH,
        "",
        "peer.test",
        "127.0.0.1",
    )
    assert report["content"]["inline"] == MAIL and report["message_id"] == "" and report["tls"] == ""


async def test_the_same_mail_again_is_the_same_evidence():
    async with rig() as mx:
        await mx.send(PATH)
        await mx.send(PATH.upper().replace("B.ACME.TEST", "b.acme.test"))
        await mx.send(PATH, raw=MAIL + b".")
        first, again, other = (report["report_id"] for report in mx.written.reports)
    assert first == again != other


@pytest.mark.parametrize(
    ("address", "code", "said"),
    [
        (PATH, 250, ""),
        (PATH.upper(), 250, ""),
        ("FBL@Acme.test", 250, ""),
        (PATH.replace("b.acme", "more"), 250, ""),
        (PATH.replace("b.acme.test", "xn--bcher-kva.test"), 250, ""),
        (FORGED, 550, "5.1.1"),
        (f"b-{ID}@b.acme.test", 550, "5.1.1"),
        ("somebody@b.acme.test", 550, "5.1.1"),
        (PATH.replace("b.acme", "elsewhere"), 550, "5.7.1"),
        ("victim@elsewhere.test", 550, "5.7.1"),
        ("fbl@b.acme.test", 550, "5.1.1"),
        ("fbl%elsewhere.test@acme.test", 550, "5.7.1"),
        ("@b.acme.test:victim@elsewhere.test", 550, "5.7.1"),
        ("postmaster", 550, "5.7.1"),
    ],
)
async def test_what_is_taken_and_what_is_not(address, code, said):
    async with rig() as mx:
        found, text = await mx.send(address)
        assert (found, said in text.decode()) == (code, True)
        assert len(mx.written.reports) == (code == 250)


async def test_the_good_recipient_beside_a_bad_one():
    async with rig() as mx:
        assert (await mx.send("victim@elsewhere.test", PATH, FORGED, PATH))[0] == 250
        assert [report["rcpt_to"] for report in mx.written.reports] == [PATH]


async def test_large_mail_goes_by_the_content_store():
    large = MAIL + b"x" * 70 + b"\r\n" + b"y" * 40_000 + b"\r\n"
    async with rig() as mx:
        assert (await mx.send(PATH, raw=large))[0] == 250
        (report,) = mx.written.reports
        assert report["content"]["inline"] is None and await mx.contents.get(report["content"]) == large
        mx.contents.failing = True
        assert (await mx.send(PATH, raw=large + b"z"))[0] == 451
        assert len(mx.written.reports) == 1


async def test_kafka_away_the_peer_keeps_the_mail():
    async with rig() as mx:
        mx.written.away = True
        code, text = await mx.send(PATH)
        assert (code, b"4.3.0" in text) == (451, True)
        mx.written.away = False
        assert (await mx.send(PATH))[0] == 250


async def test_starttls(tmp_path):
    tls = context(None, None, tmp_path, "in.acme.test")
    assert context(None, None, tmp_path, "in.acme.test"), "it is kept"
    client_side = ssl._create_unverified_context()

    def work(client):
        client.ehlo("peer.test")
        assert client.has_extn("starttls") and not client.has_extn("auth")
        client.starttls(context=client_side)
        client.ehlo("peer.test")
        assert not client.has_extn("auth")
        return client.sendmail("", [PATH], MAIL)

    async with rig(tls=tls) as mx:
        await mx.smtp(work)
        (report,) = mx.written.reports
        assert report["tls"].startswith("TLSv1.3")
        injected = b"STARTTLS\r\nMAIL FROM:<>\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", mx.port)
        await reader.readline()
        writer.write(b"EHLO x\r\n")
        while (await reader.readline())[3:4] == b"-":
            pass
        writer.write(injected)
        assert (await reader.readline()).startswith(b"220")
        await writer.start_tls(client_side)
        writer.write(b"NOOP\r\n")
        assert (await reader.readline()).startswith(b"250"), "what came in clear text is forgotten"
        writer.close()


async def test_too_large(tmp_path):
    async with rig(inbound_size_max=64 << 10) as mx:
        assert (await mx.talk(HELLO[0], b"MAIL FROM:<> SIZE=99999999"))[-1].startswith(b"552")
        for body in (b"x" * 200_000 + b"\r\n", b"x\r\n" * 50_000):
            assert (await mx.send(PATH, raw=body))[0] == 552
        assert (await mx.send(PATH, raw=b"x" * 60_000))[0] == 250, "long lines are no fault"
        assert len(mx.written.reports) == 1


async def test_who_sends_without_end_is_cut_off():
    async with rig(inbound_size_max=64 << 10) as mx:
        _, writer = await asyncio.open_connection("127.0.0.1", mx.port)
        writer.write(b"\r\n".join((*HELLO, b"RCPT TO:<%s>" % PATH.encode(), b"DATA", b"")))
        with pytest.raises(ConnectionError):
            for _ in range(200):
                writer.write(b"\0" * (64 << 10))
                await writer.drain()
                await asyncio.sleep(0)
        assert mx.written.reports == []


@pytest.mark.parametrize("inside", [b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\n", b"\r\n.\r", b"\n\n.\r\r\n"])
async def test_nothing_but_a_dot_between_crlf_ends_a_mail(inside):
    """CVE-2023-51764 and its kin: what follows would be a second mail."""
    async with rig() as mx:
        mail = b"Subject: a\r\n\r\nbody" + inside + b"MAIL FROM:<evil@elsewhere.test>\r\n"
        replies = await mx.talk(*HELLO, b"RCPT TO:<%s>" % PATH.encode(), b"DATA", mail + b".\r\n")
        assert replies[-1].startswith(b"250 2.0.0")
        (report,) = mx.written.reports
        assert report["content"]["inline"].startswith(b"Subject: a\r\n\r\nbody")
        assert b"evil@elsewhere.test" in report["content"]["inline"]


async def test_dots_are_unstuffed():
    async with rig() as mx:
        await mx.talk(*HELLO, b"RCPT TO:<%s>" % PATH.encode(), b"DATA", b"..a\r\n...\r\n.b\r\n.\r\n")
        assert mx.written.reports[0]["content"]["inline"] == b".a\r\n..\r\nb\r\n"


@pytest.mark.parametrize(
    "line",
    [
        b"x" * 100_000,
        b"\0\xff\xfe" * 300,
        b"",
        b"EHLO",
        b"DATA",
        b"RCPT TO:<a@b>",
        b"AUTH PLAIN AGEAYg==",
        b"VRFY a",
        b"EXPN a",
        b"TURN",
    ],
)
async def test_odd_commands_get_an_answer_and_the_session_goes_on(line):
    async with rig() as mx:
        replies = await mx.talk(line, b"EHLO x", b"NOOP")
        assert replies[0][:1] in b"245" and replies[-1].startswith(b"250")


async def test_recipients_of_one_mail_are_bounded():
    async with rig(inbound_recipients=2) as mx:
        others = [Settings().return_paths().sign(ID[:-2] + f"{n}0", "b.acme.test").encode() for n in range(3)]
        replies = await mx.talk(*HELLO, *(b"RCPT TO:<%s>" % other for other in others))
        assert [reply[:9] for reply in replies[2:]] == [b"250 2.1.5", b"250 2.1.5", b"452 4.5.3"]


async def test_connections_of_one_peer_and_of_all_are_bounded():
    async with rig(inbound_peer_connections=3) as mx:
        held = [await asyncio.open_connection("127.0.0.1", mx.port) for _ in range(3)]
        for reader, _ in held:
            assert (await reader.readline()).startswith(b"220")
        reader, _ = await asyncio.open_connection("127.0.0.1", mx.port)
        assert (await reader.read()).startswith(b"421 4.7.0")
        held[0][1].close()
        await asyncio.sleep(0.05)
        assert (await mx.send(PATH))[0] == 250
        for _, writer in held[1:]:
            writer.close()
    async with rig(inbound_connections=2, inbound_peer_per_minute=100_000) as mx:
        pairs = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", mx.port) for _ in range(200)))
        greetings = [await reader.readline() for reader, _ in pairs]
        assert sum(line.startswith(b"220") for line in greetings) == 2
        assert sum(line.startswith(b"421 4.3.2") for line in greetings) == 198
        for _, writer in pairs:
            writer.close()


async def test_mails_of_one_peer_have_a_rate():
    now = [0.0]
    async with rig(inbound_peer_per_minute=2, clock=lambda: now[0]) as mx:
        assert [(await mx.talk(*HELLO))[-1][:3] for _ in range(3)] == [b"250", b"250", b"421"]
        now[0] = 31.0
        assert (await mx.talk(*HELLO))[-1].startswith(b"250")


async def test_a_silent_peer_is_let_go():
    async with rig(inbound_timeout_s=0.1) as mx:
        reader, _ = await asyncio.open_connection("127.0.0.1", mx.port)
        await reader.readline()
        assert await asyncio.wait_for(reader.read(), 5) == b""


@pytest.mark.parametrize("begun", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"])
async def test_a_handshake_that_never_ends_is_let_go(tmp_path, begun):
    async with rig(tls=context(None, None, tmp_path, "in.acme.test"), inbound_timeout_s=0.3) as mx:
        reader, writer = await asyncio.open_connection("127.0.0.1", mx.port)
        await reader.readline()
        writer.write(b"EHLO peer.test\r\n")
        while (await reader.readline())[3:4] == b"-":
            pass
        writer.write(b"STARTTLS\r\n")
        assert (await reader.readline()).startswith(b"220")
        writer.write(begun)
        (session,) = mx.inbound._sessions
        await asyncio.sleep(0.6)
        assert not mx.inbound._sessions and not mx.inbound._connections
        assert session._handler_coroutine.done()
        writer.close()


async def test_an_address_in_any_case_is_one_recipient():
    async with rig() as mx:
        await mx.send("FBL@acme.test", "fbl@Acme.test", "fBl@ACME.test", PATH, PATH.upper())
        assert [report["rcpt_to"] for report in mx.written.reports] == ["FBL@acme.test", PATH]


async def test_of_a_large_mail_what_a_report_can_be_is_kept():
    dsn = (
        b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\n\r\nSorry.\r\n"
        b"--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx\r\n\r\nAction: failed\r\n"
        b"Final-Recipient: rfc822; r@there.test\r\nStatus: 5.1.1\r\n\r\n"
        b"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: hi\r\n\r\n"
        + 60_000 * (b"x" * 60 + b"\r\n")
        + b"--b--\r\n"
    )
    async with rig() as mx:
        assert (await mx.send(PATH, raw=dsn))[0] == 250
        (report,) = mx.written.reports
        kept = await mx.contents.get(report["content"])
    assert report["content"]["size"] == KEPT_MAX and report["report_id"] == evidence(PATH, dsn)
    assert feedback.read(kept) == feedback.read(dsn)


async def test_a_stop_lets_what_is_being_stored_end():
    async with rig() as mx:
        mx.written.gate = asyncio.Event()
        idle, _ = await asyncio.open_connection("127.0.0.1", mx.port)
        await idle.readline()
        sending = asyncio.create_task(mx.send(PATH))
        while not any(session.storing for session in mx.inbound._sessions):
            await asyncio.sleep(0.01)
        closing = asyncio.create_task(mx.inbound.close(5.0))
        assert (await idle.read()).startswith(b"421 4.3.2")
        assert not closing.done()
        mx.written.gate.set()
        assert (await sending)[0] == 250
        await closing
        assert len(mx.written.reports) == 1
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", mx.port)


def test_bounce_domains_of_tenants_and_settings():
    found = bounce_domains(Settings(**SETTINGS, return_path_host="rp.post.test"), TENANTS.values())
    assert found == {"b.acme.test", "xn--bcher-kva.test", "more.test", "rp.post.test"}


def test_of_ipv6_a_network_is_one_peer():
    assert network("2001:db8::1") == network("2001:db8::ffff:1") == "2001:db8::/64" != network("2001:db9::1")
    assert network("192.0.2.1") == "192.0.2.1"
