"""Notify: tell tenants' endpoints of events by HTTP, until they take it or three days are over.

mail.events, mail.notifications (key: endpoint) -> mail.notifications, mail.notified (key: endpoint), control.webhooks, mail.events, mail.submissions

An event becomes a notification for each endpoint, and goes to the partition that owns it, where it waits in `notices`. A turn hands
what is due to the notifier of the process, which tries it meanwhile, and writes down what has come of others: a try may be made
twice, around a crash; none is forgotten. docs/decisions/0016-webhooks.md
"""

from __future__ import annotations

from collections.abc import Iterator

from agents.application import application
from avro.records import Event, Notification, Webhook
from postroad import notices
from postroad.events import noted
from postroad.webhooks import payload, retries
from postroad.webhooks.notifier import Notifier, Result
from postroad.webhooks.sender import GONE
from tables import webhooks as table
from tables.due import NEVER
from tables.webhooks import ENDPOINTS, IDLE, NOTICES, Standing
from topics.catalogue import EVENTS, NOTIFICATIONS, NOTIFIED, SUBMISSIONS, WEBHOOKS, Output
from topics.metrics import Metrics
from topics.stage import Stage
from topics.state import View

NAME = "notify"
TICK_SECONDS = 0.1
AT_ONCE, ENDPOINTS_AT_ONCE = 200, 1000  # results and dead ones of a turn; endpoints that it looks at
BYTES_AT_ONCE = 256 << 10  # of their bodies: a write takes a megabyte
UNKNOWN_MS = 60_000  # an endpoint may be newer than what is followed

stage = Stage(NAME, reads=[EVENTS, NOTIFICATIONS], writes=[NOTIFICATIONS, NOTIFIED, WEBHOOKS, EVENTS, SUBMISSIONS],
              tables=[NOTICES, ENDPOINTS])  # fmt: skip
__getattr__ = application(stage)
_turns: dict[int, bytes] = {}  # partition: the endpoint that is next, where there are more than one turn looks at
metrics = Metrics()


@stage.glance(EVENTS, "kind")
def is_told(head: Event, state: View) -> bool:
    """Whether endpoints are told of its kind."""
    return head["kind"] in payload.TYPES


@stage.on(EVENTS)
def fan_out(event: Event, state: View) -> Iterator[Output]:
    """One notification for each endpoint that wants it."""
    body, kind = "", payload.type_of(event)
    for webhook in state.services.notifier.of_tenant(event["tenant"], state.services.webhooks, state.now):
        if kind and kind in (webhook.get("types") or payload.NAMES):
            body = body or payload.body(event, kind)
            yield NOTIFICATIONS.send(payload.notification(webhook, kind, body, event["event_id"], state.now))


@stage.on(NOTIFICATIONS)
def wait(notice: Notification, state: View) -> None:
    """It is durable before it is tried. Raises ValueError for an id that no table can hold."""
    for name in (notice["webhook_id"], notice["notification_id"]):
        if not 0 < len(name) <= 100 or not name.isascii() or not name.isprintable():
            raise ValueError(f"{name[:40]!r} is no id of a webhook or a notification")
    table.put(notice, state.now, state)


@stage.every(TICK_SECONDS)
def turn(state: View) -> Iterator[Output]:
    """Results are written down, what is due is given to be tried."""
    notifier: Notifier = state.services.notifier
    left = BYTES_AT_ONCE
    rows = state.endpoints.scan(_turns.get(state.partition, b""), limit=ENDPOINTS_AT_ONCE)
    _turns[state.partition] = rows[-1][0] + b"\0" if len(rows) == ENDPOINTS_AT_ONCE else b""
    for key, _ in rows:
        webhook_id = key.decode()
        webhook: Webhook | None = state.services.webhooks.get(webhook_id)
        for place, result in list(notifier.holds(webhook_id).items()):
            if result is None or left <= 0:
                continue
            notice: Notification | None = state.notices.get(place)
            if notice is None or notice.get("attempt", 0) != result.attempt:
                notifier.forget(webhook_id, place)  # what a turn before has written is durable by now
                continue
            left -= len(notice.get("body", "")) + (BYTES_AT_ONCE // AT_ONCE)
            state.notices.delete(place)
            yield _settle(notice, result, webhook, state)
            yield from _stand(webhook_id, webhook, result, state)
        standing: Standing = state.endpoints.get(webhook_id) or IDLE
        if webhook is None and standing.first > state.now - UNKNOWN_MS:
            continue
        if webhook is None or webhook.get("disabled_at") is not None:
            yield from _give_up(webhook_id, standing, webhook, state)
        elif standing.first <= state.now and (room := notifier.room(webhook)):
            held = notifier.holds(webhook_id)
            for place, notice in table.waiting(webhook_id, standing, room + len(held), state):
                if table.due_at(webhook_id, place) > state.now or not room:
                    break
                if place not in held:
                    room -= 1
                    notifier.give(place, webhook, notice)
        elif standing.first == NEVER and not standing.failing_since:
            state.endpoints.delete(webhook_id)


def _settle(notice: Notification, result: Result, webhook: Webhook | None, state: View) -> Output:
    """What came of a try; one that failed waits again, while its three days last and its endpoint is there."""
    tried, attempt = result.tried, result.attempt + 1
    until = retries.next_try(attempt, state.now, tried.retry_after_ms)
    again = webhook is not None and until <= notice["at"] + retries.TRIED_FOR_MS
    outcome = "delivered" if tried.delivered else "failed" if again else "dead"
    metrics.count(f"webhook_{outcome}")
    if outcome == "failed":
        table.put({**notice, "attempt": attempt}, until, state)
    return NOTIFIED.send({
        **notice, "attempt": attempt, "outcome": outcome, "tried_at": result.at, "status": tried.status, "error": tried.error,
        "duration_ms": tried.duration_ms, "body": notice.get("body", "") if outcome == "dead" else "",
    })  # fmt: skip


def _stand(webhook_id: str, webhook: Webhook | None, result: Result, state: View) -> Iterator[Output]:
    """Since when it fails; an endpoint that has for three days, or says that it is gone, is disabled."""
    standing: Standing = state.endpoints.get(webhook_id) or IDLE
    since = 0 if result.tried.delivered else standing.failing_since or result.at
    if webhook is not None and webhook.get("disabled_at") is None:
        # a change by its owner, who has mended it, begins the three days anew
        since = max(since, webhook["updated_at"]) if since else 0
        over = since and state.now - since >= retries.TRIED_FOR_MS
        if over or result.tried.status == GONE:
            why = f"failed for 3 days: {result.tried.error}" if over else "it answered 410 Gone"
            yield WEBHOOKS.send({**webhook, "disabled_at": state.now, "disabled_reason": why})
            yield EVENTS.send(noted(webhook["tenant"], state.now, NAME, f"webhook-disabled:{webhook_id}:{webhook['updated_at']}",
                                    reason="webhook-disabled", rule=webhook_id, detail=why))  # fmt: skip
            tenant = state.services.tenants.get(webhook["tenant"])
            if mail := notices.webhook_disabled(state.services.settings, tenant, webhook, why):
                yield SUBMISSIONS.send(mail)
    if since != standing.failing_since:
        state.endpoints.put(webhook_id, standing._replace(failing_since=since))


def _give_up(webhook_id: str, standing: Standing, webhook: Webhook | None, state: View) -> Iterator[Output]:
    """What waits for an endpoint that is disabled is dead, for a redrive; of one that was deleted nobody wants it."""
    left = BYTES_AT_ONCE
    for place, notice in table.waiting(webhook_id, standing._replace(failing_since=0), AT_ONCE, state):
        if (left := left - len(notice.get("body", ""))) < 0:
            break
        state.notices.delete(place)
        if webhook is not None:
            metrics.count("webhook_dead")
            why = f"the endpoint is disabled: {webhook.get('disabled_reason', '')}"
            yield NOTIFIED.send({**notice, "outcome": "dead", "tried_at": state.now, "error": why[:200]})
