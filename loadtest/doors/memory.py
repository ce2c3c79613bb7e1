"""Memory: a hundred clients send 25 MB each at the same time, half as JSON in base64, half as forms.

`run(short)`: upload_rss_mb, the most memory that the process had; upload_s. A message may have 25 MiB as it is sent, in base64, so its files
have 18 MB. Each client's file is another one.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import sys
import time

from deploy.local.kafka import free_port
from loadtest.doors.client import request
from loadtest.doors.rig import peak_mib, rig

CLIENTS, RSS_MUST_MB = 100, 300
FILE_BYTES = 18_500_000  # 24.7 MB in base64
PIECE = 57 * 1024  # bytes; a whole number of lines of base64


def run(short: bool = False) -> dict[str, float]:
    """upload_rss_mb, upload_s."""
    with rig() as made:
        port = free_port()
        door = made.start(port)
        began = time.monotonic()
        statuses = asyncio.run(_all(port, made.secret, 20 if short else CLIENTS))
        assert set(statuses) == {202}, statuses
        return {"upload_rss_mb": round(peak_mib(door.pid)), "upload_s": round(time.monotonic() - began, 1)}


async def _all(port: int, secret: str, clients: int) -> list[int]:
    return await asyncio.gather(*(_upload(port, secret, number) for number in range(clients)))


async def _upload(port: int, secret: str, number: int) -> int:
    mail = {"from": "shop@acme.test", "to": f"r{number}@there.test", "subject": "Files", "text": "x"}
    piece = hashlib.shake_256(str(number).encode()).digest(PIECE)
    pieces = FILE_BYTES // PIECE
    if number % 2:
        kind, coded = "application/json", base64.b64encode(piece)
        start = json.dumps({**mail, "attachments": [{"filename": "a.bin", "content": ""}]}).encode()[:-4]
        end = b'"}]}'
    else:
        kind, coded = "multipart/form-data; boundary=XX", piece
        start = b'--XX\r\nContent-Disposition: form-data; name="message"\r\n\r\n' + json.dumps(mail).encode()
        start += b'\r\n--XX\r\nContent-Disposition: form-data; name="attachments"; filename="a.bin"\r\n\r\n'
        end = b"\r\n--XX--\r\n"
    length = len(start) + len(coded) * pieces + len(end)
    head = request(secret, b"", kind=kind).replace(b"Content-Length: 0", b"Content-Length: %d" % length)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head + start)
    for _ in range(pieces):
        writer.write(coded)
        await writer.drain()
    writer.write(end)
    status = int((await reader.readuntil(b"\r\n\r\n"))[9:12])
    writer.close()
    return status


if __name__ == "__main__":
    found = run("--short" in sys.argv)
    print("RESULT " + json.dumps(found))
    sys.exit(found["upload_rss_mb"] > RSS_MUST_MB)
