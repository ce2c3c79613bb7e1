"""The relay that many write first: aiosmtpd in, dkimpy with OpenSSL's RSA, aiosmtplib out by a pool of connections. One process.

    python -m loadtest.peers.relay PORT SINK_PORT [KEY.pem]

No spool: 250 is said after the next hop has said it. Mail for capture.test goes to 127.0.0.2.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiosmtplib
import dkim
from aiosmtpd.smtp import SMTP
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils

HEADERS = [b"from", b"to", b"date", b"message-id", b"subject"]
CONNECTIONS = 20
Pool = asyncio.Queue[aiosmtplib.SMTP | None]


def signer(pem: bytes) -> Callable[[bytes], bytes]:
    """Puts a signature on top of a message."""
    key = serialization.load_pem_private_key(pem, None)
    assert isinstance(key, rsa.RSAPrivateKey)
    traditional = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )

    def rsa_sign(digest: Any, _key: object) -> bytes:
        return key.sign(digest.digest(), padding.PKCS1v15(), utils.Prehashed(hashes.SHA256()))

    dkim.RSASSA_PKCS1_v1_5_sign = rsa_sign  # dkimpy's own is Python

    def sign(message: bytes) -> bytes:
        signature: bytes = dkim.sign(message, b"r1", b"sender.example", traditional,
                                     canonicalize=(b"relaxed", b"relaxed"), include_headers=HEADERS)  # fmt: skip
        return signature + message

    return sign


class Relay:
    """aiosmtpd's handler."""

    def __init__(self, port: int, sign: Callable[[bytes], bytes] | None):
        self._port, self._sign = port, sign
        self._pools: dict[str, Pool] = {}

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Any) -> str:
        """Sign, pass on, answer."""
        message = self._sign(envelope.content) if self._sign else envelope.content
        host = "127.0.0.2" if envelope.rcpt_tos[0].endswith("@capture.test") else "127.0.0.1"
        if host not in self._pools:
            self._pools[host] = asyncio.Queue()
            for _ in range(CONNECTIONS):
                self._pools[host].put_nowait(None)
        pool = self._pools[host]
        client = await pool.get()
        try:
            for _ in range(2):
                try:
                    if client is None or not client.is_connected:
                        client = aiosmtplib.SMTP(hostname=host, port=self._port, use_tls=False, start_tls=False,
                                                 local_hostname="relay.test")  # fmt: skip
                        await client.connect()
                    await client.sendmail(envelope.mail_from, envelope.rcpt_tos, message)
                    return "250 2.0.0 passed on"
                except aiosmtplib.SMTPServerDisconnected:
                    client = None
                except aiosmtplib.SMTPException as error:
                    return "451 4.4.0 " + str(error)[:80].replace("\n", " ")
            return "451 4.4.2 the next hop is gone"
        finally:
            pool.put_nowait(client)


async def main(port: str, sink: str, key: str = "") -> None:
    """Serve until killed."""
    relay = Relay(int(sink), signer(Path(key).read_bytes()) if key else None)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(relay, hostname="relay.test", enable_SMTPUTF8=True, loop=loop), "127.0.0.1", int(port), backlog=512
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
