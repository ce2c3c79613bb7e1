"""The submission door over real sockets: who may come in, what becomes a submission, and that a hostile client costs little."""

import asyncio
import base64
import smtplib
import ssl
import time
from contextlib import asynccontextmanager, suppress
from email.message import EmailMessage

import pytest

from gateway.accept import ids_of
from gateway.identity import Identity
from gateway.inbound import Unavailable
from gateway.limits import Limits
from gateway.submission import Submissions
from gateway.tls import context
from gateway.writer import TooLarge
from postroad import keys
from postroad.settings import Settings
from topics.client import Place

NOW = int(time.time() * 1000)
TENANTS = {
    "acme": {"tenant": "acme", "domains": [{"domain": "acme.test"}, {"domain": "bücher.test"}]},
    "other": {"tenant": "other", "domains": [{"domain": "other.test"}]},
    "gone": {"tenant": "gone", "active": False, "domains": [{"domain": "gone.test"}]},
}
MAIL = b"From: Ann <ann@acme.test>\r\nTo: bob@there.test\r\nSubject: Hello\r\n\r\nHi.\r\n"


def made(tenant="acme", scopes=("send",), **more):
    return keys.make(tenant, scopes, NOW, **more)


KEYS = {
    "live": made(), "test": made(test_mode=True), "read": made(scopes=("read",)), "blast": made(streams=("broadcast",)),
    "other": made("other"), "gone": made("gone"), "slow": made(rate_per_second=1.0),
}  # fmt: skip


class Accepted:
    """In place of Kafka."""

    def __init__(self):
        self.submissions, self.error, self.gate = [], None, None

    async def accept(self, submission):
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.submissions.append(submission)
        return ids_of(submission, Place(0, len(self.submissions), NOW))


class Rig:
    def __init__(self, door, port, accepted, followed, waits):
        self.door, self.port, self.accepted, self.followed, self.waits = door, port, accepted, followed, waits
        self.trust = ssl.create_default_context()
        self.trust.check_hostname, self.trust.verify_mode = False, ssl.CERT_NONE

    @asynccontextmanager
    async def raw(self, tls=True):
        """`ask(*lines)` gives the last line of each reply; signed in by nobody."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)

        async def reply():
            while True:
                line = await asyncio.wait_for(reader.readline(), 10)
                if line[3:4] != b"-":
                    return line.decode().rstrip()

        async def ask(*lines):
            found = []
            for line in lines:
                writer.write(line if line.endswith(b"\n") else line + b"\r\n")
                await writer.drain()
                found.append(await reply())
            return found[0] if len(found) == 1 else found

        ask.reader, ask.writer, ask.reply = reader, writer, reply
        try:
            assert (await reply()).startswith("220 ")
            if tls:
                await ask(b"EHLO a.test", b"STARTTLS")
                await writer.start_tls(self.trust)
                await ask(b"EHLO a.test")
            yield ask
        finally:
            writer.close()

    async def smtp(self, work, key="live", tls=True):
        """What `work(client)` gives, a client of the standard library in a thread."""

        def run():
            with smtplib.SMTP("127.0.0.1", self.port, "client.test", timeout=10) as client:
                if tls:
                    client.starttls(context=self.trust)
                if key:
                    client.login("apikey", KEYS[key][1] if key in KEYS else key)
                return work(client)

        return await asyncio.to_thread(run)

    async def send(self, raw=MAIL, sender="ann@acme.test", to=("bob@there.test",), key="live", options=()):
        """Code and text of the reply to the dot, or of the first command that was refused."""

        def work(client):
            code, text = client.mail(sender, list(options))
            for address in to if code == 250 else ():
                code, text = client.rcpt(address)
                if code != 250:
                    break
            return client.data(raw) if code == 250 else (code, text)

        code, text = await self.smtp(work, key)
        return code, text.decode()


@asynccontextmanager
async def rig(tmp_path, *, implicit=False, **settings):
    accepted, followed, waits = Accepted(), {key["key_id"]: key for key, _ in KEYS.values()}, []
    identity = Identity(followed, TENANTS, sleep=waits.append)
    rates = {f"k:{KEYS['slow'][0]['key_id']}": 1.0}
    known = Settings(submission_host="mail.acme.test", **settings)
    tls = context(None, None, tmp_path, "mail.acme.test", "submission")
    door = Submissions(known, TENANTS, identity, Limits(rates.get), accepted, tls=tls)
    port = await door.open("127.0.0.1", 0, tls if implicit else None)
    try:
        yield Rig(door, port, accepted, followed, waits)
    finally:
        await door.close(0.0)


# -- what is accepted --------------------------------------------------------------------------------------------------


async def test_a_mail_becomes_a_submission_and_the_answer_names_its_messages(tmp_path):
    async with rig(tmp_path) as door:
        code, text = await door.send(to=("bob@there.test", "eve@there.test", "bob@there.test"))
        (submission,) = door.accepted.submissions
        assert code == 250 and text.split()[-2:] == ids_of(submission, Place(0, 1, NOW))
        assert submission["tenant"] == "acme" and submission["stream"] == "transactional" and not submission["test"]
        assert submission["raw"] == MAIL and submission["sender"] == {"address": "ann@acme.test", "name": "Ann"}
        assert [one["address"] for one in submission["recipients"]] == [
            "bob@there.test",
            "eve@there.test",
            "bob@there.test",
        ]
        _, text = await door.send(to=[f"r{n}@there.test" for n in range(1_000)])
        assert len(text) < 480 and "more" in text


async def test_fields_of_ours_are_followed_and_leave_the_mail(tmp_path):
    async with rig(tmp_path) as door:
        ours = b'X-Postroad-Stream: broadcast\r\nX-Postroad-Tags: a, b\r\nX-Postroad-Metadata: {"order": "17"}\r\nX-Postroad-Dedupe-Id: 4\r\n'
        assert (await door.send(ours + b"X-Postroad-Send-At: 2030-01-01T00:00:00Z\r\n" + MAIL))[0] == 250
        (found,) = door.accepted.submissions
        assert found["raw"] == MAIL and found["stream"] == "broadcast" and found["tags"] == ["a", "b"]
        assert (
            found["metadata"] == {"order": "17"} and found["dedupe_id"] == "4" and found["send_at"] == 1_893_456_000_000
        )
        for wrong in (
            b"X-Postroad-Nonsense: 1",
            b"X-Postroad-Send-At: soon",
            b"X-Postroad-Tags: " + b"x" * 200,
            b"X-Postroad-Metadata: [1]",
        ):
            code, text = await door.send(wrong + b"\r\n" + MAIL)
            assert (code, text[:6]) == (550, "5.6.0 "), text
        assert len(door.accepted.submissions) == 1


async def test_a_test_key_makes_mail_that_is_never_sent(tmp_path):
    async with rig(tmp_path) as door:
        assert (await door.send(key="test"))[0] == 250
        assert door.accepted.submissions[0]["test"]


async def test_tls_from_the_first_byte(tmp_path):
    async with rig(tmp_path, implicit=True) as door:

        def run():
            with smtplib.SMTP_SSL("127.0.0.1", door.port, context=door.trust, timeout=10) as client:
                client.ehlo()
                assert "starttls" not in client.esmtp_features and client.esmtp_features["auth"].split() == [
                    "LOGIN",
                    "PLAIN",
                ]
                client.login("apikey", KEYS["live"][1])
                return client.sendmail("ann@acme.test", ["bob@there.test"], MAIL)

        assert await asyncio.to_thread(run) == {}
        assert len(door.accepted.submissions) == 1


@pytest.mark.parametrize("begun", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"EHLO peer.test\r\n"])
async def test_a_first_handshake_that_never_ends_is_let_go(tmp_path, begun):
    async with rig(tmp_path, implicit=True, submission_timeout_s=0.3) as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(begun)
        with suppress(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 5)
        writer.close()


async def test_smtputf8_and_8bit(tmp_path):
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "grüße@bücher.test", "δοκιμή@there.test", "Grüße"
    message.set_content("Schöne Grüße\n")
    async with rig(tmp_path) as door:
        await door.smtp(lambda client: client.send_message(message))
        (found,) = door.accepted.submissions
        assert found["recipients"][0]["address"] == "δοκιμή@there.test" and "Grüße".encode() in found["raw"]
        async with door.raw() as ask:
            given = base64.b64encode(b"\0apikey\0" + KEYS["live"][1].encode())
            await ask(b"AUTH PLAIN " + given, b"MAIL FROM:<ann@acme.test>")
            assert (await ask("RCPT TO:<δοκιμή@there.test>".encode()))[:9] == "553 5.6.7"


async def test_all_commands_at_once(tmp_path):
    """PIPELINING; every reply but those to the greeting and EHLO has an enhanced code."""
    async with rig(tmp_path) as door, door.raw() as ask:
        given = base64.b64encode(b"\0apikey\0" + KEYS["live"][1].encode())
        ask.writer.write(
            b"AUTH PLAIN " + given + b"\r\nMAIL FROM:<ann@acme.test> AUTH=<> SIZE=100 BODY=8BITMIME\r\nRCPT TO:<bob@there.test>\r\n"
            b"DATA\r\n" + MAIL + b".\r\nNOOP\r\nRSET\r\nVRFY x\r\nXYZZY\r\nMAIL\r\nQUIT\r\n"
        )  # fmt: skip
        replies = [await ask.reply() for _ in range(10)]
        assert [reply[:3] for reply in replies] == [
            "235",
            "250",
            "250",
            "354",
            "250",
            "250",
            "250",
            "252",
            "500",
            "501",
        ]
        assert all(reply[4:6] in ("2.", "4.", "5.") for reply in replies if reply[:3] != "354"), replies
        assert len(door.accepted.submissions) == 1


# -- who ---------------------------------------------------------------------------------------------------------------


async def test_nothing_before_tls_and_nothing_before_sign_in(tmp_path):
    async with rig(tmp_path) as door:
        async with door.raw(tls=False) as ask:
            given = base64.b64encode(b"\0apikey\0" + KEYS["live"][1].encode())
            assert "AUTH" not in await ask(b"EHLO a.test")
            for line in (
                b"AUTH PLAIN " + given,
                b"AUTH LOGIN",
                b"MAIL FROM:<ann@acme.test>",
                b"VRFY x",
                b"HELO a.test",
                b"DATA",
            ):
                assert (await ask(line))[:9] == "530 5.7.0", line
        async with door.raw() as ask:
            for line in (b"MAIL FROM:<ann@acme.test>", b"RCPT TO:<bob@there.test>"):
                assert (await ask(line))[:9] == "530 5.7.0"
            assert (await ask(b"DATA"))[:3] in ("503", "530")
        assert not door.accepted.submissions


async def test_what_comes_behind_starttls_in_the_clear_is_not_obeyed(tmp_path):
    """CVE-2011-0411 and its kin: bytes of a stranger before the handshake are no commands of whoever shakes hands."""
    async with rig(tmp_path) as door, door.raw(tls=False) as ask:
        await ask(b"EHLO a.test")
        ask.writer.write(b"STARTTLS\r\nNOOP injected\r\nRSET\r\n")
        assert (await ask.reply()).startswith("220 2.0.0")
        try:
            await ask.writer.start_tls(door.trust)
        except (ssl.SSLError, ConnectionError):
            return  # it took them for the handshake
        assert "250-STARTTLS" not in await ask(b"EHLO a.test")
        ask.writer.write(b"NOOP\r\n")
        assert await ask.reply() == "250 2.0.0 OK"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask.reader.readline(), 0.2)


@pytest.mark.parametrize("key", ["gone", "pr_live_" + "a" * 16 + "_" + "b" * 32, "secret", "", "x" * 300, "\udcff"])
async def test_who_is_not_known_does_not_come_in(tmp_path, key, caplog):
    password = KEYS[key][1] if key in KEYS else key
    given = base64.b64encode(b"\0apikey\0" + password.encode("utf-8", "surrogateescape"))
    async with rig(tmp_path) as door, door.raw() as ask:
        for mechanism in (b"PLAIN", b"plain"):
            assert (await ask(b"AUTH " + mechanism + b" " + given))[:9] == "535 5.7.8"
        assert await ask(b"AUTH LOGIN", base64.b64encode(b"apikey"), given) != []
        assert (await ask.reader.readline()) in (b"", b"421 4.7.0 too many failed sign-ins, try again later\r\n")
        assert door.waits == sorted(door.waits) and len(door.waits) == 3
    assert not password or password not in caplog.text


@pytest.mark.parametrize(
    "line",
    [
        b"AUTH",
        b"AUTH CRAM-MD5",
        b"AUTH PLAIN !!!",
        b"AUTH PLAIN AAAA",
        b"AUTH PLAIN a b",
        b"AUTH PLAIN " + b"A" * 5_000,
    ],
)
async def test_odd_sign_ins(tmp_path, line):
    async with rig(tmp_path) as door, door.raw() as ask:
        assert (await ask(line))[0] == "5"
        assert (await ask(b"NOOP"))[:3] == "250"
        assert not door.accepted.submissions


async def test_odd_answers_to_a_challenge_count_as_failures(tmp_path):
    async with rig(tmp_path) as door, door.raw() as ask:
        for answer in (b"*", b"!!!", b"A" * 5_000):
            assert (await ask(b"AUTH PLAIN", answer))[1][0] == "5"
        assert (await ask.reply()).startswith("421 4.7.0")
        assert not door.accepted.submissions


async def test_a_key_does_only_what_it_may(tmp_path):
    async with rig(tmp_path) as door:
        assert (await door.send(key="read"))[0] == 550
        assert (await door.send(key="blast"))[1][:5] == "5.7.1"
        assert (await door.send(b"X-Postroad-Stream: broadcast\r\n" + MAIL, key="blast"))[0] == 250
        assert (await door.send(key="other"))[1].startswith("5.7.1 MAIL FROM")
        assert (await door.send(sender="ann@there.test"))[0] == 550
        assert (await door.send(MAIL.replace(b"ann@acme.test", b"ann@other.test")))[1].startswith("5.7.1 From")
        assert (await door.send(MAIL.replace(b"Ann <ann@acme.test>", b"ann@acme.test, eve@other.test")))[0] == 550
        assert (await door.send(MAIL.replace(b"To:", b"Sender: eve@other.test\r\nTo:")))[0] == 550
        assert (await door.send(MAIL, sender="ann@news.acme.test"))[0] == 250
        assert len(door.accepted.submissions) == 2


async def test_a_key_that_is_revoked_sends_no_more_on_an_open_connection(tmp_path):
    async with rig(tmp_path) as door:
        key, _ = KEYS["live"]

        def work(client):
            first = client.sendmail("ann@acme.test", ["bob@there.test"], MAIL)
            door.followed[key["key_id"]] = {**key, "revoked_at": 1}
            return first, client.mail("ann@acme.test")

        first, (code, text) = await door.smtp(work)
        assert first == {} and code == 550 and b"not in force" in text


async def test_rates_of_key_tenant_and_sender(tmp_path):
    async with rig(tmp_path) as door:

        def work(client):
            return [client.mail("ann@acme.test")[0] or client.rset() for _ in range(5) if client.rset()]

        codes = await door.smtp(work, "slow")
        assert codes[:2] == [250, 250] and set(codes[2:]) == {451}


# -- what never is -----------------------------------------------------------------------------------------------------

INSIDE = [b"a\n.\nb", b"a\r.\rb", b"a\n.\r\nb", b"a\r\n.\nb", b"a\r.\r\nb", b"a\r\n\x00.\r\nb", b"a\rb", b"a\nb"]


@pytest.mark.parametrize("inside", INSIDE)
async def test_smuggling(tmp_path, inside):
    """No other line end ends a mail, and a mail that has one is refused whole: the next host might read it otherwise."""
    async with rig(tmp_path) as door, door.raw() as ask:
        given = base64.b64encode(b"\0apikey\0" + KEYS["live"][1].encode())
        await ask(b"AUTH PLAIN " + given, b"MAIL FROM:<ann@acme.test>", b"RCPT TO:<bob@there.test>", b"DATA")
        second = b"MAIL FROM:<ann@acme.test>\r\nRCPT TO:<eve@there.test>\r\nDATA\r\n" + MAIL
        ask.writer.write(MAIL + inside + b"\r\n" + second + b".\r\n")
        assert (await ask.reply())[:9] == "550 5.6.0"
        assert (await ask(b"NOOP"))[:3] == "250"
        assert not door.accepted.submissions


@pytest.mark.parametrize("raw", [
    b"Subject: no sender\r\n\r\nx\r\n", b"From: nobody\r\n\r\nx\r\n", b"\r\nno header\r\n", b"", b"From: ann@acme.test\r\nFrom: ann@acme.test\r\n\r\nx\r\n",
    b"From: ann@acme.test\r\n\xff\xfe: x\r\n\r\nx\r\n", b"From: ann@acme.test\r\nno field\r\n\r\nx\r\n", b"From: ann@acme.test\r\n\r\n" + b"x" * 2_000 + b"\r\n",
    b"From: ann@acme.test\r\n\r\nnul\0\r\n", b"From: " + b"ann@acme.test, " * 5_000 + b"ann@acme.test\r\n\r\nx\r\n",
])  # fmt: skip
async def test_mail_that_would_be_rejected_is_refused_at_the_door(tmp_path, raw):
    async with rig(tmp_path) as door:
        code, text = await door.send(raw)
        assert code == 550 and text[:4] in ("5.6.", "5.7."), text
        assert not door.accepted.submissions


async def test_recipients_are_bounded_and_must_be_addresses(tmp_path):
    async with rig(tmp_path) as door, door.raw() as ask:
        given = base64.b64encode(b"\0apikey\0" + KEYS["live"][1].encode())
        await ask(b"AUTH PLAIN " + given, b"MAIL FROM:<ann@acme.test>")
        for address in (
            b"<bob>",
            b"<bob@>",
            b"<@there.test>",
            b"<b\xff@there.test>",
            b"<a@b@c>",
            b"<bob@[127.0.0.1]>",
            b"bob",
            b"",
            b"<" + b"x" * 900 + b"@there.test>",
        ):
            assert (await ask(b"RCPT TO:" + address))[0] == "5", address
        for number in range(1_000):
            assert (await ask(b"RCPT TO:<r%d@there.test>" % number))[:3] == "250"
        assert (await ask(b"RCPT TO:<one@there.test>"))[:9] == "452 4.5.3"


async def test_too_large_by_its_own_word_and_in_fact(tmp_path):
    async with rig(tmp_path, size_max=65_536) as door:
        assert (await door.send(options=["SIZE=70000"]))[0] == 552
        assert (await door.send(MAIL + b"x\r\n" * 30_000))[0] == 552
        assert (await door.send(MAIL + b"x\r\n" * 20_000))[0] == 250


@pytest.mark.parametrize(
    ("error", "code"),
    [(Unavailable("away"), 451), (TimeoutError(), 451), (TooLarge("x"), 552), (RuntimeError("x"), 451)],
)
async def test_what_cannot_be_stored_the_client_keeps(tmp_path, error, code, caplog):
    async with rig(tmp_path) as door:
        door.accepted.error = error
        assert (await door.send())[0] == code
        door.accepted.error = None
        assert (await door.send())[0] == 250


async def test_a_stop_lets_what_is_being_stored_end(tmp_path):
    async with rig(tmp_path) as door:
        door.accepted.gate = asyncio.Event()
        sending = asyncio.create_task(door.send())
        async with door.raw() as ask:
            while not any(session.storing for session in door.door._sessions):
                await asyncio.sleep(0.01)
            closing = asyncio.create_task(door.door.close(10.0))
            assert (await asyncio.wait_for(ask.reader.readline(), 5)).startswith(b"421 4.3.2")
        door.accepted.gate.set()
        assert (await sending)[0] == 250 or door.accepted.submissions
        await closing


async def test_connections_are_bounded(tmp_path):
    async with rig(tmp_path, submission_peer_connections=3) as door:
        opened = [await asyncio.open_connection("127.0.0.1", door.port) for _ in range(5)]
        greetings = [await asyncio.wait_for(reader.readline(), 5) for reader, _ in opened]
        assert sorted(line[:3] for line in greetings) == [b"220"] * 3 + [b"421"] * 2
        for _, writer in opened:
            writer.close()


async def test_a_client_that_dawdles_is_let_go(tmp_path):
    async with rig(tmp_path, submission_timeout_s=0.3) as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(b"EHLO a")
        assert await asyncio.wait_for(reader.read(), 5) is not None
        while door.door._sessions:
            await asyncio.sleep(0.02)
        writer.close()
