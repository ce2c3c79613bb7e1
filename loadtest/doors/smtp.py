"""SMTP submission: how many a second one process on one core takes, how late at half of the must, and what a kill in the middle leaves.

`run(short)`: smtp_per_s, smtp_p95_ms, smtp_cpu_us. `faults(short)`: how many answers of 250 are not in Kafka.
"""

from __future__ import annotations

import asyncio
import base64
import os
import random
import ssl
import time

from deploy.local.kafka import free_port
from gateway.accept import ids_of
from loadtest.doors.rig import Rig, cpu_s, quantile, rig
from topics.catalogue import SUBMISSIONS
from topics.client import Client, Place

PER_S_MUST, P95_MUST_MS = 700, 100.0
CONNECTIONS = 32
MAIL_BYTES = 2_048


class Session:
    """One kept connection with TLS, signed in."""

    def __init__(self, port: int, secret: str) -> None:
        self._port, self._secret = port, secret
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, mail: bytes) -> tuple[int, str]:
        """Code and text of the answer to the dot; the commands before it go at once (RFC 2920). Raises OSError, EOFError, AssertionError."""
        if self._streams is None:
            await self._open()
        assert self._streams is not None
        reader, writer = self._streams
        try:
            writer.write(mail)
            for wanted in (b"250", b"250", b"354"):
                line = await _reply(reader)
                assert line[:3] == wanted, line
            line = await _reply(reader)
            return int(line[:3]), line[4:].decode().strip()
        except (OSError, EOFError):
            self.close()
            raise

    async def _open(self) -> None:
        trust = ssl.create_default_context()
        trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
        self._streams = await asyncio.open_connection("127.0.0.1", self._port, ssl=trust)
        reader, writer = self._streams
        await _reply(reader)
        signed = base64.b64encode(b"\0apikey\0" + self._secret.encode())
        for line, wanted in ((b"EHLO bench.test", b"250"), (b"AUTH PLAIN " + signed, b"235")):
            writer.write(line + b"\r\n")
            said = await _reply(reader)
            assert said[:3] == wanted, said

    def close(self) -> None:
        """Let go."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


async def _reply(reader: asyncio.StreamReader) -> bytes:
    while True:
        line = await reader.readuntil(b"\n")
        if line[3:4] != b"-":
            return line


def mail(number: int) -> bytes:
    """The bytes of a transaction: 2 KB, each to somebody else."""
    head = f"From: Shop <shop@acme.test>\r\nTo: r{number}@there.test\r\nSubject: Order {number}\r\nX-Postroad-Tags: order\r\n\r\n"
    body = ("x" * 70 + "\r\n") * ((MAIL_BYTES - len(head)) // 72)
    return f"MAIL FROM:<shop@acme.test> BODY=8BITMIME\r\nRCPT TO:<r{number}@there.test>\r\nDATA\r\n{head}{body}.\r\n".encode()


def run(short: bool = False) -> dict[str, float]:
    """smtp_per_s, smtp_p95_ms (at half the rate that is a must), smtp_cpu_us (of a mail)."""
    with rig() as made:
        port, cores = free_port(), os.cpu_count() or 1
        door = made.start(port, door="smtp", core=0 if cores > 1 else None)
        if cores > 1:
            os.sched_setaffinity(0, set(range(1, cores)))
        try:
            return asyncio.run(_measure(made, port, door.pid, 5.0 if short else 20.0))
        finally:
            os.sched_setaffinity(0, set(range(cores)))


async def _measure(made: Rig, port: int, pid: int, seconds: float) -> dict[str, float]:
    mails, numbers = [mail(number) for number in range(2_000)], iter(range(1 << 40))
    sessions = [Session(port, made.secret) for _ in range(CONNECTIONS)]

    async def one(session: Session, end: float) -> int:
        done = 0
        while time.perf_counter() < end:
            code, text = await session.send(mails[next(numbers) % len(mails)])
            assert code == 250, f"{code} {text}"
            done += 1
        return done

    async def closed(span: float) -> tuple[int, float]:
        began = time.perf_counter()
        done = await asyncio.gather(*(one(session, began + span) for session in sessions))
        return sum(done), time.perf_counter() - began

    await closed(2.0)  # warm
    before = cpu_s(pid)
    number, took = await closed(seconds)
    used = cpu_s(pid) - before
    late = await _at_rate(sessions, mails, PER_S_MUST / 2, seconds)
    for session in sessions:
        session.close()
    return {
        "smtp_per_s": round(number / took),
        "smtp_p95_ms": round(quantile(late, 0.95) * 1000, 1),
        "smtp_cpu_us": round(used / number * 1e6),
    }


async def _at_rate(sessions: list[Session], mails: list[bytes], rate: float, seconds: float) -> list[float]:
    """Seconds from when each was due to its 250."""
    free: asyncio.Queue[Session] = asyncio.Queue()
    for session in sessions:
        free.put_nowait(session)
    found, begin = list[float](), time.perf_counter()

    async def one(number: int) -> None:
        session = await free.get()
        try:
            code, text = await session.send(mails[number % len(mails)])
            assert code == 250, f"{code} {text}"
            found.append(time.perf_counter() - begin - number / rate)
        finally:
            free.put_nowait(session)

    tasks = list[asyncio.Task[None]]()
    for number in range(int(rate * seconds)):
        if (wait := begin + number / rate - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(one(number)))
    await asyncio.gather(*tasks)
    return found


def faults(short: bool = False) -> dict[str, float]:
    """smtp_lost: answers of 250 whose messages are not in Kafka. The door is killed with -9 again and again, under load."""
    with rig() as made:
        return asyncio.run(_killed(made, 5 if short else 100))


async def _killed(made: Rig, kills: int) -> dict[str, float]:
    port, dice, answered, numbers = free_port(), random.Random(8), list[str](), iter(range(1 << 40))
    door, stopping = made.start(port, door="smtp"), asyncio.Event()

    async def client() -> None:
        session = Session(port, made.secret)
        while not stopping.is_set():
            try:
                async with asyncio.timeout(30):
                    code, text = await session.send(mail(next(numbers)))
            except (OSError, EOFError, TimeoutError):
                session.close()
                await asyncio.sleep(0.05)
                continue
            if code == 250:
                answered.append(text.split()[-1])
        session.close()

    clients = [asyncio.create_task(client()) for _ in range(8)]
    for _ in range(kills):
        await asyncio.sleep(dice.uniform(0.2, 1.0))
        door.kill()
        door.wait()
        door = await asyncio.to_thread(made.start, port, door="smtp")
    await asyncio.sleep(1.0)
    stopping.set()
    await asyncio.gather(*clients)
    there: set[str] = set()
    async with Client(made.installation) as reader:
        async for record, value in reader.read(SUBMISSIONS):
            there.update(ids_of(value, Place(record.partition, record.offset, record.timestamp)))
    return {"smtp_lost": sum(id not in there for id in answered), "smtp_kills": kills, "smtp_answered": len(answered)}
