"""Validate: the address can be sent to, its domain takes mail, the sender's domain is the tenant's, the content is sound.

mail.accepted (key: recipient) -> mail.validated (key: recipient), mail.events, mail.scheduled, mail.endings
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from agents.application import application
from agents.outputs import park, rejected
from avro.records import Message
from postroad.addresses import BadAddress, normalise
from postroad.checks import Problem, check_content
from postroad.content import ContentMissing, ContentUnavailable, each
from postroad.events import ending, event
from postroad.intake import sender_domain
from postroad.retry import put_off
from postroad.senders import domain_of_tenant
from tables import mx_cache
from tables.mx_cache import MX_CACHE
from topics.catalogue import ACCEPTED, ENDINGS, EVENTS, SCHEDULED, VALIDATED, Output
from topics.stage import Stage
from topics.state import View

NAME = "validate"

stage = Stage(NAME, reads=[ACCEPTED], writes=[VALIDATED, EVENTS, ENDINGS, SCHEDULED], tables=[MX_CACHE])
__getattr__ = application(stage)


@stage.prepare(ACCEPTED)
async def look_up(todo: list[tuple[Any, Message]], state: View) -> None:
    """Where mail of each distinct domain goes, and each distinct content: `found[domain]`, `found[hash]`."""

    async def content(message: Message) -> None:
        try:
            state.found[message["content"]["hash"]] = await state.services.contents.get(message["content"])
        except ContentMissing as exc:
            state.found[message["content"]["hash"]] = exc
        except ContentUnavailable:
            pass  # put off below

    contents = {message["content"]["hash"]: message for _, message in todo}
    domains = {_domain(message) for _, message in todo} - {""}
    await asyncio.gather(mx_cache.ask(domains, state), each(contents.values(), content))


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
        yield ENDINGS.send(ending(message, "expired", now, NAME, "expired"))
        return
    try:
        address = normalise(message["recipient"])
    except BadAddress as exc:
        yield rejected(message, NAME, now, Problem(exc.reason, "recipient", exc.text))
        return
    message["recipient"], message["recipient_domain"] = address.text, address.ascii_domain
    answer = mx_cache.answer(address.ascii_domain, state)
    if answer is None or answer.kind == "temporary":
        yield from _put_off(message, "dns", now)
        return
    if answer.kind != "hosts":
        reason = "null-mx" if answer.kind == "null-mx" else "no-such-domain"
        yield rejected(message, NAME, now, Problem(reason, "mx", f"{address.ascii_domain} takes no mail"))
        return
    content = state.found.get(message["content"]["hash"])
    if content is None:
        yield from _put_off(message, "content", now)
        return
    if problem := _content_problem(message, content, state):
        yield rejected(message, NAME, now, problem)
        return
    yield EVENTS.send(event(message, "validated", now, NAME))
    yield VALIDATED.send(message)


def _content_problem(message: Message, content: bytes | ContentMissing, state: View) -> Problem | None:
    if isinstance(content, ContentMissing):
        return Problem("content", "missing", str(content))
    tenant = state.services.tenants.get(message["tenant"])
    if tenant is None:
        return Problem("unknown-tenant", "tenants", "the tenant was taken away while the message was on its way")
    if domain_of_tenant(tenant, sender_domain(message["sender"])) is None:  # a raw message may have another From
        text = f"sender {message['sender'][:80]!r} is not of a domain of the tenant"
        return Problem("sender-domain", "sender", text)
    domains, size_max = [own["domain"] for own in tenant["domains"]], state.services.settings.size_max
    checked = (message["content"]["hash"], message["tenant"])  # once a batch, not once a recipient
    if checked not in state.found:
        state.found[checked] = check_content(content, size_max, domains)
    problem: Problem | None = state.found[checked]
    if not problem and message["top"]:  # with the header that it goes on top of
        problem = check_content(message["top"] + content[: content.find(b"\r\n\r\n") + 4], size_max, domains)
    return problem


def _put_off(message: Message, reason: str, now: int) -> Iterator[Output]:
    due = put_off(now, message["round"], message["expires_at"])
    yield from park(message, NAME, now, due, reason, "accepted")
