"""Validate: the address can be sent to, its domain takes mail, the sender's domain is the tenant's, the content is sound.

mail.accepted (key: recipient) -> mail.validated (key: recipient), mail.events, mail.scheduled
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from agents.application import application
from avro.records import Message
from postroad import dns
from postroad.addresses import BadAddress, normalise
from postroad.checks import Problem, check_content
from postroad.content import ContentMissing, ContentUnavailable
from postroad.events import event
from tables.mx_cache import MX_CACHE
from topics.catalogue import ACCEPTED, EVENTS, SCHEDULED, VALIDATED, Output
from topics.stage import Stage
from topics.state import View

NAME = "validate"
PUT_OFF_MS = 30_000  # a name server or a store that is away: tried again after so long

stage = Stage(NAME, reads=[ACCEPTED], writes=[VALIDATED, EVENTS, SCHEDULED], tables=[MX_CACHE])
__getattr__ = application(stage)


@stage.prepare(ACCEPTED)
async def look_up(todo: list[tuple[Any, Message]], state: View) -> None:
    """Where mail of each distinct domain goes, and each distinct content: `found[domain]`, `found[hash]`."""

    async def domain(name: str) -> None:
        state.found[name] = await state.services.resolver.mx(name)

    async def content(message: Message) -> None:
        try:
            state.found[message["content"]["hash"]] = await state.services.contents.get(message["content"])
        except ContentMissing as exc:
            state.found[message["content"]["hash"]] = exc
        except ContentUnavailable:
            pass  # put off below

    domains = {name for _, message in todo if (name := _domain(message)) and _kept(name, state) is None}
    contents = {message["content"]["hash"]: message for _, message in todo}
    await asyncio.gather(*map(domain, domains), *map(content, contents.values()))


def _domain(message: Message) -> str:
    try:
        return normalise(message["recipient"]).ascii_domain
    except BadAddress:
        return ""


@stage.on(ACCEPTED)
def check(message: Message, state: View) -> Iterator[Output]:
    """Validated, rejected, or put off where something outside has not answered."""
    now = state.now
    if now > message["expires_at"]:
        yield EVENTS.send(event(message, "expired", now, NAME, reason="expired"))
        return
    try:
        address = normalise(message["recipient"])
    except BadAddress as exc:
        yield _rejected(message, Problem(exc.reason, "recipient", exc.text), now)
        return
    message["recipient"], message["recipient_domain"] = address.text, address.ascii_domain
    answer = _mx(address.ascii_domain, state)
    if answer is None or answer.kind == "temporary":
        yield from _put_off(message, "dns", now)
        return
    if answer.kind != "hosts":
        reason = "null-mx" if answer.kind == "null-mx" else "no-such-domain"
        yield _rejected(message, Problem(reason, "mx", f"{address.ascii_domain} takes no mail"), now)
        return
    content = state.found.get(message["content"]["hash"])
    if content is None:
        yield from _put_off(message, "content", now)
        return
    if problem := _content_problem(message, content, state):
        yield _rejected(message, problem, now)
        return
    yield EVENTS.send(event(message, "validated", now, NAME))
    yield VALIDATED.send(message)


def _mx(domain: str, state: View) -> dns.MxAnswer | None:
    """From this batch's look-ups, which are kept for their time, or from the table."""
    answer: dns.MxAnswer | None = state.found.get(domain)
    if answer is not None:
        if answer.kind != "temporary" and answer.expires_at > state.now:
            state.mx_cache.put(domain, dns.encode(answer), answer.expires_at)
        return answer
    return _kept(domain, state)


def _kept(domain: str, state: View) -> dns.MxAnswer | None:
    """From the table, whose own expiry is to the minute: the answer's is to the millisecond."""
    kept = state.mx_cache.get(domain)
    answer = dns.decode_mx(kept) if kept else None
    return answer if answer is not None and answer.expires_at > state.now else None


def _content_problem(message: Message, content: bytes | ContentMissing, state: View) -> Problem | None:
    if isinstance(content, ContentMissing):
        return Problem("content", "missing", str(content))
    tenant = state.services.tenants.get(message["tenant"])
    if tenant is None:
        return Problem("unknown-tenant", "tenants", "the tenant was taken away while the message was on its way")
    domains = [own["domain"] for own in tenant["domains"]]
    return check_content(message.get("top", b"") + content, state.services.settings.size_max, domains)


def _put_off(message: Message, reason: str, now: int) -> Iterator[Output]:
    due = now + PUT_OFF_MS
    yield EVENTS.send(event(message, "scheduled", now, NAME, reason=reason, due_at=due))
    yield SCHEDULED.send({"message": message, "at": now, "due_at": due, "reason": reason, "return_to": "accepted"})


def _rejected(message: Message, problem: Problem, now: int) -> Output:
    return EVENTS.send(event(message, "rejected", now, NAME, reason=problem.reason, rule=problem.rule, detail=problem.text))
