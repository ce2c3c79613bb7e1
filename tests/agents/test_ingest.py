"""Ingest: every recipient of every submission is accepted, and goes on or has an end; repeats, quotas, contents."""

from email import message_from_bytes, policy

import pytest
from builders import HOUR_MS, NOW, events, said, submission, values

from agents import ingest
from agents.ingest import stage
from topics.catalogue import ACCEPTED, CANCELLATIONS, DECISIONS, SCHEDULED, SUBMISSIONS
from topics.stage import Hold
from topics.testing import Scripted

DAY_MS = 86_400_000


@pytest.fixture
def runner(services):
    return Scripted(stage, services, NOW)


def problem(outputs):
    """(reason, rule) of the one rejection."""
    ((_, end),) = zip(*[iter(said(outputs))] * 2, strict=True)
    assert end["kind"] == "rejected"
    return end["reason"], end["rule"]


async def whole(message, services):
    return message_from_bytes(message["top"] + await services.contents.get(message["content"]), policy=policy.default)


async def test_one_recipient(runner, services):
    outputs = await runner.feed(SUBMISSIONS, submission(tags=["t"], metadata={"k": "v"}))
    assert events(outputs) == [("accepted", "")]
    (message,) = values(outputs, ACCEPTED)
    assert (message["accepted_at"], message["expires_at"]) == (NOW, NOW + 72 * HOUR_MS)
    assert message["return_path"] == f"b-{message['message_id']}@acme.test"
    assert (message["tags"], message["metadata"], message["round"], message["top"]) == (["t"], {"k": "v"}, 0, b"")
    mail = await whole(message, services)
    assert (mail["To"], mail["Subject"], mail.get_content()) == ("r@there.test", "hi", "hello\r\n")
    assert mail["Message-ID"] == f"<{message['message_id']}@acme.test>"


async def test_a_replay_has_the_same_ids_and_another_record_has_others(services):
    first, again = Scripted(stage, services, NOW), Scripted(stage, services, NOW)
    ids = [values(await runner.feed(SUBMISSIONS, submission()), ACCEPTED)[0]["message_id"] for runner in (first, again)]
    assert ids[0] == ids[1]
    accepted, rejected = said(await first.feed(SUBMISSIONS, submission()))
    assert rejected["message"]["message_id"] == accepted["message_id"] != ids[0], "the repeat has an end of its own"


async def test_listed_in_one_shared_content_or_alone_in_a_copy(runner, services):
    to = [
        {"address": "a@there.test"},
        {"address": "b@there.test", "kind": "cc"},
        {"address": "c@there.test", "kind": "bcc"},
    ]
    shared = values(await runner.feed(SUBMISSIONS, submission(recipients=to)), ACCEPTED)
    assert len({m["content"]["hash"] for m in shared}) == 1
    mails = [await whole(m, services) for m in shared]
    assert {(m["To"], m["Cc"], m["Bcc"], m["Message-ID"]) for m in mails} == {
        ("a@there.test", "b@there.test", None, f"<{shared[0]['message_id']}@acme.test>")
    }
    blast = submission(recipients=to, submission_id="s2", stream="broadcast")
    alone = values(await runner.feed(SUBMISSIONS, blast), ACCEPTED)
    assert len({m["content"]["hash"] for m in alone}) == 1
    mails = [await whole(m, services) for m in alone]
    assert [m["To"] for m in mails] == ["a@there.test", "b@there.test", "c@there.test"]
    assert [m["Message-ID"] for m in mails] == [f"<{m['message_id']}@acme.test>" for m in alone]


async def test_variables_and_a_missing_one(runner, services):
    to = [{"address": f"{name}@there.test", "variables": {"name": name}} for name in ("ann", "bob")]
    to.append({"address": "eve@there.test", "variables": {}})
    outputs = await runner.feed(SUBMISSIONS, submission(recipients=to, text="Dear {{name}}"))
    texts = [(await whole(m, services)).get_content() for m in values(outputs, ACCEPTED)]
    assert texts == ["Dear ann\r\n", "Dear bob\r\n"]
    assert events(outputs)[-2:] == [("accepted", ""), ("rejected", "missing-variable")]


async def test_a_thousand_recipients_share_one_blob(runner, services):
    people = [f"r{n}@there.test" for n in range(1000)]
    outputs = await runner.feed(SUBMISSIONS, submission(*people, text="x" * 40_000))
    messages = values(outputs, ACCEPTED)
    assert [m["recipient"] for m in messages] == people
    assert len({m["message_id"] for m in messages}) == 1000
    assert services.contents.written == 1
    assert messages[0]["content"]["inline"] is None and messages[0]["content"]["blob"]
    assert messages[-1]["content"] == messages[0]["content"]


async def test_one_address_twice_gets_one_mail(runner):
    people = ["R@there.test", "r@THERE.test", "x@Bücher.test", "x@xn--bcher-kva.test", "no address", "NO ADDRESS"]
    outputs = await runner.feed(SUBMISSIONS, submission(*people))
    assert [m["recipient"] for m in values(outputs, ACCEPTED)] == ["R@there.test", "x@xn--bcher-kva.test", "no address"]


async def test_small_content_travels_inside(runner, services):
    (message,) = values(await runner.feed(SUBMISSIONS, submission()), ACCEPTED)
    assert message["content"]["inline"] and message["content"]["blob"] is None
    assert services.contents.written == 0


async def test_content_store_away_holds_and_loses_nothing(runner, services):
    services.contents.failing = True
    with pytest.raises(Hold, match="content store is away"):
        await runner.feed(SUBMISSIONS, submission(text="x" * 40_000))
    assert runner.database.values == {}
    services.contents.failing = False
    assert len(values(await runner.feed(SUBMISSIONS, submission(text="x" * 40_000)), ACCEPTED)) == 1


async def test_attachment_by_reference(runner, services):
    reference = await services.contents.put_blob(b"%PDF")
    fields = {"attachments": [{"filename": "a.pdf", "content": reference, "content_type": "application/pdf"}]}
    (message,) = values(await runner.feed(SUBMISSIONS, submission(**fields)), ACCEPTED)
    (part,) = (await whole(message, services)).iter_attachments()
    assert part.get_content() == b"%PDF"
    await services.contents.lose(reference)
    outputs = await runner.feed(SUBMISSIONS, submission(submission_id="s2", **fields))
    assert problem(outputs) == ("content", "attachment-reference")


async def test_no_recipients_is_a_dead_letter(runner):
    assert await runner.feed(SUBMISSIONS, submission(recipients=[])) == []
    assert "without recipients" in runner.dead_letters[0]["text"]


async def test_what_cannot_be_built_is_a_dead_letter_and_its_neighbours_go_on(runner, monkeypatch):
    build = ingest.intake.build

    async def broken(submission, messages, store):
        if submission["subject"] == "breaks":
            raise RecursionError("a mistake of ours, or of the library")
        return await build(submission, messages, store)

    monkeypatch.setattr(ingest.intake, "build", broken)
    outputs = await runner.feed(SUBMISSIONS, submission(subject="breaks"), submission(submission_id="s2"))
    assert len(values(outputs, ACCEPTED)) == 1
    assert [letter["error"] for letter in runner.dead_letters] == ["RecursionError"]


async def test_unbuilt_batch_is_held(runner, services, monkeypatch):
    monkeypatch.setitem(stage.preparers, SUBMISSIONS, lambda todo, state: _nothing())
    with pytest.raises(Hold):
        await runner.feed(SUBMISSIONS, submission())


async def _nothing():
    """A `prepare` that ran into its bound."""


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"tenant": "nobody"}, ("unknown-tenant", "tenants")),
        ({"submission_id": ""}, ("content", "submission-id")),
        ({"sender": {"address": "no address"}}, ("bad-address", "sender")),
        ({"sender": {"address": "a@acme.test", "name": "x\r\nBcc: y"}}, ("content", "header-injection")),
        ({"subject": "a\nBcc: b@there.test"}, ("content", "header-injection")),
        ({"text": None}, ("content", "parts")),
        ({"raw": b"From: a@acme.test\r\n\r\n"}, ("content", "parts")),
        ({"headers": [{"name": "From", "value": "x"}]}, ("content", "header-own")),
        ({"headers": [{"name": "X Y", "value": "x"}]}, ("content", "header-name")),
        ({"attachments": [{"filename": "../x", "content": b""}]}, ("content", "filename")),
        ({"attachments": [{"filename": "x", "content": b"", "content_type": "nonsense"}]}, ("content", "content-type")),
        ({"send_at": NOW, "expires_at": NOW}, ("content", "times")),
        ({"send_at": -1}, ("content", "times")),
        ({"tags": ["x"] * 11}, ("content", "tags")),
    ],
)
async def test_refused_as_a_whole(runner, fields, reason):
    outputs = await runner.feed(SUBMISSIONS, submission(**fields))
    assert problem(outputs) == reason
    assert not values(outputs, ACCEPTED)
    assert runner.database.values == {}, "mended, it may come again under the same id"


async def test_too_many_recipients_each_have_an_end(runner):
    outputs = await runner.feed(SUBMISSIONS, submission(*(f"r{n}@there.test" for n in range(1001))))
    assert events(outputs) == [("accepted", ""), ("rejected", "content")] * 1001


async def test_inactive_tenant_and_wrong_key(runner, services):
    assert problem(await runner.feed(SUBMISSIONS, submission(), key=b"other")) == ("bad-key", "tenants")
    services.tenants["acme"]["active"] = False
    assert problem(await runner.feed(SUBMISSIONS, submission())) == ("inactive-tenant", "tenants")


async def test_foreign_sender_domain_is_left_to_validate(runner):
    (message,) = values(await runner.feed(SUBMISSIONS, submission(sender={"address": "a@else.test"})), ACCEPTED)
    assert message["return_path"].endswith("@else.test")


async def test_repeat_of_a_submission_within_the_window(runner, services):
    services.tenants["acme"]["dedupe_window_s"] = 600
    await runner.feed(SUBMISSIONS, submission())
    assert problem(await runner.feed(SUBMISSIONS, submission(text="other"))) == ("duplicate", "submission_id")
    services.tenants["other"] = {"tenant": "other", "domains": []}
    assert values(await runner.feed(SUBMISSIONS, submission(tenant="other")), ACCEPTED), "another tenant's id"
    runner.now += 600_000 + 60_000
    assert len(values(await runner.feed(SUBMISSIONS, submission()), ACCEPTED)) == 1


async def test_repeat_within_one_batch(runner):
    outputs = await runner.feed(SUBMISSIONS, submission(), submission())
    assert events(outputs) == [("accepted", ""), ("accepted", ""), ("rejected", "duplicate")]


async def test_dedupe_id_rejects_the_newer(runner):
    await runner.feed(SUBMISSIONS, submission(dedupe_id="d"))
    assert problem(await runner.feed(SUBMISSIONS, submission(submission_id="s2", dedupe_id="d"))) == (
        "duplicate",
        "dedupe_id",
    )
    assert values(await runner.feed(SUBMISSIONS, submission(submission_id="s3", dedupe_id="e")), ACCEPTED)


async def test_dedupe_id_replaces_the_older(runner):
    people = ["A@there.test", "x@Bücher.test"]
    replace = {"dedupe_id": "d", "dedupe_policy": "replace"}
    older = values(await runner.feed(SUBMISSIONS, submission(*people, **replace)), ACCEPTED)
    outputs = await runner.feed(SUBMISSIONS, submission("c@there.test", submission_id="s2", **replace))
    assert len(values(outputs, ACCEPTED)) == 1
    for topic in (CANCELLATIONS, DECISIONS):
        decisions = values(outputs, topic)
        assert [d["message_id"] for d in decisions] == [m["message_id"] for m in older]
        assert {d["action"] for d in decisions} == {"cancel"}
    # They must meet their message in suppress, whose key is the address as validate writes it
    assert [output.key for output in outputs if output.topic is CANCELLATIONS] == [
        b"a@there.test",
        b"x@xn--bcher-kva.test",
    ]


async def test_a_replacement_replaces_once_and_is_replaced_itself(runner):
    replace = {"dedupe_id": "d", "dedupe_policy": "replace"}
    await runner.feed(SUBMISSIONS, submission(**replace))
    (second,) = values(await runner.feed(SUBMISSIONS, submission(submission_id="s2", **replace)), ACCEPTED)
    outputs = await runner.feed(SUBMISSIONS, submission(submission_id="s2", **replace))
    assert problem(outputs) == ("duplicate", "submission_id"), "the producer has tried again"
    assert not values(outputs, CANCELLATIONS)
    outputs = await runner.feed(SUBMISSIONS, submission(submission_id="s3", **replace))
    assert [d["message_id"] for d in values(outputs, CANCELLATIONS)] == [second["message_id"]]


async def test_quota_per_second_waits(runner, services):
    services.tenants["acme"]["quota_per_second"] = 2.0
    outputs = await runner.feed(SUBMISSIONS, submission(*(f"r{n}@there.test" for n in range(5))))
    assert len(values(outputs, ACCEPTED)) == 2
    waiting = values(outputs, SCHEDULED)
    assert [entry["due_at"] - NOW for entry in waiting] == [500, 1000, 1500]
    assert {(entry["reason"], entry["return_to"]) for entry in waiting} == {("quota", "accepted")}
    runner.now += 5000
    assert len(values(await runner.feed(SUBMISSIONS, submission(submission_id="s2")), ACCEPTED)) == 1


async def test_quota_per_day_waits_for_tomorrow_and_rejects_beyond_the_cap(runner, services):
    services.tenants["acme"] |= {"quota_per_day": 2, "quota_waiting_max_s": 86_400}
    outputs = await runner.feed(SUBMISSIONS, submission(*(f"r{n}@there.test" for n in range(6))))
    tomorrow = (NOW // DAY_MS + 1) * DAY_MS
    assert len(values(outputs, ACCEPTED)) == 2
    assert [entry["due_at"] for entry in values(outputs, SCHEDULED)] == [tomorrow] * 2
    assert events(outputs)[-2:] == [("accepted", ""), ("rejected", "quota")]
    assert events(outputs).count(("rejected", "quota")) == 2


async def test_what_quota_rejects_uses_none_of_it(runner, services):
    services.tenants["acme"] |= {"quota_per_day": 1, "quota_waiting_max_s": 0}
    await runner.feed(SUBMISSIONS, submission(*(f"r{n}@there.test" for n in range(9))))
    runner.now += DAY_MS
    outputs = await runner.feed(SUBMISSIONS, submission(submission_id="s2"))
    assert len(values(outputs, ACCEPTED)) == 1


async def test_raw_message(runner, services):
    raw = b"From: a@acme.test\nBcc: secret@there.test\nSubject: raw\n\nbody\n"
    given = submission(raw=raw, text=None, subject="")
    (message,) = values(await runner.feed(SUBMISSIONS, given), ACCEPTED)
    mail = await services.contents.get(message["content"])
    assert b"secret" not in mail and b"Message-ID: " in mail and mail.endswith(b"Subject: raw\r\n\r\nbody\r\n")


async def test_expires_at_and_send_at(runner):
    async def expiry(**fields):
        (message,) = values(await runner.feed(SUBMISSIONS, submission(**fields)), ACCEPTED)
        return message["expires_at"]

    assert await expiry(submission_id="a", expires_at=NOW + 5) == NOW + 5
    assert await expiry(submission_id="b", send_at=NOW + DAY_MS) == NOW + DAY_MS + 72 * HOUR_MS
