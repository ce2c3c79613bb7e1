"""What a stage finds around it, scripted: settings, tenants, DNS, contents, MX hosts. And builders of records."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from postroad.content import MemoryContents
from postroad.dkim import BodyHashes, generate
from postroad.dns import ScriptedResolver
from postroad.limits import Rates
from postroad.retry import RetrySchedule
from postroad.settings import Settings, Site
from postroad.smtp import Client, Pool, PoolSettings, ScriptedTransport

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


class ScriptedServices:
    """In place of agents.services.Services: the same names, nothing real behind them."""

    def __init__(self) -> None:
        self.settings = Settings(ehlo="out.test", sites={"slow.site.test": Site(rate_per_second=1)})
        domains = [{"domain": "acme.test", "dkim": [{"selector": "s1", "algorithm": "ed25519", "private_key": PEM}]}]
        self.tenants = {"acme": {"tenant": "acme", "domains": domains}}
        self.pools = self.settings.pools()
        self.resolver = ScriptedResolver(dict(HOSTS), dict(KNOWN), expires_at=4_000_000_000_000)
        self.contents = MemoryContents()
        self.retries = RetrySchedule((300, 900), 0.1, (60,))
        self.body_hashes = BodyHashes()
        self.rates = Rates()
        self.transport = ScriptedTransport()
        self.connections = PoolSettings(connections=10, idle_s=0, wait_s=0.01)
        self._client: Client | None = None

    def client(self, site: str) -> Client:
        """One for all sites."""
        if self._client is None:
            self._client = Client(Pool(self.transport, self.connections), self.resolver)
        return self._client

    def restarted(self) -> None:
        """What a new process does not know any more."""
        self.rates, self.body_hashes = Rates(), BodyHashes()


@pytest.fixture
def services() -> ScriptedServices:
    return ScriptedServices()


@pytest.fixture
def dns_txt() -> Callable[[str], bytes | None]:
    return {"s1._domainkey.acme.test": TXT.encode()}.get
