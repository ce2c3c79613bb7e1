"""Receiving hosts on loopback, and a client that knows them."""

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for smtp_hosts.py, shared by these tests

from smtp_hosts import Authority, Farm, Host

from postroad.dns import ScriptedResolver
from postroad.smtp import AioTransport, Client, Pool


@pytest.fixture(autouse=True)
def near(monkeypatch: pytest.MonkeyPatch) -> None:
    """On loopback a host sees at once that a connection was cut."""
    monkeypatch.setattr("postroad.smtp_wire.ABORT_S", 0.05)


@pytest.fixture
async def farm() -> AsyncIterator[Farm]:
    """Start hosts at 127.0.0.2, .3, ... on one port; gives a client that knows them as mx1, mx2, ..."""
    servers: list[asyncio.Server] = []
    clients: list[Client] = []

    async def start(*hosts: Host, authority: Authority | None = None, wait_s: float = 2) -> Client:
        port = 0
        for number, host in enumerate(hosts, 2):
            server = await asyncio.start_server(host.serve, f"127.0.0.{number}", port)
            port = server.sockets[0].getsockname()[1]
            servers.append(server)
        transport = AioTransport(authority.context) if authority else AioTransport()
        known = {f"mx{number}": [f"127.0.0.{number + 1}"] for number in range(1, len(hosts) + 3)}
        clients.append(Client(Pool(transport, port, wait_s=wait_s), ScriptedResolver(known=known)))
        return clients[-1]

    yield start
    for client in clients:
        client.pool.close()
    for server in servers:
        server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def certificate(authority: Authority) -> ssl.SSLContext:
    """Of a host that calls itself mx1."""
    return authority.server("mx1")
