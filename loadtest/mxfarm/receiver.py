"""SMTP receivers: the servers of a site on its addresses, and what its connections share."""

import asyncio
import random
import socket
import ssl
from collections.abc import Callable
from functools import lru_cache

import dns.exception

from loadtest.mxfarm import returns
from loadtest.mxfarm.connections import ConnectionLog
from loadtest.mxfarm.receipts import ReceiptLog
from loadtest.mxfarm.session import Session
from loadtest.mxfarm.sites import IMPLICIT_MX, Behaviour, Host, Site
from loadtest.mxfarm.zone import absolute

BACKLOG = 1024  # connections that wait for accept


class Receiver:
    """The SMTP servers of one site, on all of its addresses."""

    def __init__(self, site: Site, port: int, log: ReceiptLog, connections: ConnectionLog, tls: ssl.SSLContext) -> None:
        self.site, self.port, self.log, self.connections, self.tls = site, port, log, connections, tls
        self.behaviour = site.behaviour
        self.sessions: set[Session] = set()
        self.first_try: dict[tuple[str, ...], float] = {}  # for greylist_s and drop_first; monotonic seconds
        self.random = random.Random(site.name)
        implicit = [domain for domain, name in IMPLICIT_MX.items() if name == site.name]
        domains = [*site.domains, *implicit]
        self._domains = {absolute(domain) for domain in domains if not domain.startswith("*.")}
        self._parents = [absolute(domain[2:]) for domain in domains if domain.startswith("*.")]
        self.takes_domain = lru_cache(10_000)(self._takes_domain)
        self._servers: list[asyncio.Server] = []
        self._deaf: list[socket.socket] = []
        self._sending: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen on every address, unless connections are to be refused. OSError where a port is taken."""
        if self.behaviour.mode == "refuse":
            return
        loop = asyncio.get_running_loop()
        for host in self.site.hosts:
            if host.listens and self.behaviour.mode == "unreachable":
                self._be_deaf(host.address)
            elif host.listens:
                make = self._session_maker(host)
                server = await loop.create_server(make, host.address, self.port, backlog=BACKLOG)
                self._servers.append(server)
                self.port = server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Stop listening and cut all connections."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        for sock in self._deaf:
            sock.close()
        self._deaf.clear()
        for session in list(self.sessions):
            session.cut()

    def _be_deaf(self, address: str) -> None:
        """Nothing answers a SYN: the queue of a socket that nobody accepts from is full with a connection of our own."""
        server = socket.socket()
        self._deaf.append(server)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, self.port))
        server.listen(0)
        self.port = server.getsockname()[1]
        filler = socket.create_connection((address, self.port), timeout=1)
        self._deaf.append(filler)

    async def behave(self, behaviour: Behaviour) -> None:
        """Answer differently from now on; another mode cuts the connections, as a restart of a real server does."""
        before, self.behaviour = self.behaviour, behaviour
        if before.mode != behaviour.mode:
            self.close()
            await self.open()

    def send_back(self, host: str, mail_from: str, recipient: str, raw: bytes) -> None:
        """What `returns` of the behaviour says, in a while."""
        behaviour = self.behaviour
        for start, what in behaviour.returns.items():
            if behaviour.returns_to and recipient.startswith(start):
                mail, dsn = returns.report(what, host, mail_from, recipient, raw), what.startswith("dsn")
                sender, to = ("", mail_from) if dsn else (f"postmaster@{host}", behaviour.feedback_to)
                task = asyncio.get_running_loop().create_task(returns.send(behaviour.returns_to, sender, to, mail))
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)
                return

    def _session_maker(self, host: Host) -> Callable[[], Session]:
        return lambda: Session(self, host.name)

    def _takes_domain(self, domain: str) -> bool:
        try:
            name = absolute(domain)
        except (dns.exception.DNSException, UnicodeError):
            return False
        return name in self._domains or any(name.is_subdomain(above) and name != above for above in self._parents)


async def open_receivers(receivers: list[Receiver], port: int) -> int:
    """Open all of them on one port, a free one if 0; returns it. OSError where it is taken."""
    for left in reversed(range(20 if port == 0 else 1)):
        try:
            for receiver in receivers:
                receiver.port = port
                await receiver.open()
                port = receiver.port
            for receiver in receivers:  # those that listen to nothing now may later
                receiver.port = port
            return port
        except OSError:
            for receiver in receivers:
                receiver.close()
            if not left:
                raise
            port = 0
    raise AssertionError("unreachable")
