"""STARTTLS: none, opportunistic, required; certificates; handshakes that fail; nothing said in the clear counts inside."""

import asyncio
import ssl

import pytest
from smtp_hosts import QUICK, Authority, Farm, Host, deliver

PLAIN_ONLY = {"EHLO": b"250-mx\r\n250 8BITMIME"}


def broken() -> ssl.SSLContext:
    """No certificate: no handshake can succeed."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


class Handshake(Host):
    """Says 220 to STARTTLS, then some bytes that are not TLS, or nothing."""

    def __init__(self, garbage: bytes) -> None:
        super().__init__({"EHLO": b"250-mx\r\n250 STARTTLS"})
        self.garbage, self.hangs = garbage, not garbage

    async def say(self, verb: str, writer: asyncio.StreamWriter) -> bool:
        going = await super().say(verb, writer)
        if verb == "STARTTLS":
            await asyncio.sleep(0.05)  # the handshake has begun
            writer.write(self.garbage)
            await asyncio.sleep(2)
        return going


async def test_opportunistic_takes_any_certificate(farm: Farm, authority: Authority) -> None:
    host = Host(tls=authority.server("somebody.else"))
    result = await deliver(await farm(host))
    assert result.delivered and result.tls.startswith("TLSv1.3 TLS_")
    assert [command.split()[0] for command in host.commands] == ["EHLO", "STARTTLS", "EHLO", "MAIL", "RCPT", "DATA"]
    assert list(result.phases)[:5] == ["dns", "connect", "banner", "ehlo", "starttls"]


async def test_none_does_not_ask_for_it(farm: Farm, certificate: ssl.SSLContext) -> None:
    host = Host(tls=certificate)
    result = await deliver(await farm(host), tls="none")
    assert result.delivered and result.tls == "" and "STARTTLS" not in host.commands


async def test_what_was_said_before_tls_counts_no_longer(farm: Farm, certificate: ssl.SSLContext) -> None:
    """RFC 3207 4.2: an extension that only the plain EHLO had must not be used."""

    class Forgets(Host):
        async def say(self, verb: str, writer: asyncio.StreamWriter) -> bool:
            if verb == "STARTTLS":
                self.says["EHLO"] = b"250 mx"
            return await super().say(verb, writer)

    host = Forgets({"EHLO": b"250-mx\r\n250-PIPELINING\r\n250-SIZE 10\r\n250 STARTTLS"}, tls=certificate)
    result = await deliver(await farm(host))
    assert result.delivered and "MAIL FROM:<b-1@bounce.example.com>" in host.commands, "no SIZE"


async def test_refused_starttls_goes_on_in_the_clear_on_the_same_connection(farm: Farm) -> None:
    host = Host({"STARTTLS": b"454 4.7.0 not now"}, tls=broken())
    result = await deliver(await farm(host))
    assert result.delivered and result.tls == "" and host.connections == 1


@pytest.mark.parametrize("says", [b"", None, b"220 ready"])
async def test_plain_text_on_a_new_connection_where_tls_fails_and_that_is_remembered(
    farm: Farm, says: bytes | None
) -> None:
    host = Host({"STARTTLS": says}, tls=broken())
    client = await farm(host)
    result = await deliver(client, messages_per_connection=1, timeouts=QUICK)
    assert result.delivered and result.tls == "" and host.connections == 2
    host.commands.clear()
    assert (await deliver(client, messages_per_connection=1)).delivered
    assert host.connections == 3 and "STARTTLS" not in host.commands


async def test_broken_tls_is_forgotten_in_time(farm: Farm) -> None:
    host = Host({"STARTTLS": b""}, tls=broken())
    client = await farm(host)
    for _ in range(2):
        assert (await deliver(client, messages_per_connection=1, broken_tls_s=0)).delivered
    assert host.connections == 4 and host.commands.count("STARTTLS") == 2


@pytest.mark.parametrize(
    "garbage", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(100_000)]
)
@pytest.mark.parametrize("tls", ["opportunistic", "required"])
async def test_a_handshake_that_hangs_or_is_garbage(farm: Farm, garbage: bytes, tls: str) -> None:
    host = Handshake(garbage)
    result = await deliver(await farm(host), tls=tls, timeouts=QUICK)
    if tls == "required":
        assert (result.phase, result.outcome, result.reply.temporary) == ("starttls", "tls-failed", True)
        assert host.connections == 1 and host.bodies == []
    else:
        assert result.delivered and result.tls == "" and host.connections == 2


@pytest.mark.parametrize("says", [b"454 4.7.0 not now", b"502 5.5.1 what?", b"", None, b"220 ready"])
async def test_required_sends_nothing_in_the_clear(farm: Farm, says: bytes | None) -> None:
    host = Host({"STARTTLS": says}, tls=broken())
    client = await farm(host)
    for _ in range(2):  # what is remembered of a host changes nothing
        result = await deliver(client, tls="required", timeouts=QUICK)
        assert (result.phase, result.reply.temporary, result.about_us) == ("starttls", True, False)
        assert result.outcome in ("tls-failed", "timeout", "connection-lost")
    assert not [command for command in host.commands if command.startswith("MAIL")]


async def test_required_where_it_is_not_offered_goes_to_the_next_host(farm: Farm, certificate: ssl.SSLContext) -> None:
    without, with_tls = Host(), Host(tls=certificate)
    client = await farm(without, with_tls)
    result = await deliver(client, tls="required")
    assert (result.phase, result.outcome, result.reply.temporary) == ("starttls", "tls-failed", True)
    result = await deliver(client, hosts=2, tls="required")
    assert result.delivered and result.mx_host == "mx2" and without.bodies == []


@pytest.mark.parametrize(("name", "good"), [("mx1", True), ("mx2", False), ("*.mx1", False)])
async def test_verify_wants_a_certificate_for_the_host(farm: Farm, authority: Authority, name: str, good: bool) -> None:
    host = Host(tls=authority.server(name))
    result = await deliver(await farm(host, authority=authority), tls="required", verify=True)
    assert (result.delivered, bool(result.tls)) == (good, good)
    if not good:
        assert (result.phase, result.outcome, host.bodies) == ("starttls", "tls-failed", [])
        assert "certificate" in result.reply.text.lower()


async def test_verify_wants_a_known_authority(farm: Farm, certificate: ssl.SSLContext) -> None:
    result = await deliver(await farm(Host(tls=certificate)), tls="required", verify=True)  # as the system trusts
    assert (result.phase, result.outcome) == ("starttls", "tls-failed")


@pytest.mark.parametrize("tls", ["opportunistic", "required"])
@pytest.mark.parametrize("injected", [b"\r\n250 injected", b"\r\n250-mx\r\n250 AUTH", b"\r\nx", b"\r\n"])
async def test_nothing_in_the_clear_after_the_reply_to_starttls(
    farm: Farm, certificate: ssl.SSLContext, injected: bytes, tls: str
) -> None:
    """CVE-2011-0411: it would pass for a word said inside TLS. No mail to such a host, in the clear neither."""
    host = Host({"STARTTLS": b"220 ready" + injected}, tls=certificate)
    result = await deliver(await farm(host), tls=tls)
    assert (result.phase, result.outcome) == ("starttls", "protocol-error")
    assert not [command for command in host.commands if command.startswith("MAIL")]


async def test_421_to_starttls_is_about_us(farm: Farm) -> None:
    host = Host({"STARTTLS": b"421 4.7.0 busy"}, tls=broken())
    result = await deliver(await farm(host))
    assert (result.phase, result.reply.code, result.about_us, host.connections) == ("starttls", 421, True, 1)


@pytest.mark.parametrize("says", [b"", None])
async def test_a_host_that_goes_away_after_the_handshake(
    farm: Farm, certificate: ssl.SSLContext, says: bytes | None
) -> None:
    class Goes(Host):
        async def say(self, verb: str, writer: asyncio.StreamWriter) -> bool:
            if verb == "EHLO" and writer.get_extra_info("sslcontext"):
                if says is None:
                    await asyncio.sleep(2)
                return False
            return await super().say(verb, writer)

    host = Goes(tls=certificate)
    result = await deliver(await farm(host), timeouts=QUICK)
    assert result.delivered and result.tls == "" and host.connections == 2
    result = await deliver(await farm(Goes(tls=certificate)), tls="required", timeouts=QUICK)
    assert (result.phase, result.outcome) == ("starttls", "tls-failed")
