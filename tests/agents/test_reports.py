"""Reports: which message they are about, what follows from them, and what never does."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest
from builders import HOUR_MS, ID, NOW, attempt, content, events, routed, values

from agents import report_mails
from agents.classify import stage
from postroad.ids import message_id
from postroad.returnpath import named
from postroad.settings import Settings
from postroad.shaping.limits import Limits
from postroad.shaping.policy import parse
from topics.catalogue import ATTEMPTS, EVENTS, REPORTS, SUPPRESSIONS
from topics.stage import Hold
from topics.testing import Scripted

OURS = Settings().return_paths()
RETURN_PATH = OURS.sign(ID, "acme.test")
MARK = RETURN_PATH.partition("@")[0]
FBL = "fbl@acme.test"

DSN = b"""From: MAILER-DAEMON@there.test\r\nSubject: Returned mail\r\nMIME-Version: 1.0\r
Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\n\r\nSorry.\r\n--b\r
Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx\r\n\r
Final-Recipient: rfc822; r@there.test\r\nAction: failed\r\nStatus: 5.1.1\r\nDiagnostic-Code: smtp; 550 5.1.1 User unknown\r\n\r\n--b--\r\n"""
ARF = b"""From: complaints@there.test\r\nTo: fbl@acme.test\r\nSubject: complaint\r\nMIME-Version: 1.0\r
Content-Type: multipart/report; report-type=feedback-report; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nAn abuse report.\r\n--b\r
Content-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nUser-Agent: Loop/1.0\r\nVersion: 1\r\nSource-IP: 192.0.2.1\r\n\r
--b\r\nContent-Type: message/rfc822\r\n\r\nX-Nothing: 1\r\nFrom: a@acme.test\r\nTo: redacted\r\nSubject: hi\r\n\r\nhello\r\n--b--\r\n"""
VACATION = b"""From: r@there.test\r\nAuto-Submitted: auto-replied\r\nSubject: Out of office: hi\r\n\r\nI am on vacation until Monday.\r\n"""


def arf(field, **changes):
    """A complaint whose reported message has this header field."""
    raw = ARF.replace(b"X-Nothing: 1", field.encode())
    for old, new in changes.items():
        raw = raw.replace(old.encode(), new.encode())
    return raw


@pytest.fixture
def classify(services):
    services.shaping = SimpleNamespace(policy=parse("", "shaping.toml", Limits()))
    return Scripted(stage, services, NOW)


def report(raw=DSN, rcpt_to=RETURN_PATH, **fields):
    return {
        "report_id": "r1",
        "received_at": NOW,
        "mail_from": "",
        "rcpt_to": rcpt_to,
        "content": content(raw),
        **fields,
    }


async def due(classify):
    """Reports that are read again at this time."""
    return [output for output in await classify.tick() if output.topic is REPORTS]


def evidence(outputs):
    return [(one["reason"], one["evidence"]) for one in values(outputs, SUPPRESSIONS)]


async def test_a_bounce_after_the_250_is_late_and_stops_mail(classify):
    await classify.feed(ATTEMPTS, attempt())
    outputs = await classify.feed(REPORTS, report())
    assert events(outputs) == [("late_bounce", "user-unknown")]
    (event,) = values(outputs, EVENTS)
    assert (event["message_id"], event["enhanced_code"], event["bounce_class"], event["evidence"]) == (
        ID,
        "5.1.1",
        "hard",
        "r1",
    )
    assert event["event_id"].endswith(":r1") and "User unknown" in event["detail"]
    assert evidence(outputs) == [("hard_bounce", "r1")]
    assert classify.state.ended.get(ID)["kind"] == "delivered", "it has one end"


async def test_a_bounce_of_what_had_bounced_is_reported(classify):
    await classify.feed(ATTEMPTS, attempt(552, "over quota", "5.2.2", "rcpt"))
    outputs = await classify.feed(REPORTS, report())
    assert events(outputs) == [("reported", "user-unknown")]
    assert evidence(outputs) == [("hard_bounce", "r1")]


async def test_the_same_evidence_changes_nothing_twice(classify):
    await classify.feed(ATTEMPTS, attempt())
    await classify.feed(REPORTS, report())
    before = dict(classify.database.values)
    assert await classify.feed(REPORTS, report(), report(received_at=NOW + 5)) == []
    assert classify.database.values == before


async def test_a_second_report_is_told_and_counts_no_more(classify):
    await classify.feed(ATTEMPTS, attempt())
    await classify.feed(REPORTS, report())
    counted = {key: value for key, value in classify.database.values.items() if key[0] != 5}
    outputs = await classify.feed(REPORTS, report(report_id="r2"))
    assert events(outputs) == [("late_bounce", "user-unknown")]
    assert {key: value for key, value in classify.database.values.items() if key[0] != 5} == counted


async def test_what_was_decided_before_a_crash_is_told_again(classify):
    await classify.feed(ATTEMPTS, attempt())
    first = await classify.feed(REPORTS, report())
    stored = dict(classify.database.values)
    classify._offset -= 1  # the same record
    again = await classify.feed(REPORTS, report())
    assert [one.value for one in again] == [one.value for one in first]
    assert classify.database.values == stored


@pytest.mark.parametrize(
    ("address", "told", "stopped"),
    [
        (b"rfc822; R@There.test", ("late_bounce", "user-unknown"), 1),
        (b"rfc822; somebody@else.test", ("reported", "bounce-of-another"), 0),
        (b"rfc822; other@forward.test\r\nOriginal-Recipient: rfc822; r@there.test", ("late_bounce", "user-unknown"), 1),
    ],
)
async def test_a_report_about_somebody_else_suppresses_nobody(classify, address, told, stopped):
    await classify.feed(ATTEMPTS, attempt())
    outputs = await classify.feed(REPORTS, report(DSN.replace(b"rfc822; r@there.test", address)))
    assert events(outputs) == [told]
    assert len(values(outputs, SUPPRESSIONS)) == stopped


@pytest.mark.parametrize(
    "raw",
    [
        DSN.replace(b"failed", b"delayed").replace(b"5.1.1", b"4.4.7"),
        DSN.replace(b"failed", b"delivered").replace(b"5.1.1", b"2.0.0"),
        VACATION,
        b"Subject: buy now\r\n\r\ncheap things\r\n",
        arf("X-Y: z", abuse="not-spam"),
        arf("X-Y: z", abuse="auth-failure"),
    ],
)
async def test_what_is_no_failure_and_no_complaint_is_reported_and_no_more(classify, raw):
    await classify.feed(ATTEMPTS, attempt())
    outputs = await classify.feed(REPORTS, report(raw))
    assert [kind for kind, _ in events(outputs)] == ["reported"]
    assert values(outputs, SUPPRESSIONS) == []


async def test_a_soft_bounce_counts_as_one(classify):
    await classify.feed(ATTEMPTS, attempt())
    outputs = await classify.feed(
        REPORTS, report(DSN.replace(b"5.1.1", b"5.2.2").replace(b"User unknown", b"mailbox full"))
    )
    assert events(outputs) == [("late_bounce", "mailbox-full")]
    assert evidence(outputs) == [("soft_bounces", "r1")]


CLUES = {
    "own header": f"X-Postroad-Id: {MARK}",
    "in capitals": f"X-Postroad-Id: {MARK.upper()}",
    "return path": f"Return-Path: <{RETURN_PATH}>",
    "message id": f"Message-ID: <{OURS.header_id(ID)}@acme.test>",
}


@pytest.mark.parametrize("clue", CLUES.values(), ids=CLUES)
async def test_a_complaint_finds_its_message_and_its_lane(classify, clue):
    await classify.feed(ATTEMPTS, attempt())
    given = report(arf(clue), FBL)
    assert REPORTS.key(given) == ""
    (once_more,) = await classify.feed(REPORTS, given)
    assert (once_more.topic, once_more.key) == (REPORTS, ID.encode())
    assert once_more.value == {**once_more.value, **given, "message_id": ID}
    outputs = await classify.feed(REPORTS, once_more.value)
    assert events(outputs) == [("complained", "abuse")]
    assert evidence(outputs) == [("complaint", "r1")]


async def test_by_original_mail_from(classify):
    await classify.feed(ATTEMPTS, attempt())
    raw = arf("X-Y: z", **{"Version: 1": f"Version: 1\r\nOriginal-Mail-From: <{RETURN_PATH}>"})
    (once_more,) = await classify.feed(REPORTS, report(raw, FBL))
    assert once_more.value["message_id"] == ID


async def test_a_bounce_known_by_its_message_id_alone_stops_nobody(classify):
    """The Message-ID stands in archives and replies."""
    await classify.feed(ATTEMPTS, attempt())
    returned = f"--b\r\nContent-Type: text/rfc822-headers\r\n\r\nMessage-ID: <{OURS.header_id(ID)}@acme.test>\r\n\r\n--b--".encode()
    (once_more,) = await classify.feed(REPORTS, report(DSN.replace(b"--b--", returned), FBL))
    outputs = await classify.feed(REPORTS, once_more.value)
    assert events(outputs) == [("reported", "user-unknown")]
    assert values(outputs, SUPPRESSIONS) == []


@pytest.mark.parametrize(
    ("named_too", "kind"),
    [
        ("", "complained"),
        ("\r\nOriginal-Rcpt-To: <q7f3@there.test>", "complained"),  # as RFC 6590 takes local parts out
        ("\r\nOriginal-Rcpt-To: <somebody@else.test>", "reported"),
    ],
)
async def test_a_complaint_known_by_its_message_id_acts_on_whom_it_names(classify, named_too, kind):
    await classify.feed(ATTEMPTS, attempt())
    raw = arf(f"Message-ID: <{OURS.header_id(ID)}@acme.test>", **{"Version: 1": f"Version: 1{named_too}"})
    outputs = await classify.feed(REPORTS, *(one.value for one in await classify.feed(REPORTS, report(raw, FBL))))
    assert events(outputs) == [(kind, "abuse")]
    assert len(values(outputs, SUPPRESSIONS)) == (kind == "complained")


async def test_a_reply_with_a_message_id_is_no_complaint_that_acts(classify):
    await classify.feed(ATTEMPTS, attempt())
    raw = arf(
        "X-Y: z", **{"Subject: complaint": f"Subject: complaint\r\nIn-Reply-To: <{OURS.header_id(ID)}@acme.test>"}
    )
    outputs = await classify.feed(REPORTS, *(one.value for one in await classify.feed(REPORTS, report(raw, FBL))))
    assert events(outputs) == [("reported", "abuse")]
    assert values(outputs, SUPPRESSIONS) == []


OTHER = message_id(NOW, "acme", "s", "0:9", "x@there.test")
FORGED = f"b-{ID}-{'0' * 16}"


@pytest.mark.parametrize(
    ("rcpt_to", "raw", "problem"),
    [
        (f"{FORGED}@acme.test", DSN, "report-forged"),
        (f"b-{ID}@acme.test", DSN, "report-forged"),
        ("b-nobody@acme.test", DSN, "report-forged"),
        (FBL, DSN, "report-unmatched"),
        ("", DSN, "report-unmatched"),
        (FBL, arf("X-Y: z"), "report-unmatched"),
        (FBL, arf(f"X-Postroad-Id: {FORGED}"), "report-forged"),
        (FBL, arf(f"Message-ID: <{ID}.{MARK[-16:]}@acme.test>"), "report-forged"),  # the tag of the return path
        (FBL, arf(f"Return-Path: <{RETURN_PATH.replace(ID, OTHER)}>"), "report-forged"),
        (FBL, b"", "report-unmatched"),
        (FBL, b"\0\xff" * 500, "report-unmatched"),
    ],
)
async def test_what_is_forged_or_unmatched_is_noted_and_never_acted_on(classify, rcpt_to, raw, problem):
    await classify.feed(ATTEMPTS, attempt())
    outputs = await classify.feed(REPORTS, report(raw, rcpt_to))
    assert events(outputs) == [("noted", problem)]
    (event,) = values(outputs, EVENTS)
    assert (event["message_id"], event["evidence"]) == ("", "r1")
    assert REPORTS.send(report(rcpt_to=rcpt_to)).key.decode() == named(rcpt_to)


async def test_a_complaint_without_a_message_names_the_tenant_of_its_feedback_id(classify):
    (output,) = await classify.feed(REPORTS, report(arf("Feedback-ID: spring:broadcast:acme:postroad"), FBL))
    assert output.value["tenant"] == "acme" and "abuse" in output.value["detail"]
    (output,) = await classify.feed(REPORTS, report(arf("Feedback-ID: spring:broadcast:acme:elsewhere"), FBL))
    assert output.value["tenant"] == ""


async def test_a_report_once_more_is_never_sent_a_third_time(classify):
    """Whoever writes one with another message id than its content has."""
    outputs = await classify.feed(REPORTS, report(arf(CLUES["own header"]), FBL, message_id=OTHER))
    assert events(outputs) == [("noted", "report-unmatched")]


async def test_a_report_before_its_message_has_ended_waits_for_the_end(classify):
    young = message_id(NOW, "acme", "s", "0:1", "r@there.test")
    given = report(rcpt_to=OURS.sign(young, "acme.test"))
    assert await classify.feed(REPORTS, given) == []
    assert await due(classify) == [], "not yet"
    for seconds in (10, 10, 20, 40):  # each time after as long as it has waited
        classify.now += 1000 * seconds
        (again,) = await due(classify)
        assert (again.topic, again.value["report_id"]) == (REPORTS, "r1")
        assert await classify.feed(REPORTS, again.value) == []
    await classify.feed(ATTEMPTS, attempt(message=routed(message_id=young)))
    classify.now += 90_000
    (again,) = await due(classify)
    assert events(await classify.feed(REPORTS, again.value)) == [("late_bounce", "user-unknown")]
    classify.now += HOUR_MS
    assert await due(classify) == []


async def test_a_report_on_what_is_forgotten_is_noted_after_an_hour(classify):
    old = message_id(NOW - 9 * 24 * HOUR_MS, "acme", "s", "0:1", "r@there.test")
    given = report(rcpt_to=OURS.sign(old, "acme.test"))
    assert await classify.feed(REPORTS, given) == [], "its mail may have been scheduled for today"
    classify.now += HOUR_MS + 1
    (again,) = await due(classify)
    assert events(await classify.feed(REPORTS, again.value)) == [("noted", "report-unmatched")]


@pytest.mark.parametrize("raw", [b"", b"\0\xff" * 500, DSN[:150], DSN.replace(b"--b--", b""), b"\r\n\r\n" * 99])
async def test_hostile_bytes_as_a_report(classify, raw):
    await classify.feed(ATTEMPTS, attempt())
    await classify.feed(REPORTS, report(raw))
    assert classify.dead_letters == []


async def test_report_whose_mail_is_gone_stops_nobody(classify):
    await classify.feed(ATTEMPTS, attempt())
    gone = report(content={**content(DSN), "inline": None, "blob": f"sha256:{content(DSN)['hash']}"})
    forged = report(content={**content(DSN), "hash": "no hash"})
    outputs = await classify.feed(REPORTS, gone, forged, report())
    assert events(outputs) == [("late_bounce", "user-unknown")]
    assert [letter["error"] for letter in classify.dead_letters] == ["ContentMissing"] * 2


async def test_content_store_away(classify, services):
    services.contents.failing = True
    away = report(content={**content(DSN), "inline": None, "blob": f"sha256:{content(DSN)['hash']}"})
    with pytest.raises(Hold, match="content store is away"):
        await classify.feed(REPORTS, away)


async def test_blobs_are_read_a_few_at_a_time_and_none_twice_for_a_batch_that_takes_long(
    classify, services, monkeypatch
):
    monkeypatch.setattr(report_mails, "_read", {})
    monkeypatch.setattr(services.contents, "inline_max", 0)
    get, now, most, fetched = services.contents.get, 0, 0, []

    async def slow(one):
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        try:
            await asyncio.sleep(0.05)
            fetched.append(one["hash"])
            return await get(one)
        finally:
            now -= 1

    services.contents.get = slow
    classify.stage = replace(stage, prepare_s=0.12)
    await classify.feed(ATTEMPTS, attempt())
    blobs = [await services.contents.put(DSN + b"%d" % number) for number in range(40)]
    given = [report(content=blob, report_id=f"r{number}") for number, blob in enumerate(blobs)]
    held = 0
    while True:
        try:
            outputs = await classify.feed(REPORTS, *given)
            break
        except Hold:
            held += 1
            assert held < 20, "no progress"
    assert held and most == report_mails.FETCHES
    assert sorted(fetched) == sorted(blob["hash"] for blob in blobs)
    assert len(events(outputs)) == 40
