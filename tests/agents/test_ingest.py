"""Ingest: every recipient of every submission is accepted, and goes on or has an end; repeats, quotas, contents."""

import asyncio
import dataclasses
from email import message_from_bytes, policy

import pytest
from builders import HOUR_MS, NOW, events, said, submission, values

from agents import ingest
from agents.ingest import stage
from postroad import mime
from postroad.content import ContentUnavailable
from postroad.ids import header_id
from topics.catalogue import ACCEPTED, BROADCASTS, CANCELLATIONS, DECISIONS, ORIGIN, SCHEDULED, SUBMISSIONS
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
    assert services.settings.return_paths().message_of(message["return_path"]) == message["message_id"]
    assert message["return_path"].endswith("@acme.test")
    assert (message["tags"], message["metadata"], message["round"]) == (["t"], {"k": "v"}, 0)
    mark = message["return_path"].partition("@")[0]
    assert message["top"] == f"X-Postroad-Id: {mark}\r\nFeedback-ID: t:transactional:acme:postroad\r\n".encode()
    mail = await whole(message, services)
    assert (mail["To"], mail["Subject"], mail.get_content()) == ("r@there.test", "hi", "hello\r\n")
    assert services.settings.return_paths().message_of_message_id(mail["Message-ID"]) == message["message_id"]


async def test_a_replay_has_the_same_ids_and_another_record_has_others(services):
    first, again = Scripted(stage, services, NOW), Scripted(stage, services, NOW)
    ids = [values(await runner.feed(SUBMISSIONS, submission()), ACCEPTED)[0]["message_id"] for runner in (first, again)]
    assert ids[0] == ids[1]
    accepted, rejected = said(await first.feed(SUBMISSIONS, submission()))
    assert rejected["message"]["message_id"] == accepted["message_id"] != ids[0], "the repeat has an end of its own"


async def test_a_submission_of_a_lost_region_keeps_its_ids_and_may_have_been_sent(services):
    there, here = Scripted(stage, services, NOW), Scripted(stage, services, NOW + 60_000)
    (first,) = values(await there.feed(SUBMISSIONS, submission()), ACCEPTED)
    await here.feed(SUBMISSIONS, submission(submission_id="other"))
    came = ((ORIGIN, f"{NOW} 0:0 again".encode()),)
    (again,) = values(await here.feed(SUBMISSIONS, submission(), headers=came), ACCEPTED)
    assert (again["message_id"], again["accepted_at"]) == (first["message_id"], NOW)
    assert (first["possible_duplicate"], again["possible_duplicate"]) == (False, True)
    known = ((ORIGIN, f"{NOW} 0:7 known".encode()),)
    assert await here.feed(SUBMISSIONS, submission(submission_id="second"), headers=known) == [], (
        "its messages are here"
    )
    await here.feed(SUBMISSIONS, submission(submission_id="third"), headers=((ORIGIN, b"no time"),))
    assert len(here.dead_letters) == 1


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
        ("a@there.test", "b@there.test", None, f"<{header_id(shared[0]['message_id'])}@acme.test>")
    }
    blast = submission(recipients=to, submission_id="s2", stream="broadcast")
    alone = values(await runner.feed(SUBMISSIONS, blast), ACCEPTED)
    assert len({m["content"]["hash"] for m in alone}) == 1
    mails = [await whole(m, services) for m in alone]
    assert [m["To"] for m in mails] == ["a@there.test", "b@there.test", "c@there.test"]
    ours = services.settings.return_paths()
    assert [m["Message-ID"] for m in mails] == [f"<{ours.header_id(m['message_id'])}@acme.test>" for m in alone]
    for message, mail in zip(shared + alone, [await whole(m, services) for m in shared + alone], strict=True):
        assert ours.message_of_mark(mail["X-Postroad-Id"]) == message["message_id"], "each copy has its own"


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

    async def broken(submission, *rest):
        if submission["subject"] == "breaks":
            raise RecursionError("a mistake of ours, or of the library")
        await build(submission, *rest)

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


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({}, "recipients"),
        ({"metadata": {"k": "v" * 20_000}}, "recipients"),
        ({"tenant": "nobody", "metadata": {"k": "v" * 20_000}}, "recipients"),
    ],
)
async def test_beyond_what_bounds_the_work_it_is_told_of_once(runner, monkeypatch, fields, rule):
    worked_on = []
    make = ingest.intake.message
    monkeypatch.setattr(
        ingest.intake, "message", lambda one, *rest, **more: worked_on.append(one) or make(one, *rest, **more)
    )
    given = submission(*(f"r{n}@there.test" for n in range(1001)), **fields)
    outputs = await runner.feed(SUBMISSIONS, given)
    assert problem(outputs) == ("content", rule)
    assert len(worked_on) == 1, "the number is looked at before the recipients are"
    assert said(outputs)[0]["metadata"] == {}
    assert runner.database.values == {}


async def test_metadata_beyond_its_bound_does_not_travel(runner):
    people = [f"r{n}@there.test" for n in range(50)]
    outputs = await runner.feed(SUBMISSIONS, submission(*people, tenant="nobody", metadata={"k": "v" * 98_000}))
    assert problem(outputs) == ("content", "metadata")
    assert "vv" not in str(outputs)


async def test_inactive_tenant_and_wrong_key(runner, services):
    assert problem(await runner.feed(SUBMISSIONS, submission(), key=b"other")) == ("bad-key", "tenants")
    services.tenants["acme"]["active"] = False
    assert problem(await runner.feed(SUBMISSIONS, submission())) == ("inactive-tenant", "tenants")


async def test_foreign_sender_domain_is_left_to_validate(runner):
    (message,) = values(await runner.feed(SUBMISSIONS, submission(sender={"address": "a@else.test"})), ACCEPTED)
    assert message["return_path"].endswith("@else.test")


async def test_what_was_rejected_whole_may_come_again_mended(runner):
    lost = submission(attachments=[{"filename": "a.txt", "content": "sha256:" + "0" * 64}])
    assert problem(await runner.feed(SUBMISSIONS, lost)) == ("content", "attachment-reference")
    assert values(await runner.feed(SUBMISSIONS, submission()), ACCEPTED)


async def test_what_is_rejected_whole_replaces_nothing(runner):
    await runner.feed(SUBMISSIONS, submission(dedupe_id="d"))
    newer = submission(submission_id="s2", dedupe_id="d", dedupe_policy="replace", text="{{x}} {{y}}")
    newer["recipients"][0]["variables"] = {"x": "1"}
    outputs = await runner.feed(SUBMISSIONS, newer)
    assert problem(outputs) == ("missing-variable", "y")
    assert not values(outputs, CANCELLATIONS) and not values(outputs, DECISIONS)
    assert problem(await runner.feed(SUBMISSIONS, submission(submission_id="s3", dedupe_id="d"))) == (
        "duplicate",
        "dedupe_id",
    )


def mail_merge(number, size=40_000):
    given = submission(*(f"r{n}@there.test" for n in range(number)), text="{{n}} " + "x" * size)
    for n, recipient in enumerate(given["recipients"]):
        recipient["variables"] = {"n": str(n)}
    return given


async def test_a_mail_merge_that_takes_longer_than_prepare_gets_done(services, monkeypatch):
    """A store that takes 10 ms a body and a bound of 50 ms: the batch is held, and goes on where it stopped."""
    put = services.contents.put

    async def slow(data):
        await asyncio.sleep(0.01)
        return await put(data)

    monkeypatch.setattr(services.contents, "put", slow)
    runner = Scripted(dataclasses.replace(stage, prepare_s=0.05), services, NOW)
    given, tries = mail_merge(30), 0
    while tries < 40:  # one more is done each time, however busy the machine
        runner._offset, tries = -1, tries + 1  # the same record again
        try:
            outputs = await runner.feed(SUBMISSIONS, given)
            break
        except Hold:
            continue
    assert 1 < tries < 40
    messages = values(outputs, ACCEPTED)
    assert len(messages) == 30 and services.contents.written == 30, "each once"
    for n, message in enumerate(messages):
        assert (await services.contents.get(message["content"])).find(b"\r\n\r\n%d xxx" % n) > 0
    assert not ingest._built[services], "nothing is kept of what is done"


async def test_a_store_that_is_away_for_one_leaves_nobody_building(services, monkeypatch):
    """Else the next try would build the same into the same list."""
    put, building = services.contents.put, set()

    async def put_one(data):
        if b"away" in data:
            raise ContentUnavailable("away")
        building.add(data)
        await asyncio.sleep(0.02)
        building.remove(data)
        return await put(data)

    monkeypatch.setattr(services.contents, "put", put_one)
    with pytest.raises(Hold):
        await Scripted(stage, services, NOW).feed(SUBMISSIONS, submission(text="away"), mail_merge(3))
    assert not building


async def test_what_was_built_serves_its_own_record_only(runner, services):
    services.contents.failing = True
    with pytest.raises(Hold):
        await runner.feed(SUBMISSIONS, submission(text="x" * 40_000))
    services.contents.failing = False
    (message,) = values(await runner.feed(SUBMISSIONS, submission(text="y" * 40_000)), ACCEPTED)
    assert b"yyy" in await services.contents.get(message["content"])


async def test_the_loop_turns_between_the_copies_of_a_mail_merge(services):
    turns = 0

    async def turning():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(turning())
    await Scripted(stage, services, NOW).feed(SUBMISSIONS, mail_merge(20, size=10))
    other.cancel()
    assert turns >= 20


async def test_a_file_is_encoded_once_for_all_recipients(runner, services, monkeypatch):
    encoded = []
    file = mime.file
    monkeypatch.setattr(mime, "file", lambda data: encoded.append(data) or file(data))
    given = mail_merge(5) | {"attachments": [{"filename": name, "content": b"%PDF"} for name in "ab"]}
    messages = values(await runner.feed(SUBMISSIONS, given), ACCEPTED)
    assert encoded == [b"%PDF"]
    for message in messages:
        parts = list((await whole(message, services)).iter_attachments())
        assert [part.get_content() for part in parts] == [b"%PDF"] * 2


async def test_the_message_id_that_everyone_reads_does_not_lead_to_the_return_path(runner, services):
    for number, stream in enumerate(("transactional", "broadcast")):
        given = submission("a@there.test", "b@there.test", submission_id=f"s{number}", stream=stream)
        for message in values(await runner.feed(SUBMISSIONS, given), ACCEPTED):
            raw = message["top"] + await services.contents.get(message["content"])
            (line,) = [line for line in raw.split(b"\r\n") if line.startswith(b"Message-ID: <")]
            tag = message["return_path"].partition("@")[0][-16:]
            assert tag.encode() not in line


async def test_a_mail_may_not_be_tried_for_longer_than_a_month(runner):
    days = 30 * DAY_MS
    assert problem(await runner.feed(SUBMISSIONS, submission(expires_at=NOW + days + 1))) == ("content", "times")
    assert values(await runner.feed(SUBMISSIONS, submission(expires_at=NOW + days)), ACCEPTED)
    later = submission(submission_id="s2", send_at=NOW + days, expires_at=NOW + 2 * days)
    assert values(await runner.feed(SUBMISSIONS, later), ACCEPTED)


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


@pytest.mark.parametrize("topic", [SUBMISSIONS, BROADCASTS])
@pytest.mark.parametrize("stream", ["transactional", "broadcast"])
async def test_either_topic_takes_either_stream(runner, topic, stream):
    outputs = await runner.feed(topic, submission("a@there.test", "b@there.test", stream=stream))
    assert [m["stream"] for m in values(outputs, ACCEPTED)] == [stream, stream]


async def test_repeats_are_known_across_the_topics(runner):
    await runner.feed(SUBMISSIONS, submission(dedupe_id="d"))
    assert problem(await runner.feed(BROADCASTS, submission())) == ("duplicate", "submission_id")
    assert problem(await runner.feed(BROADCASTS, submission(submission_id="s2", dedupe_id="d"))) == (
        "duplicate", "dedupe_id",
    )  # fmt: skip


async def test_one_quota_for_both_topics(runner, services):
    services.tenants["acme"] |= {"quota_per_day": 3, "quota_waiting_max_s": 7 * 86_400}
    first = await runner.feed(SUBMISSIONS, submission("a@there.test", "b@there.test"))
    blast = submission(*(f"r{n}@there.test" for n in range(3)), submission_id="s2", stream="broadcast")
    second = await runner.feed(BROADCASTS, blast)
    assert [len(values(outputs, topic)) for outputs in (first, second) for topic in (ACCEPTED, SCHEDULED)] == [
        2,
        0,
        1,
        2,
    ]


async def test_the_same_place_in_both_topics_is_two_submissions(services):
    """Partition, offset, time and ids are alike; only one of them was built when the store went away."""
    ids = set()
    for topic in (SUBMISSIONS, BROADCASTS):
        (message,) = values(await Scripted(stage, services, NOW).feed(topic, submission()), ACCEPTED)
        ids.add(message["message_id"])
    assert len(ids) == 2
    services.contents.failing = True
    given = submission("a@there.test", text="x" * 40_000)
    with pytest.raises(Hold):
        await Scripted(stage, services, NOW).feed(SUBMISSIONS, mail_merge(3), given)
    services.contents.failing = False
    (message,) = values(await Scripted(stage, services, NOW).feed(BROADCASTS, submission(text="y" * 40_000)), ACCEPTED)
    assert (await whole(message, services)).get_content() == "y" * 40_000 + "\r\n"


async def test_the_road_learns_how_many_messages_a_broadcast_makes(runner):
    before = ingest.road._records, ingest.road._messages
    await runner.feed(SUBMISSIONS, submission(*(f"r{n}@there.test" for n in range(7))))
    assert (ingest.road._records, ingest.road._messages) == before
    await runner.feed(BROADCASTS, submission(*(f"r{n}@there.test" for n in range(7)), submission_id="s2"))
    assert (ingest.road._records, ingest.road._messages) == (before[0] + 1, before[1] + 7)


def test_the_order_of_the_sources_is_for_life():
    """Their numbers are in the marks of every partition."""
    assert stage.reads == [SUBMISSIONS, BROADCASTS]
