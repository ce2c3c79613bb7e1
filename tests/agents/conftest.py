"""What a stage finds around it, scripted: settings, tenants, DNS, contents, MX hosts. And builders of records."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from postroad.content import MemoryContents
from postroad.departure import Departures
from postroad.dkim import BodyHashes, generate
from postroad.dns import ScriptedResolver
from postroad.retry import RetrySchedule
from postroad.settings import Settings
from postroad.shaping.policy import Policy, parse
from postroad.smtp import Client, Pool, ScriptedTransport

sys.path.insert(0, str(Path(__file__).parent))  # for builders.py, shared by these tests
sys.path.append(
    str(Path(__file__).parent.parent / "topics")
)  # for model_faults.py: a broker and its workers as a model

PEM, TXT = generate("ed25519")
HOSTS = {
    "there.test": [(10, "mx1.there.test"), (20, "backup.elsewhere.test")],
    "xn--bcher-kva.test": [(10, "mx.idn.test")],
    "other.test": [(10, "mx.other.test")],
    "null.test": "null-mx",
    "slow.test": "temporary",
}
KNOWN = {
    "mx1.there.test": ["127.0.0.11"],
    "mx.idn.test": ["127.0.0.12"],
    "mx.other.test": ["127.0.0.13"],
    "backup.elsewhere.test": ["127.0.0.14"],
}


def loop_time() -> float:
    """Seconds of the running loop: models of brokers have a loop of their own."""
    return asyncio.get_running_loop().time()


SLOW = '[default]\nmessages_per_connection = 1\nnew_connections_per_minute = 10000\n[site."slow.site.test"]\nmessages_per_second = 0.4\n'


class Shaping:
    """In place of Watched: `say` puts another file into force."""

    policy: Policy

    def __init__(self, text: str, settings: Settings) -> None:
        self._base = settings.limits()
        self.say(text)

    def say(self, text: str) -> None:
        """As the operator saves the file."""
        self.policy = parse(text, "shaping.toml", self._base)


class ScriptedServices:
    """In place of agents.services.Services: the same names, nothing real behind them."""

    def __init__(self) -> None:
        self.settings = Settings(ehlo="out.test")
        self.shaping = Shaping(SLOW, self.settings)
        self.orders: dict[str, Any] = {}
        self.standings: dict[str, Any] = {}
        domains = [{"domain": "acme.test", "dkim": [{"selector": "s1", "algorithm": "ed25519", "private_key": PEM}]}]
        self.tenants = {"acme": {"tenant": "acme", "domains": domains}}
        self.pools = self.settings.pools()
        self.resolver = ScriptedResolver(dict(HOSTS), dict(KNOWN), expires_at=4_000_000_000_000)
        self.contents = MemoryContents()
        self.retries = RetrySchedule((300, 900), 0.1, (60,))
        self.body_hashes = BodyHashes()
        self.clock: Callable[[], float] = loop_time
        self.departures = Departures(loop_time, rests=False, standings=self.standings)
        self.transport = ScriptedTransport()
        self._client: Client | None = None

    def client(self) -> Client:
        """One for all sites."""
        if self._client is None:
            self._client = Client(Pool(self.transport, clock=loop_time, wait_s=0.01), self.resolver)
        return self._client

    async def lost(self, partition: int) -> None:
        """As Services.lost."""
        pool = self.client().pool
        await asyncio.gather(*(pool.close_site(place) for place in self.departures.lost(partition)))

    def restarted(self) -> None:
        """What a new process does not know any more."""
        self.departures, self.body_hashes = Departures(self.clock, rests=False, standings=self.standings), BodyHashes()


@pytest.fixture
def services() -> ScriptedServices:
    return ScriptedServices()


@pytest.fixture
def dns_txt() -> Callable[[str], bytes | None]:
    return {"s1._domainkey.acme.test": TXT.encode()}.get
