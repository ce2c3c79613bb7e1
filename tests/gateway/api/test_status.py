"""What is told of messages, cancelled and moved: from ClickHouse's rows and from Kafka's last events, as one."""

import pytest

from topics.catalogue import CANCELLATIONS, DECISIONS, EVENTS, RESCHEDULES, SUBMISSIONS


async def _sent(rig, mail, **more):
    return (await rig.ask("POST", "/v1/send", mail | {"to": "Bob@There.test"} | more)).json()["messages"][0][
        "message_id"
    ]


def _event(rig, id, kind, **more):
    return {"event_id": f"{id}:{kind}:0:0", "message_id": id, "tenant": "acme", "submission_id": "s", "stream": "transactional", "kind": kind,
            "at": rig.log.now, "accepted_at": rig.log.now, "recipient": "Bob@there.test", "stage": "x", **more}  # fmt: skip


class Warehouse:
    """In place of ClickHouse: rows of one answer."""

    def __init__(self, *rows):
        self.rows, self.asked = rows, []

    def query(self, sql, params=None):
        self.asked.append((sql, params))
        return self

    def dicts(self):
        return [dict(row) for row in self.rows]


def _row(event):
    names = ("kind", "stage", "round", "attempt", "reason", "rule", "detail", "site", "mx_host", "reply_code", "enhanced_code", "reply",
             "possible_duplicate", "bounce_class", "evidence", "recipient", "submission_id", "stream", "at")  # fmt: skip
    numbers = ("round", "attempt", "reply_code", "possible_duplicate")
    return {name: event.get(name, 0 if name in numbers else "") for name in names} | {
        "due": (event.get("due_at") or 0) // 1000
    }


async def test_the_timeline_has_each_step_once_with_reason_and_rule(rig, mail):
    id = await _sent(rig, mail)
    steps = [_event(rig, id, "accepted"), _event(rig, id, "deferred", attempt=1, reply_code=451, enhanced_code="4.7.1", reply="later",
                                                 reason="greylisted", due_at=rig.log.now + 60_000)]  # fmt: skip
    rig.door.warehouse = Warehouse(*map(_row, steps))
    for event in (*steps, _event(rig, id, "delivered", attempt=2, reply_code=250, reply="OK", mx_host="mx.there.test")):
        await rig.log.send(EVENTS, event)
    found = (await rig.ask("GET", f"/v1/status/{id}")).json()
    assert [step["kind"] for step in found["timeline"]] == ["accepted", "deferred", "delivered"]
    assert (found["timeline"][1]["reply"], found["timeline"][1]["reason"]) == (
        "451 4.7.1 later",
        "greylisted",
    ) and found["timeline"][1]["not_before"]
    assert (found["state"], found["ended"]) == ("delivered", True)


async def test_feedback_after_the_end_does_not_change_the_state(rig, mail):
    id = await _sent(rig, mail)
    for kind in ("bounced", "complained", "reported"):
        await rig.log.send(EVENTS, _event(rig, id, kind, evidence=kind))
    assert (await rig.ask("GET", f"/v1/status/{id}")).json()["state"] == "bounced"


@pytest.mark.parametrize("id", ["x", "0" * 26, "v" * 26, "%00", "a" * 5_000, "01jd..%2f..", "0" * 25 + "1"])
async def test_ids_of_no_message(rig, id):
    for method, path, body in (
        ("GET", "status", None),
        ("DELETE", "messages", None),
        ("PATCH", "messages", {"send_at": "2026-12-24T18:00:00Z"}),
    ):
        assert (await rig.ask(method, f"/v1/{path}/{id}", body)).status == 404


async def test_a_cancellation_meets_the_message_wherever_it_is(rig, mail):
    id = await _sent(rig, mail)
    assert (await rig.ask("DELETE", f"/v1/messages/{id}")).status == 202
    for topic in (CANCELLATIONS, DECISIONS):
        (decision,) = rig.log.values(topic)
        assert (decision["message_id"], decision["recipient"], decision["action"]) == (id, "Bob@there.test", "cancel")
    await rig.log.send(EVENTS, _event(rig, id, "cancelled"))
    assert (await rig.ask("DELETE", f"/v1/messages/{id}")).status == 409


async def test_a_send_at_moves_while_the_message_waits_for_it(rig, mail):
    id, later = await _sent(rig, mail, send_at="2026-09-21T15:00:00Z"), {"send_at": "2026-09-22T00:00:00Z"}
    assert (await rig.ask("PATCH", f"/v1/messages/{id}", later)).status == 202
    await rig.log.send(EVENTS, _event(rig, id, "scheduled", reason="send-at", due_at=rig.log.now + 9))
    assert (await rig.ask("PATCH", f"/v1/messages/{id}", later)).status == 202
    assert {wish["send_at"] for wish in rig.log.values(RESCHEDULES)} == {1_790_035_200_000}
    assert (await rig.ask("PATCH", f"/v1/messages/{id}", {"send_at": "2027-09-22T00:00:00Z"})).status == 422
    await rig.log.send(EVENTS, _event(rig, id, "deferred", attempt=1))
    assert (await rig.ask("PATCH", f"/v1/messages/{id}", later)).status == 409


async def test_messages_ask_for_the_callers_own_and_page(rig):
    rows = [{"message_id": f"{n:026d}", "m_submission": "s", "m_recipient": "r", "m_stream": "broadcast", "m_accepted": n, "m_at": n + 1,
             "m_kind": "routed", "m_tags": ["t"]} for n in (3, 2, 1)]  # fmt: skip
    rig.door.warehouse = Warehouse(*rows)
    found = (
        await rig.ask(
            "GET", "/v1/messages?limit=2&state=processing&recipient=Bob@There.test&tag=t&since=2026-01-01T00:00:00Z"
        )
    ).json()
    assert [one["state"] for one in found["messages"]] == ["processing"] * 2 and found["next"] == rows[1]["message_id"]
    ((sql, params),) = rig.door.warehouse.asked
    assert "tenant = {tenant:String}" in sql and params["tenant"] == "acme" and params["recipient"] == "bob@there.test"
    assert "routed" in params["kinds"] and "delivered" not in params["kinds"]


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "state=none", "since=yesterday", "other=1", "limit=100000"])
async def test_queries_that_are_none(rig, query):
    answer = await rig.ask("GET", f"/v1/messages?{query}")
    assert answer.status == 422 and answer.json()["errors"]


async def test_without_clickhouse_statistics_say_so(rig):
    for path in ("messages", "metrics", "usage"):
        assert (await rig.ask("GET", f"/v1/{path}")).status == 503
    assert not rig.log.records[SUBMISSIONS]
