"""How long the SMTP client waits for each step, and what an attempt may take at most. RFC 5321 4.5.3.2."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SmtpTimeouts:
    """Seconds to wait for each step; a reply must be complete by then. `scale` shortens all of them, for tests.

    `attempt` is an attempt's deadline: once it has passed no further address is tried, so that the tarpits of one domain
    hold a delivery no longer than the slowest of them does.
    """

    connect: float = 30  # Postfix smtp_connect_timeout; TCP itself would try for two minutes
    banner: float = 300  # RFC 5321 4.5.3.2.1
    ehlo: float = 300  # as MAIL: the RFC names no value
    tls: float = 60  # the reply to STARTTLS, and the handshake; no RFC value
    mail: float = 300  # 4.5.3.2.2
    rcpt: float = 300  # 4.5.3.2.3
    data: float = 120  # 4.5.3.2.4
    block: float = 180  # 4.5.3.2.5, for each block of 64 KB
    body: float = 600  # 4.5.3.2.6: the reply after the final dot
    attempt: float = 900  # no RFC value: a banner and an EHLO at the last moment leave time for a second address
    scale: float = 1

    def of(self, step: str) -> float:
        """The scaled time-out of a step."""
        value: float = getattr(self, step)
        return value * self.scale

    @property
    def longest(self) -> float:
        """What an attempt may take at most: a host that says every word at the last moment, begun just before the deadline.

        Waits for a free connection (smtp_pool, some seconds) are not in it.
        """
        stale = 2 * self.mail  # RSET and MAIL on a connection of the pool
        # EHLO inside TLS fails: once more without TLS; there EHLO is refused, and HELO taken
        opening = 2 * (self.connect + self.banner) + 4 * self.ehlo + 2 * self.tls
        message = self.mail + self.rcpt + self.data + self.body + self.body  # the blocks together, the reply
        return (self.attempt + stale + opening + message) * self.scale
