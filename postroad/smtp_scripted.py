"""A transport without a network, for tests: what hosts answer is a function."""

from collections.abc import Callable
from dataclasses import dataclass, field

from postroad.egress import Source
from postroad.reply import Envelope, Reply, Step
from postroad.shaping.limits import Limits
from postroad.smtp_session import Failure, Laps, Session


def accept(host: str, envelope: Envelope) -> Step:
    """The answer of a host that takes everything."""
    return Step("done", "replied", Reply(250, "2.0.0", "OK"))


@dataclass(eq=False)
class ScriptedSession:
    """A session that answers from a `ScriptedTransport`'s script."""

    host: str
    address: str
    transport: "ScriptedTransport"
    tls: str = ""
    sent: int = 0
    alive: bool = True

    async def send(self, envelope: Envelope, message: bytes, laps: Laps) -> Step:
        """The scripted step; a 421, or a step without a reply, ends the session as a real one would."""
        self.sent += 1
        self.transport.sent.append((self.host, envelope, message))
        step = self.transport.answer(self.host, envelope)
        self.alive = step.reply.code not in (0, 421)
        laps.start()
        laps.lap(step.phase)
        return step

    def close(self, closed: Callable[[], None]) -> None:
        """At once."""
        self.alive = False
        closed()


@dataclass
class ScriptedTransport:
    """`answer` decides each transaction, `refuse` the connections of hosts; both are recorded."""

    answer: Callable[[str, Envelope], Step] = accept
    refuse: dict[str, Step] = field(default_factory=dict)
    sent: list[tuple[str, Envelope, bytes]] = field(default_factory=list)
    connections: list[tuple[str, str]] = field(default_factory=list)  # (source name, host)

    async def connect(
        self, source: Source, host: str, address: str, port: int, limits: Limits, starttls: bool, laps: Laps
    ) -> Session:
        """A session at once, or the scripted Failure."""
        self.connections.append((source.name, host))
        if host in self.refuse:
            raise Failure(self.refuse[host])
        return ScriptedSession(host, address, self)
