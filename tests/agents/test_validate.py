"""Validate: what can be sent to whom; what outside does not answer is put off, never rejected."""

import asyncio
import dataclasses

import pytest
from builders import NOW, RAW, content, events, message, said, values

from agents.validate import stage
from postroad.dns import MxAnswer
from postroad.retry import PUT_OFF_MS
from topics.catalogue import ACCEPTED, SCHEDULED, VALIDATED
from topics.testing import Scripted


@pytest.fixture
def validate(services):
    return Scripted(stage, services, NOW)


async def rejection(validate, **fields):
    (event,) = said(await validate.feed(ACCEPTED, message(**fields)))
    assert event["kind"] == "rejected"
    return event["reason"], event["rule"]


def away(raw=RAW):
    return {**content(raw), "inline": None, "blob": f"sha256:{content(raw)['hash']}"}


async def test_sound(validate):
    outputs = await validate.feed(ACCEPTED, message())
    assert events(outputs) == [("validated", "")]
    assert values(outputs, VALIDATED)[0]["recipient_domain"] == "there.test"


async def test_international_domain_becomes_a_labels(validate):
    (passed,) = values(await validate.feed(ACCEPTED, message(recipient="Jörg@Bücher.test")), VALIDATED)
    assert (passed["recipient"], passed["recipient_domain"]) == ("Jörg@xn--bcher-kva.test", "xn--bcher-kva.test")


@pytest.mark.parametrize("address", ["", "a", "a@", "@there.test", "a b@there.test", "a@there", "a@[127.0.0.1]", "a@1.2.3.4",
                                     "a@there.test\r\nRCPT TO:<b@there.test>", "x" * 65 + "@there.test", "a@b@there.test"])  # fmt: skip
async def test_bad_address(validate, address):
    assert (await rejection(validate, recipient=address))[0] == "bad-address"
    assert validate.services.resolver.asked == []


@pytest.mark.parametrize(("domain", "reason"), [("null.test", "null-mx"), ("nowhere.test", "no-such-domain")])
async def test_domain_takes_no_mail(validate, domain, reason):
    assert await rejection(validate, recipient=f"r@{domain}") == (reason, "mx")


async def test_a_name_server_that_fails_is_no_rejection(validate):
    outputs = await validate.feed(ACCEPTED, message(recipient="r@slow.test"))
    assert events(outputs) == [("scheduled", "dns")]
    (entry,) = values(outputs, SCHEDULED)
    assert (entry["return_to"], entry["due_at"]) == ("accepted", NOW + PUT_OFF_MS)


async def test_one_dead_name_server_stops_nobody_else(services):
    """Everything else of the batch goes on within the bound of `prepare`."""

    class Hanging(type(services.resolver)):
        async def mx(self, domain):
            if domain == "hangs.test":
                await asyncio.Event().wait()
            return await super().mx(domain)

    services.resolver = Hanging(services.resolver.hosts, expires_at=NOW + 60_000)
    validate = Scripted(dataclasses.replace(stage, prepare_s=0.1), services, NOW)
    outputs = await validate.feed(ACCEPTED, message(recipient="r@hangs.test"), message(message_id="m2"))
    assert events(outputs) == [("scheduled", "dns"), ("validated", "")]


async def test_one_domain_is_asked_for_once_and_kept_for_its_time(validate, services):
    services.resolver.expires_at = NOW + 10_000
    await validate.feed(ACCEPTED, message(), message(message_id="m2"))
    validate.now = NOW + 9_999
    await validate.feed(ACCEPTED, message(message_id="m3"))
    assert services.resolver.asked == ["there.test"]
    services.resolver.hosts = {}
    validate.now = NOW + 10_000
    assert await rejection(validate, message_id="m4") == ("no-such-domain", "mx")
    assert len(services.resolver.asked) == 2


async def test_a_negative_answer_is_kept_and_a_temporary_one_is_not(validate, services):
    for recipient in ("r@nowhere.test", "r@slow.test"):
        await validate.feed(ACCEPTED, message(recipient=recipient), message(recipient=recipient, message_id="m2"))
        await validate.feed(ACCEPTED, message(recipient=recipient, message_id="m3"))
    assert services.resolver.asked == ["nowhere.test", "slow.test", "slow.test"]


async def test_an_answer_that_is_over_at_once_still_serves_its_batch(validate, services):
    services.resolver.expires_at = NOW
    assert events(await validate.feed(ACCEPTED, message())) == [("validated", "")]
    assert validate.state.mx_cache.get("there.test") is None


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        (RAW.replace(b"acme", b"other"), ("sender-domain", "from")),
        (RAW.replace(b"a@acme.test", b"a@acme.test.evil.test"), ("sender-domain", "from")),
        (RAW.replace(b"a@acme.test", b"a@acme.test, b@other.test"), ("sender-domain", "from")),
        (RAW.replace(b"hi", b"hi\nBcc: x@there.test"), ("content", "line-end")),
        (b"From: a@acme.test\r\n" + RAW, ("content", "header-count")),
        (RAW.replace(b"Subject: hi", b"no header line"), ("content", "header-syntax")),
        (RAW + b"x" * 999, ("content", "line-length")),
        (RAW + b"\0", ("content", "nul")),
        (b"\r\n" + RAW, ("content", "header-count")),
    ],
)
async def test_hostile_or_broken_content(validate, raw, rule):
    assert await rejection(validate, content=content(raw)) == rule


@pytest.mark.parametrize("sender", ["ceo@victim.test", "ceo@acme.test.evil.test", "nobody"])
async def test_envelope_sender_beside_a_raw_from_of_the_tenants_own(validate, sender):
    assert await rejection(validate, sender=sender) == ("sender-domain", "sender")


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        (b"Sender: ceo@victim.test\r\n", ("sender-domain", "sender")),
        (b"Sender: x\r\n <ceo@victim.test>\r\n", ("sender-domain", "sender")),
        (b"Sender: nobody\r\n", ("sender-domain", "sender")),
        (b"Sender: b@acme.test\r\n", None),
    ],
)
async def test_sender_field_of_a_raw_mail(validate, line, rule):
    if rule:
        assert await rejection(validate, content=content(line + RAW)) == rule
    else:
        assert values(await validate.feed(ACCEPTED, message(content=content(line + RAW))), VALIDATED)


async def test_subdomain_of_a_tenants_domain_is_the_tenants(validate):
    outputs = await validate.feed(ACCEPTED, message(content=content(RAW.replace(b"acme.test", b"news.acme.test"))))
    assert events(outputs) == [("validated", "")]


async def test_lines_of_the_recipient_alone_are_checked_with_the_content(validate):
    assert await rejection(validate, top=b"From: b@other.test\r\n") == ("content", "header-count")


async def test_too_large(validate, services):
    services.settings = services.settings.model_copy(update={"size_max": len(RAW) - 1})
    assert await rejection(validate) == ("content", "size")


async def test_tenant_taken_away(validate):
    assert (await rejection(validate, tenant="gone"))[0] == "unknown-tenant"


async def test_content_lost_and_content_store_away(validate, services):
    assert await rejection(validate, content=away()) == ("content", "missing")
    services.contents.failing = True
    outputs = await validate.feed(ACCEPTED, message(content=away()))
    assert events(outputs) == [("scheduled", "content")]
    assert values(outputs, SCHEDULED)[0]["return_to"] == "accepted"


async def test_expired_before_anything_is_asked(validate):
    outputs = await validate.feed(ACCEPTED, message(recipient="r@slow.test", expires_at=NOW - 1))
    assert events(outputs) == [("expired", "expired")]


async def test_kept_answer_is_the_answer():
    """The table gives back what DNS said, null MX included."""
    from postroad.dns import decode_mx, encode

    for answer in (MxAnswer("hosts", ((10, "mx.test"),), NOW), MxAnswer("null-mx", (), NOW)):
        assert decode_mx(encode(answer)) == answer
