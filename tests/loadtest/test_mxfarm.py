"""The farm as a sender and a resolver see it: one child process for most tests, changed by control()."""

import base64
import contextlib
import itertools
import json
import os
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import dkim
import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest
from aiosmtpd.controller import Controller
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from deploy.local.kafka import free_port
from loadtest.mxfarm import SITES, Behaviour, Farm, FarmError, FarmServer, Receipts
from loadtest.mxfarm.signatures import Verifier
from loadtest.mxfarm.zone import absolute
from postroad import feedback

ADDRESS = {host.name: host.address for site in SITES for host in site.hosts}
MAIL = b"From: a@sender.test\r\nTo: b@accept.test\r\nMessage-ID: <one@sender.test>\r\nSubject: hi\r\n\r\nhello\r\n"


@pytest.fixture(scope="module")
def farm(tmp_path_factory):
    with Farm.start(tmp_path_factory.mktemp("farm")) as farm:
        yield farm


@pytest.fixture
def control(farm):
    yield farm.control
    farm.control({})


def connect(farm, site, host="mx1", timeout=5.0) -> smtplib.SMTP:
    return smtplib.SMTP(ADDRESS[f"{host}.{site}.test"], farm.smtp_port, "client.test", timeout=timeout)


def send(farm, recipient, *, mail=MAIL, sender="a@sender.test", site=None, options=()) -> tuple[int, str]:
    """The reply to the last command of one transaction in a session of its own."""
    site = site or recipient.rpartition("@")[2].removesuffix(".test")
    with connect(farm, site) as smtp:
        smtp.ehlo_or_helo_if_needed()
        for code, text in (smtp.mail(sender, options), smtp.rcpt(recipient)):
            if code >= 300:
                return code, text.decode()
        code, text = smtp.data(mail)
        return code, text.decode()


class Raw:
    """A connection that says what it is told, byte for byte."""

    def __init__(self, farm, address="127.0.0.11"):
        self.socket = socket.create_connection((address, farm.smtp_port), timeout=5)
        self.lines = self.socket.makefile("rb")
        assert self.reply().startswith("220 ")

    def say(self, data: bytes) -> str:
        self.socket.sendall(data)
        return self.reply()

    def reply(self) -> str:
        while True:
            line = self.lines.readline().decode()
            if line[3:4] != "-":
                return line.rstrip("\r\n")

    def to_data(self, recipient=b"b@accept.test", options=b"") -> "Raw":
        assert self.say(b"EHLO client.test\r\n").startswith("250")
        assert self.say(b"MAIL FROM:<a@sender.test>" + options + b"\r\n").startswith("250")
        assert self.say(b"RCPT TO:<" + recipient + b">\r\n").startswith("250")
        assert self.say(b"DATA\r\n").startswith("354")
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.lines.close()
        self.socket.close()


# DNS


def ask(farm, name, rdtype, ask_by=dns.query.udp, **options):
    host, port = farm.dns.split(":")
    query = dns.message.make_query(absolute(name), rdtype, **options)
    return ask_by(query, host, timeout=2, port=int(port))


def records(response) -> list[str]:
    return sorted(rdata.to_text() for rrset in response.answer for rdata in rrset)


@pytest.mark.parametrize("ask_by", [dns.query.udp, dns.query.tcp])
def test_mx_and_addresses(farm, ask_by):
    response = ask(farm, "shop.test", "MX", ask_by)
    assert records(response) == ["10 mx1.accept.test.", "20 mx2.accept.test."]
    assert response.flags & dns.flags.AA
    assert records(ask(farm, "mx2.accept.test", "A", ask_by)) == ["127.0.0.12"]


def test_names_of_every_kind(farm):
    assert records(ask(farm, "bücher.test", "MX")) == records(ask(farm, "SHOP.test", "MX"))
    assert records(ask(farm, "a.b.many.test", "MX")) == records(ask(farm, "shop.test", "MX"))
    assert records(ask(farm, "nullmx.test", "MX")) == ["0 ."]
    assert records(ask(farm, "implicit.test", "A")) == ["127.0.0.11", "127.0.0.12"]
    assert records(ask(farm, "dangling.test", "MX")) == ["10 mx1.no-such-host.test."]


@pytest.mark.parametrize(
    ("name", "rdtype", "rcode"),
    [
        ("no-such-domain.test", "MX", dns.rcode.NXDOMAIN),
        ("mx1.no-such-host.test", "A", dns.rcode.NXDOMAIN),
        ("shop.test", "AAAA", dns.rcode.NOERROR),
        ("implicit.test", "MX", dns.rcode.NOERROR),
        ("nomail.test", "MX", dns.rcode.NOERROR),
        ("many.test", "MX", dns.rcode.NOERROR),
    ],
)
def test_negative_answers_carry_the_soa(farm, name, rdtype, rcode):
    response = ask(farm, name, rdtype)
    assert (response.rcode(), records(response)) == (rcode, [])
    assert [rrset.rdtype.name for rrset in response.authority] == ["SOA"]


def test_failing_and_silent_name_servers(farm, control):
    assert ask(farm, "mx1.servfail.test", "MX").rcode() == dns.rcode.SERVFAIL
    host, port = farm.dns.split(":")

    def unanswered(name):
        with pytest.raises(dns.exception.Timeout):
            dns.query.udp(dns.message.make_query(name, "MX"), host, timeout=0.2, port=int(port))

    unanswered("unanswered.test")
    control({"dns": {"answer": False}})
    unanswered("shop.test")


def test_hostile_queries_are_survived(farm):
    host, port = farm.dns.split(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(2)
        response = dns.message.make_response(dns.message.make_query("shop.test", "MX")).to_wire()
        for wire in (b"", b"x", response, b"\x12\x34\x01\x00" + b"\xff" * 60):
            udp.sendto(wire, (host, int(port)))
        assert (
            dns.message.from_wire(udp.recv(4096)).rcode() == dns.rcode.FORMERR
        )  # to the last one; no other is answered
    assert ask(farm, "shop.test", "MX").rcode() == dns.rcode.NOERROR


def test_txt_records_are_read_again_and_truncated_over_udp(farm):
    long = "v=DKIM1; p=" + "A" * 1500
    draft = farm.folder / "txt.draft"
    draft.write_text(json.dumps({"s._domainkey.sender.test": long}))
    draft.replace(farm.folder / "txt.json")
    deadline = time.monotonic() + 5
    while (response := ask(farm, "s._domainkey.sender.test", "TXT")).rcode() != dns.rcode.NOERROR:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert response.flags & dns.flags.TC
    response = ask(farm, "s._domainkey.sender.test", "TXT", dns.query.tcp)
    assert b"".join(response.answer[0][0].strings).decode() == long
    assert ask(farm, "_domainkey.sender.test", "TXT").rcode() == dns.rcode.NOERROR  # exists, holds nothing


# behaviours


def test_accepts_and_keeps_receipts(farm):
    before = len(farm.receipts)
    code, _ = send(farm, "b@shop.test", site="accept", mail=b"Message-ID:\r\n <1@x>\r\n\r\n.\r\n..two\r\nend\r\n")
    assert code == 250
    receipt = list(farm.receipts)[before]
    assert (receipt.recipient, receipt.site, receipt.mail_from) == ("b@shop.test", "accept", "a@sender.test")
    assert (receipt.message_id, receipt.answered, receipt.helo) == ("<1@x>", True, "client.test")
    assert farm.receipts.raw(receipt) == b"Message-ID:\r\n <1@x>\r\n\r\n.\r\n..two\r\nend\r\n"
    assert farm.receipts.count()["b@shop.test"] == 1
    assert farm.receipts.by_site()["accept"] >= 1


def test_a_message_to_several_recipients_is_a_receipt_for_each(farm):
    with connect(farm, "accept", host="mx2") as smtp:
        assert smtp.sendmail("", ["r1@verein.test", "r2@verein.test", "r3@elsewhere.test"], MAIL) == {
            "r3@elsewhere.test": (550, b"5.7.1 not a domain of this host")
        }
    assert [farm.receipts.count()[f"r{i}@verein.test"] for i in (1, 2, 3)] == [1, 1, 0]


def test_idn_domain_in_both_spellings(farm):
    with connect(farm, "accept") as smtp:
        smtp.ehlo()
        assert smtp.sendmail("", ["u@xn--bcher-kva.test"], MAIL) == {}
        eight_bit = "From: ü@x.test\r\nSubject: grün\r\n\r\nhä?\r\n".encode()
        assert smtp.sendmail("", ["ü@bücher.test"], eight_bit, ["SMTPUTF8", "BODY=8BITMIME"]) == {}
    assert farm.receipts.count()["ü@bücher.test"] == 1


def test_starttls(farm):
    with connect(farm, "starttls") as smtp:
        smtp.ehlo()
        assert smtp.has_extn("starttls")
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        smtp.starttls(context=context)
        assert smtp.mail("a@sender.test") == (503, b"5.5.1 EHLO first")  # what was said in clear is forgotten
    with connect(farm, "starttls") as smtp:
        smtp.starttls(context=context)
        smtp.ehlo()
        assert not smtp.has_extn("starttls")
        smtp.sendmail("a@sender.test", ["b@bank.test"], MAIL + b"x" * 900 + b"\r\n")
    assert [receipt.tls for receipt in farm.receipts if receipt.recipient == "b@bank.test"] == [True]


def test_commands_smuggled_behind_starttls_are_refused(farm):
    with Raw(farm, ADDRESS["mx1.starttls.test"]) as raw:
        raw.say(b"EHLO x\r\n")
        assert raw.say(b"STARTTLS\r\nMAIL FROM:<a@b>\r\n").startswith("554")
        assert raw.reply() == ""


def test_greylist_takes_the_second_try_after_a_while(farm, control):
    control({"sites": {"greylist": {"greylist_s": 0.2}}})
    assert send(farm, "g@greylist.test") == (451, "4.7.1 greylisted, try again later")
    time.sleep(0.25)
    assert send(farm, "g@greylist.test", sender="another@sender.test")[0] == 451
    assert send(farm, "g@greylist.test")[0] == 250


def test_unknown_users_and_full_mailboxes(farm):
    assert send(farm, "unknown.person@unknown.test") == (550, "5.1.1 no such user here")
    assert send(farm, "known@unknown.test")[0] == 250
    assert send(farm, "full1@full.test") == (552, "5.2.2 mailbox full")
    assert send(farm, "busy1@full.test")[:1] == (452,)
    assert send(farm, "empty@full.test")[0] == 250


def test_slow_site_delays_each_reply(farm, control):
    control({"sites": {"slow": {"delay_ms": 40}}})
    started = time.monotonic()
    assert send(farm, "b@slow.test")[0] == 250
    assert time.monotonic() - started >= 6 * 0.04  # greeting, EHLO, MAIL, RCPT, DATA, dot


def test_limited_site_turns_away_the_connection_too_many(farm):
    limit = next(site.behaviour.connections for site in SITES if site.name == "limited")
    held = [connect(farm, "limited") for _ in range(limit)]
    with pytest.raises(smtplib.SMTPConnectError) as refused:
        connect(farm, "limited")
    assert refused.value.smtp_code == 421
    held.pop().quit()
    assert send(farm, "b@limited.test")[0] == 250
    for smtp in held:
        smtp.close()


def test_dropper_cuts_the_first_try_of_each_message(farm):
    for sender in ("b-1@sender.test", "b-2@sender.test"):
        with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionError)):
            send(farm, "d@dropper.test", sender=sender, mail=MAIL + b"x\r\n" * 300_000)
    assert send(farm, "d@dropper.test", sender="b-1@sender.test")[0] == 250
    assert farm.receipts.count()["d@dropper.test"] == 1


def test_refusing_blackhole_and_half(farm):
    for host in ("mx1.refusing.test", "mx1.half.test"):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((ADDRESS[host], farm.smtp_port), timeout=2)
    with connect(farm, "half", host="mx2") as smtp:
        assert smtp.noop()[0] == 250
    with socket.create_connection((ADDRESS["mx1.blackhole.test"], farm.smtp_port), timeout=0.2) as silent:
        silent.sendall(b"EHLO x\r\n")
        with pytest.raises(TimeoutError):
            silent.recv(1)


# control


def test_modes_change_while_it_runs(farm, control):
    held = connect(farm, "accept")
    control({"sites": {"accept": {"mode": "refuse"}}})
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionError)):
        held.noop()
        held.noop()
    held.close()
    with pytest.raises(ConnectionRefusedError):
        connect(farm, "accept")

    control({"sites": {"accept": {"mode": "stall-in-data"}}})
    with Raw(farm).to_data() as raw:
        raw.socket.settimeout(0.2)
        raw.socket.sendall(MAIL + b".\r\n")
        with pytest.raises(TimeoutError):
            raw.lines.readline()

    control({"sites": {"accept": {"mode": "close-after-data"}}})
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionError)):
        send(farm, "unanswered@accept.test")
    taken = [receipt for receipt in farm.receipts if receipt.recipient == "unanswered@accept.test"]
    assert [receipt.answered for receipt in taken] == [False]
    assert farm.receipts.count()["unanswered@accept.test"] == 0

    control({})
    assert send(farm, "b@accept.test")[0] == 250


def test_a_share_of_messages_is_dropped_after_the_dot(farm, control):
    control({"sites": {"accept": {"drop_after_dot": 1}}})
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionError)):
        send(farm, "share@accept.test")
    assert farm.receipts.count()["share@accept.test"] == 0


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sites": {"nowhere": {}}}, "nowhere"),
        ({"sites": {"accept": {"mode": "explode"}}}, "explode"),
        ({"sites": {"accept": {"speed": 1}}}, "speed"),
        ({"sites": {"accept": {"delay_ms": -1}}}, "delay_ms"),
        ({"dns": {"answer": "no"}}, "answer"),
        ({"weather": {}}, "weather"),
    ],
)
def test_wrong_control_is_refused_whole(farm, control, changes, named):
    with pytest.raises(FarmError, match=named):
        control({**changes, **({"dns": {"answer": False}} if "dns" not in changes else {})})
    assert ask(farm, "shop.test", "MX").rcode() == dns.rcode.NOERROR


def test_broken_control_file_changes_nothing(farm, control):
    (farm.folder / "control.json").write_text("{")
    time.sleep(0.3)
    assert send(farm, "b@accept.test")[0] == 250


# hostile input


def test_bare_line_feeds_smuggle_nothing(farm):
    before = len(farm.receipts)
    for end in (b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\n", b"\r\n\x00.\r\n"):
        with Raw(farm).to_data() as raw:
            smuggled = b"MAIL FROM:<evil@x>\r\nRCPT TO:<b@accept.test>\r\nDATA\r\nevil\r\n"
            assert raw.say(MAIL + end + smuggled + b"\r\n.\r\n").startswith("554 5.6.0")
            assert raw.say(b"NOOP\r\n").startswith("250")
    assert len(farm.receipts) == before


@pytest.mark.parametrize(
    ("content", "reply"),
    [
        (b"Subject: x\r\n\r\n" + b"y" * 1_000_000 + b"\r\n", "554 5.6.0"),
        (b"Subject: x\r\n\r\nnul \0\r\n", "554 5.6.0"),
        ("Subject: x\r\n\r\nhä\r\n".encode(), "554 5.6.1"),
    ],
)
def test_bad_content_is_refused(farm, content, reply):
    with Raw(farm).to_data() as raw:
        assert raw.say(content + b".\r\n").startswith(reply)


def test_undeclared_utf8_header_is_refused(farm):
    with Raw(farm).to_data(options=b" BODY=8BITMIME") as raw:
        assert raw.say("Subject: hä\r\n\r\nx\r\n.\r\n".encode()).startswith("554 5.6.7")


def test_garbage_before_ehlo(farm):
    with Raw(farm) as raw:
        assert raw.say(b"\x16\x03\x01\x02\xff\xfe\r\n").startswith("500")
        assert raw.say(b"GET / HTTP/1.1\r\n").startswith("500")
        assert raw.say(b"MAIL FROM:<a@b>\r\n").startswith("503")
        assert raw.say(b"EHLO x\0y\r\n").startswith("500")
        assert raw.say(b"EHLO x\n").startswith("500")
        assert raw.say(b"X" * 1_000_000 + b"\r\n") == "500 5.5.2 line too long"
        assert raw.say(b"EHLO x\r\n").startswith("250")


def test_endless_errors_end_the_session(farm):
    with Raw(farm) as raw:
        raw.socket.sendall(b"?\r\n" * 30)
        replies = [raw.reply() for _ in range(22)]
        assert replies[-2:] == ["421 4.7.0 too many errors", ""]


def test_wrong_parameters_and_order(farm):
    with Raw(farm) as raw:
        raw.say(b"EHLO x\r\n")
        assert raw.say(b"DATA\r\n").startswith("503")
        assert raw.say(b"RCPT TO:<b@accept.test>\r\n").startswith("503")
        assert raw.say(b"MAIL FROM:a@b\r\n").startswith("501")
        assert raw.say(b"MAIL FROM:<a@b> COLOUR=red\r\n").startswith("555")
        assert raw.say(b"MAIL FROM:<a@b> SIZE=99999999999\r\n").startswith("552")
        assert raw.say("MAIL FROM:<ä@b>\r\n".encode()).startswith("553")
        assert raw.say(b'MAIL FROM:<"a b>"@x.test> SIZE=10\r\n').startswith("250")
        assert raw.say(b"RCPT TO:<nobody>\r\n").startswith("501")
        assert raw.say(b"RCPT TO:<b@[127.0.0.11]>\r\n").startswith("550")
        assert raw.say(b"RCPT TO:<b@accept..test>\r\n").startswith("550")
        assert raw.say(b"DATA\r\n").startswith("503")


def test_too_big_message_is_read_to_its_end_and_refused(farm, control):
    control({"sites": {"accept": {"size": 10_000}}})
    with Raw(farm).to_data() as raw:
        assert raw.say(b"12345678\r\n" * 100_000 + b".\r\n") == "552 5.3.4 message too big"
        assert raw.say(b"NOOP\r\n").startswith("250")


def test_pipelining_in_pieces_of_any_size(farm):
    session = (
        b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<p@accept.test>\r\nDATA\r\n" + MAIL + b"..dot\r\n.\r\n"
        b"MAIL FROM:<a@b>\r\nRCPT TO:<p@accept.test>\r\nDATA\r\n.\r\nRSET\r\nQUIT\r\n"
    )
    for size in (1, 3, 7, len(session)):
        before = len(farm.receipts)
        with Raw(farm) as raw:
            raw.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for start in range(0, len(session), size):
                raw.socket.sendall(session[start : start + size])
            codes = [raw.reply()[:3] for _ in range(10)]
        assert codes == ["250", "250", "250", "354", "250", "250", "250", "354", "250", "250"]
        assert [farm.receipts.raw(r) for r in list(farm.receipts)[before:]] == [MAIL + b".dot\r\n", b""]


# life and death


def send_until_cut(farm, name: str, answered: list[str]) -> None:
    """Send message after message on one connection; what got 250 is in `answered`."""
    with contextlib.suppress(OSError), Raw(farm) as raw:
        raw.say(b"EHLO x\r\n")
        for number in itertools.count():
            recipient = f"{name}{number}@accept.test"
            raw.say(b"MAIL FROM:<a@b>\r\n")
            raw.say(b"RCPT TO:<" + recipient.encode() + b">\r\n")
            raw.say(b"DATA\r\n")
            if not raw.say(MAIL + b".\r\n").startswith("250"):
                return
            answered.append(recipient)


def test_receipts_survive_kill_under_load_and_restart(tmp_path):
    answered: list[str] = []
    with Farm.start(tmp_path) as farm:
        senders = [threading.Thread(target=send_until_cut, args=(farm, name, answered)) for name in "xyz"]
        for sender in senders:
            sender.start()
        while len(answered) < 100:
            time.sleep(0.001)
        farm.process.kill()
        for sender in senders:
            sender.join()
        ports = int(farm.dns.split(":")[1]), farm.smtp_port
    left = Receipts(tmp_path).count()
    assert set(answered) <= left.keys()
    assert left.total() == len(left) <= len(answered) + len(senders)  # one each may have lost its reply
    with open(tmp_path / "receipts.jsonl", "ab") as index, open(tmp_path / "spool.bin", "ab") as spool:
        index.write(b'{"recipient": "torn')  # what a kill between and inside the two writes leaves
        spool.write(b"From: torn")
    assert Receipts(tmp_path).count() == left
    with Farm.start(tmp_path, dns_port=ports[0], smtp_port=ports[1]) as farm:
        assert send(farm, "after@accept.test")[0] == 250
        assert farm.receipts.count() == left + Counter(["after@accept.test"])
        assert {farm.receipts.raw(receipt) for receipt in farm.receipts} == {MAIL}
        with pytest.raises(FarmError, match="address already in use"):
            Farm.start(tmp_path / "second", smtp_port=ports[1])
    assert farm.process.returncode == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl")
def test_dies_with_its_parent(tmp_path):
    root = str(Path(__file__).parents[2])
    script = f"from loadtest.mxfarm import Farm; import os; Farm.start({str(tmp_path)!r}); os._exit(0)"
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": root}, timeout=20)
    pid = json.loads((tmp_path / "farm.json").read_text())["pid"]
    deadline = time.monotonic() + 5
    while _alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


async def test_in_process(tmp_path):
    import aiosmtplib

    async with FarmServer(tmp_path) as farm:
        assert farm.dns == f"127.0.0.1:{farm.dns_port}"
        await aiosmtplib.send(
            MAIL, sender="a@b.test", recipients=["in@accept.test"], hostname="127.0.0.11", port=farm.smtp_port
        )
        assert Receipts(tmp_path).count() == {"in@accept.test": 1}


def test_table_has_no_address_or_domain_twice():
    hosts = [host for site in SITES for host in site.hosts]
    domains = [domain for site in SITES for domain in site.domains]
    assert len({host.address for host in hosts}) == len({host.name for host in hosts}) == len(hosts)
    assert len(set(domains)) == len(domains)
    with pytest.raises(ValueError, match="three digits"):
        Behaviour(replies={"x": "no"})


# signatures


@pytest.fixture(scope="module")
def keys():
    private = rsa.generate_private_key(65537, 2048)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pem, "v=DKIM1; k=rsa; p=" + base64.b64encode(public).decode()


def test_signatures_of_receipts(farm, keys):
    pem, record = keys
    sign = {"privkey": pem, "canonicalize": (b"relaxed", b"relaxed")}
    signed = dkim.sign(MAIL, b"s1", b"sender.test", **sign) + MAIL
    twice = dkim.sign(MAIL, b"s2", b"xn--bcher-kva.test", **sign) + signed
    changed = signed.replace(b"hello", b"hullo")
    for recipient, mail in (("s1", signed), ("s2", twice), ("s3", changed), ("s4", MAIL)):
        assert send(farm, f"{recipient}@verein.test", site="accept", mail=mail)[0] == 250
    txt = {"s1._domainkey.sender.test": record, "S2._domainkey.bücher.test": record}
    results = {receipt.recipient: found for receipt, found in farm.receipts.verify_signatures(txt)}
    assert [(r.domain, r.selector, r.algorithm, r.valid, r.error) for r in results["s1@verein.test"]] == [
        ("sender.test", "s1", "rsa-sha256", True, "")
    ]
    assert [(r.domain, r.valid) for r in results["s2@verein.test"]] == [
        ("xn--bcher-kva.test", True),
        ("sender.test", True),
    ]
    assert [r.valid for r in results["s3@verein.test"]] == [False]
    assert "body hash" in results["s3@verein.test"][0].error
    assert results["s4@verein.test"] == []


def test_signatures_that_cannot_be_verified_say_why(keys):
    pem, record = keys
    signed = dkim.sign(MAIL, b"s1", b"sender.test", pem) + MAIL
    (missing,) = Verifier({}).verify(signed)
    assert not missing.valid and "no key at s1._domainkey.sender.test" in missing.error
    (wrong,) = Verifier({"s1._domainkey.sender.test": "v=DKIM1; p=AAAA"}).verify(signed)
    assert not wrong.valid
    verifier = Verifier({"s1._domainkey.sender.test": record})
    for start in (b"DKIM-Signature: v=1; a=rsa-sha256\r\n", b"DKIM-Signature: \r\n", b"DKIM-Signature: v=2; =;;\r\n"):
        results = verifier.verify(start + signed)
        assert [result.valid for result in results] == [False, True]
    for nothing in (b"", b" continued\r\n\r\n", b"\xff\xff\r\n\r\n", b"no colon\r\n\r\n"):
        assert verifier.verify(nothing) == []


def test_ed25519_signature():
    """The message, key and signature of RFC 8463, appendix A."""
    mail = (
        b"DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n"
        b" d=football.example.com; i=@football.example.com;\r\n"
        b" q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n"
        b" subject : date : message-id : from : subject : date;\r\n"
        b" bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n"
        b" b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus\r\n"
        b" Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==\r\n"
        b"From: Joe SixPack <joe@football.example.com>\r\n"
        b"To: Suzie Q <suzie@shopping.example.net>\r\n"
        b"Subject: Is dinner ready?\r\n"
        b"Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n"
        b"Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n\r\n"
        b"Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n"
    )
    key = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
    (valid,) = Verifier({"brisbane._domainkey.football.example.com": key}).verify(mail)
    assert (valid.valid, valid.algorithm, valid.error) == (True, "ed25519-sha256", "")
    (changed,) = Verifier({"brisbane._domainkey.football.example.com": key}).verify(mail.replace(b"Joe S", b"Jim S"))
    assert not changed.valid
    other = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    key = "v=DKIM1; k=ed25519; p=" + base64.b64encode(other).decode()
    (wrong_key,) = Verifier({"brisbane._domainkey.football.example.com": key}).verify(mail)
    assert not wrong_key.valid


# what comes back after the 250


class Inbox:
    """An SMTP server that keeps what it gets; the first connection is told to come again."""

    def __init__(self):
        self.mails, self.tries = [], 0

    async def handle_RCPT(self, server, session, envelope, address, options):
        self.tries += 1
        if self.tries == 1:
            return "451 4.3.0 later"
        envelope.rcpt_tos.append(address)
        return "250 ok"

    async def handle_DATA(self, server, session, envelope):
        self.mails.append((envelope.mail_from, envelope.rcpt_tos, envelope.content))
        return "250 ok"


def test_a_dsn_and_a_complaint_come_back(farm, control):
    inbox = Inbox()
    controller = Controller(inbox, "127.0.0.1", free_port())
    controller.start()
    try:
        back = {"returns": {"gone": "dsn 5.1.1 no such user", "angry": "arf abuse"}, "feedback_to": "fbl@sender.test"}
        control({"sites": {"accept": back | {"returns_to": f"127.0.0.1:{controller.port}"}}})
        for name in ("gone", "fine", "angry"):
            assert send(farm, f"{name}@accept.test", sender="b-1@sender.test")[0] == 250
        until(lambda: len(inbox.mails) == 2)
    finally:
        controller.stop()
    mails = {to[0]: (sender, feedback.read(raw)) for sender, to, raw in inbox.mails}
    sender, dsn = mails["b-1@sender.test"]
    assert (sender, dsn.kind, [(each.address, each.status, each.action) for each in dsn.recipients]) == (
        "<>", "bounce", [("gone@accept.test", "5.1.1", "failed")])  # fmt: skip
    sender, complaint = mails["fbl@sender.test"]
    assert (sender, complaint.kind, complaint.complaint.feedback_type) == (
        "postmaster@mx1.accept.test",
        "complaint",
        "abuse",
    )
    assert complaint.original.message_id == "one@sender.test"


def until(true):
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_returns_is_checked():
    with pytest.raises(ValueError, match="neither dsn"):
        Behaviour(returns={"a": "vacation"})
