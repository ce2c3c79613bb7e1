"""A small receiving host whose every word a test decides, and an authority that gives it certificates."""

import asyncio
import contextlib
import datetime
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from postroad.egress import Source
from postroad.shaping.limits import Limits
from postroad.smtp import AT_ONCE, Client, Envelope, Place, Result, SmtpTimeouts, Turn

SOURCE = Source("s1", "127.0.0.1", "out.example.com")
ENVELOPE = Envelope("b-1@bounce.example.com", "user@example.org")
MAIL = b"From: a@example.com\r\nSubject: hi\r\n\r\n.dot first\r\nline\r\n..two\r\n"
QUICK = SmtpTimeouts(0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3)  # where one strikes
LIMITS = Limits(new_per_minute=100_000, timeouts=SmtpTimeouts(scale=0.05))  # no busy machine needs so long
SITE = "example.org#0"
PLACE = Place(SITE, SOURCE)
PLAIN = b"250-mx.example.org\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 1000000"
PIPELINING = b"250-mx.example.org\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 1000000"


class Host:
    """A receiving host: `says` overrides replies by verb (BANNER, EHLO, MAIL, RCPT, DATA, BODY, RSET, STARTTLS).

    A reply of b"" closes the connection without a word; None says nothing and waits.
    """

    def __init__(self, says: dict[str, bytes | None] | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.says = {
            "BANNER": b"220 mx.example.org ESMTP",
            "EHLO": PLAIN,
            "HELO": b"250 mx.example.org",
            "MAIL": b"250 2.1.0 OK",
            "RCPT": b"250 2.1.5 OK",
            "DATA": b"354 go on",
            "BODY": b"250 2.0.0 taken",
            "RSET": b"250 OK",
            "STARTTLS": b"220 ready",
            **({"EHLO": b"250-mx.example.org\r\n250-8BITMIME\r\n250 STARTTLS"} if tls else {}),
            **(says or {}),
        }
        self.tls = tls
        self.commands: list[str] = []
        self.bodies: list[bytes] = []
        self.begun: list[float] = []
        self.connections = self.now_open = self.most_open = 0
        self.closed = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.begun.append(asyncio.get_running_loop().time())
        self.connections += 1
        self.now_open += 1
        self.most_open = max(self.most_open, self.now_open)
        # SSLError is an OSError; cancelled: the test is over
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
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
            if going and verb == "DATA" and (self.says["DATA"] or b"").startswith(b"354"):
                body = b""
                while not (body == b".\r\n" or body.endswith(b"\r\n.\r\n")):
                    body += await reader.readuntil(b"\n")
                self.bodies.append(body)
                going = await self.say("BODY", writer)
            if going and verb == "STARTTLS" and self.tls and (self.says["STARTTLS"] or b"").startswith(b"220"):
                await writer.start_tls(self.tls)


Farm = Callable[..., Awaitable[Client]]


async def deliver(
    client: Client, message: bytes = MAIL, envelope: Envelope = ENVELOPE, hosts: int = 1, turn: Turn = AT_ONCE, **limits: Any
) -> Result:  # fmt: skip
    """One attempt at mx1, mx2, ..., with some limits that differ."""
    names = [f"mx{number}" for number in range(1, hosts + 1)]
    changed = replace(LIMITS, **limits) if limits else LIMITS
    return await asyncio.wait_for(client.deliver(envelope, message, names, SOURCE, SITE, changed, turn), 20)


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what comes soon."""
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


class Authority:
    """Signs certificates, and is the only one that its contexts trust."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._key, self._serial = folder, ec.generate_private_key(ec.SECP256R1()), 1
        self._root = self._sign("authority", self._key, ca=True)
        (folder / "root.pem").write_bytes(self._root.public_bytes(serialization.Encoding.PEM))

    def _sign(self, name: str, key: ec.EllipticCurvePrivateKey, ca: bool) -> x509.Certificate:
        now, self._serial = datetime.datetime.now(datetime.UTC), self._serial + 1
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        made = x509.CertificateBuilder(
            issuer, subject, key.public_key(), self._serial, now, now + datetime.timedelta(1)
        )
        made = made.add_extension(x509.BasicConstraints(ca, None), critical=True)
        if not ca:
            made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        return made.sign(self._key, hashes.SHA256())

    def server(self, name: str) -> ssl.SSLContext:
        """A server's context with a certificate for a name."""
        key = ec.generate_private_key(ec.SECP256R1())
        file = self._folder / f"{name}.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + self._sign(name, key, ca=False).public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def context(self, verify: bool) -> ssl.SSLContext:
        """A client's, as postroad.smtp_transport.tls_context, but for whom it trusts."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = verify
        context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
        context.load_verify_locations(self._folder / "root.pem")
        return context
