"""One try, over TLS to a name, and to receivers that answer slowly, oddly, or without end."""

import asyncio
import ssl
from contextlib import asynccontextmanager

import pytest

from gateway.tls import context
from postroad.dns import AddressAnswer
from postroad.webhooks.guard import Rules
from postroad.webhooks.notifier import Notifier
from postroad.webhooks.sender import Sender
from postroad.webhooks.signing import new_secret

NOW = 1_763_900_000_000
NOTICE = {
    "notification_id": "evt_1",
    "webhook_id": "wh_1",
    "tenant": "acme",
    "type": "webhook.test",
    "at": NOW,
    "body": "{}",
}


class Names:
    """In place of DNS: every name is this machine."""

    async def addresses(self, host):
        return AddressAnswer("addresses", ("127.0.0.1",), 1e18)


@asynccontextmanager
async def receiver(answer, tls=None):
    """`answer(reader, writer)` after the head of a request; gives the port and the heads."""
    heads = []

    async def take(reader, writer):
        try:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            await answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1], heads
    finally:
        server.close()


def webhook(url):
    return {"webhook_id": "wh_1", "tenant": "acme", "url": url, "kind": "hmac", "created_at": 0, "updated_at": 0,
            "secrets": [{"secret": new_secret("hmac"), "until": None}]}  # fmt: skip


async def tried(url, timeout_s=5.0, tls=None, networks=("127.0.0.0/8",)):
    sender = Sender(Rules(networks, True, timeout_s), Names(), tls)
    try:
        return await sender.post(webhook(url), NOTICE, NOW)
    finally:
        await sender.close()


def says(raw):
    async def answer(reader, writer):
        writer.write(raw)
        await writer.drain()

    return answer


async def test_tls_to_a_name_whose_certificate_is_checked(tmp_path):
    server = context(None, None, tmp_path, "hooks.acme.test")
    asked = []
    server.sni_callback = lambda connection, name, context: asked.append(name)
    trust = ssl.create_default_context(cafile=tmp_path / "inbound-tls.pem")
    async with receiver(says(b"HTTP/1.1 204 No Content\r\n\r\n"), server) as (port, heads):
        assert (await tried(f"https://hooks.acme.test:{port}/x?y=1", tls=trust)).delivered
        assert asked == ["hooks.acme.test"] and heads[0].startswith(b"POST /x?y=1 HTTP/1.1\r\n")
        assert f"host: hooks.acme.test:{port}".encode() in heads[0].lower()
        other = await tried(f"https://other.acme.test:{port}/", tls=trust)
        assert not other.delivered and "Certificate" in other.error
        assert not (await tried(f"https://hooks.acme.test:{port}/")).delivered  # nobody the system trusts has signed it
        assert len(heads) == 1


@pytest.mark.parametrize(("raw", "status", "delivered"), [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, True),
    (b"HTTP/1.1 202 Accepted\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 100_000, 202, True),  # it has it, whatever follows
    (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbroken", 200, True),
    (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nbomb", 200, True),
    (b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n", 302, False),
    (b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", 500, False),
    (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", None, False),
    (b"220 mail.example ESMTP\r\n", 0, False), (b"\0" * 1000, 0, False), (b"", 0, False), (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n", 0, False),
])  # fmt: skip
async def test_whatever_is_answered(raw, status, delivered):
    async with receiver(says(raw)) as (port, _):
        found = await tried(f"http://hooks.acme.test:{port}/", timeout_s=2.0)
    assert found.delivered is delivered and (status is None or found.status == status)
    assert delivered or found.error


async def test_who_answers_slowly_is_not_waited_for():
    async def drip(reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\n")
        for _ in range(1000):
            writer.write(b"X: y\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with receiver(drip) as (port, _):
        found = await tried(f"http://hooks.acme.test:{port}/", timeout_s=0.3)
    assert not found.delivered and "no answer within 0.3 s" in found.error and found.duration_ms < 5_000


async def test_retry_after_is_heard_within_reason():
    for text, ms in ((b"120", 120_000), (b"99999999999", 0), (b"-1", 0), (b"soon", 0), (b"9999999", 86_400_000)):
        async with receiver(
            says(b"HTTP/1.1 429 Too Many\r\nRetry-After: " + text + b"\r\nContent-Length: 0\r\n\r\n")
        ) as (port, _):
            assert (await tried(f"http://hooks.acme.test:{port}/")).retry_after_ms == ms


async def test_a_name_that_leads_into_the_operators_network_is_not_connected():
    async with receiver(says(b"HTTP/1.1 200 OK\r\n\r\n")) as (port, heads):
        found = await tried(f"http://hooks.acme.test:{port}/", networks=())
    assert not found.delivered and "not a public address" in found.error and not heads


def test_endpoints_of_a_tenant_are_those_in_use():
    webhooks = {"a": {**webhook("http://x/"), "webhook_id": "a"}, "b": {**webhook("http://x/"), "webhook_id": "b", "disabled_at": 1},
                "c": {**webhook("http://x/"), "webhook_id": "c", "tenant": "other"}}  # fmt: skip
    notifier = Notifier(Rules())
    assert [one["webhook_id"] for one in notifier.of_tenant("acme", webhooks, 0)] == ["a"]
    webhooks["d"] = {**webhook("http://x/"), "webhook_id": "d"}
    assert [one["webhook_id"] for one in notifier.of_tenant("acme", webhooks, 0)] == ["a", "d"]
    del webhooks["d"]["tenant"]
    webhooks["d"] = {**webhook("http://x/"), "webhook_id": "d", "disabled_at": 2}
    assert [one["webhook_id"] for one in notifier.of_tenant("acme", webhooks, 1000)] == ["a"]
    assert notifier.of_tenant("nobody", webhooks, 1000) == []
