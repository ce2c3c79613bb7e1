"""What every door that speaks SMTP does: listens, bounds its connections, ends. `gateway/inbound.py` and `gateway/submission.py` have the rules."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import ssl
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from gateway.session import TOO_MANY, Busy, Session

log = logging.getLogger(__name__)

STORE_S = (
    30.0  # RFC 5321 4.5.3.2.6: the peer waits ten minutes for the answer to the dot, and may connect anew after less
)
LARGE = 2
PEERS_MAX = 10_000  # addresses whose rates are kept
MINUTE_S = 60.0
CONNECTS_PER_MAIL = 4  # connections a minute of one address, times the mails that it may send
HANDSHAKE_S = 10.0  # of a connection that begins with TLS: until it ends the connection has no session that would count and bound it
STOPS = "421 4.3.2 this host stops, try again later"


class Bounds(NamedTuple):
    """At a time, and a minute, of all peers and of one address (IPv6: of one /64). `per_minute` None: any number of mails."""

    connections: int
    peer_connections: int
    per_minute: int | None
    size_max: int
    timeout_s: float


class Host(ABC):
    """What the connections of one process share."""

    def __init__(self, bounds: Bounds, clock: Callable[[], float] = time.monotonic):
        self.bounds, self._clock = bounds, clock
        self._sessions: set[Session] = set()
        self._connections: Counter[str] = Counter()  # now, by peer
        self._connects, self._mails = _Rate(clock), _Rate(clock)
        self._servers: list[asyncio.Server] = []
        self._stopping = False
        #: Mails that are larger than `session.SMALL` are stored so many at a time: each is in memory then.
        self.large = asyncio.Semaphore(LARGE)
        self.counts: Counter[str] = Counter()
        """connections, refused_connections, put_off, failed, and what the door counts besides."""

    @abstractmethod
    def session(self, encrypted: bool) -> Session:
        """For a new connection; `encrypted`: it began with TLS."""

    @abstractmethod
    async def take(self, server: Session, raw: bytes) -> str:
        """Store a mail; the answer to the dot."""

    async def open(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Listen; returns the port. `tls`: connections begin with it (RFC 8314 3.3). Raises OSError."""
        server = await asyncio.get_running_loop().create_server(
            lambda: self._protocol(tls is not None), host, port, backlog=1024, ssl=tls,
            ssl_handshake_timeout=min(HANDSHAKE_S, self.bounds.timeout_s) if tls else None,
        )  # fmt: skip
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    def listens(self) -> bool:
        """Whether it takes connections."""
        return bool(self._servers) and not self._stopping and all(server.is_serving() for server in self._servers)

    async def close(self, grace_s: float) -> None:
        """Take no more connections; what is being stored may end for so long; all others are told to come again."""
        self._stopping = True
        for server in self._servers:
            server.close()
        deadline = time.monotonic() + grace_s
        while self._sessions:
            late = time.monotonic() > deadline
            for session in list(self._sessions):
                if late or not session.storing:
                    session.end(STOPS)
            if late:
                return
            await asyncio.sleep(0.05)

    def _protocol(self, encrypted: bool) -> asyncio.Protocol:
        if len(self._sessions) >= self.bounds.connections:
            self.counts["refused_connections"] += 1
            return Busy()
        return self.session(encrypted)

    def opened(self, session: Session) -> str:
        """Note a connection; why it is refused, empty where it is not."""
        bounds, peer = self.bounds, network(session.peer)
        if self._stopping:
            return STOPS
        if len(self._sessions) >= bounds.connections:
            self.counts["refused_connections"] += 1
            return TOO_MANY
        if self._connections[peer] >= bounds.peer_connections or not self._connects.take(
            peer, bounds.per_minute and CONNECTS_PER_MAIL * bounds.per_minute
        ):
            self.counts["refused_connections"] += 1
            return "421 4.7.0 too many connections of your address, try again later"
        self._connections[peer] += 1
        self._sessions.add(session)
        self.counts["connections"] += 1
        return ""

    def closed(self, session: Session) -> None:
        """A connection has ended."""
        if session in self._sessions:
            self._sessions.discard(session)
            peer = network(session.peer)
            self._connections[peer] -= 1
            if not self._connections[peer]:
                del self._connections[peer]

    def mailed(self, session: Session) -> str:
        """A peer begins a mail; why it has to wait, empty where it does not."""
        if self._stopping:
            return STOPS
        if not self._mails.take(network(session.peer), self.bounds.per_minute):
            self.counts["put_off"] += 1
            return "421 4.7.0 too many mails of your address, try again later"
        return ""

    async def handle_exception(self, error: Exception) -> str:
        """The peer keeps the mail."""
        self.counts["failed"] += 1
        log.error("a session failed", exc_info=error)
        return "451 4.3.0 an error of this host, try again later"


def network(peer: str) -> str:
    """What limits go by: an address; of IPv6, the /64 that one host has."""
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return peer
    return peer if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))


def text(said: Any, limit: int = 254) -> str:
    """What a peer says, as text that can be stored."""
    return str(said or "").encode("utf-8", "surrogateescape").decode("utf-8", "replace")[:limit]


class _Rate:
    """How often each of many did something in the last minute: a bucket that empties evenly. Forgets the longest quiet ones."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._levels: dict[str, tuple[float, float]] = {}

    def take(self, who: str, per_minute: int | None) -> bool:
        """Once more, if it may."""
        if per_minute is None:
            return True
        now = self._clock()
        level, at = self._levels.pop(who, (0.0, now))
        level = max(0.0, level - (now - at) * per_minute / MINUTE_S)
        may = level + 1 <= per_minute
        self._levels[who] = (level + may, now)
        if len(self._levels) > PEERS_MAX:
            del self._levels[next(iter(self._levels))]
        return may
