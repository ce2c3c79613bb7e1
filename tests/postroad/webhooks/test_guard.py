"""Nothing but public addresses is connected, however a name or an address tries."""

import pytest

from postroad.webhooks.guard import BadUrl, Guard, Refused, Rules
from postroad.webhooks.payload import test_of as event_for
from postroad.webhooks.sender import Sender
from postroad.webhooks.signing import new_secret

INSIDE = (
    "127.0.0.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200", "224.0.0.1",
    "240.0.0.1", "255.255.255.255", "192.0.0.192", "168.63.129.16", "::", "::1", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "ff02::1",
    "fec0::1", "::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::a00:1", "2002:7f00:1::", "2001:0:7f00:1::",
    "2001:db8::1",
)  # fmt: skip


@pytest.mark.parametrize("address", INSIDE)
def test_the_operators_network_is_refused(address):
    with pytest.raises(Refused, match="not a public address"):
        Guard().check(address)
    with pytest.raises(Refused):
        Guard().socket((2, 1, 6, "", (address, 443)))


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"])
def test_public_addresses_are_not(address):
    Guard().check(address)


def test_a_network_that_is_allowed_is_allowed_in_every_spelling_and_no_other():
    guard = Guard(["10.1.0.0/16"])
    guard.check("10.1.2.3")
    guard.check("::ffff:10.1.2.3")
    with pytest.raises(Refused):
        guard.check("10.2.0.1")


@pytest.mark.parametrize(
    "url", ["http://a.test/", "ftp://a.test", "https://", "https://u:p@a.test/", "https://127.0.0.1/", "https://[::1]/", "https://a.test:x/",
            "https://a.test/\r\nX: y", "https://a.test/" + "x" * 3000, "https://a.test/#f", "//a.test"])  # fmt: skip
def test_urls_that_nobody_may_have(url):
    with pytest.raises(BadUrl):
        Guard().check_url(url)


class Rebinding:
    """A name that is public when it is looked at, and is ours when it is connected."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), 0

    async def addresses(self, host):
        from postroad.dns import AddressAnswer

        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return AddressAnswer("addresses", answer, 0)


@pytest.mark.parametrize("host", ["rebind.test", "0x7f.1"])
async def test_a_name_that_turns_to_our_network_is_never_connected(host):
    import asyncio

    came = []
    server = await asyncio.start_server(lambda reader, writer: came.append(1) or writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    webhook = {
        "webhook_id": "wh_1",
        "tenant": "acme",
        "url": f"http://{host}:{port}/",
        "secrets": [{"secret": new_secret("hmac")}],
    }
    names = Rebinding(("127.0.0.1",))
    names.answers = [("127.0.0.1",), ("::ffff:127.0.0.1",), ("127.0.0.1", "::1")]
    sender = Sender(Rules(http=True, timeout_s=2), names)
    try:
        for _ in range(3):
            tried = await sender.post(webhook, event_for(webhook, "e", 0), 0)
            assert not tried.delivered and tried.status == 0
            assert "not a public address" in tried.error
    finally:
        await sender.close()
        server.close()
    assert not came and names.asked == 3
