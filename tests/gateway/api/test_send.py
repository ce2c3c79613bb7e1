"""POST /v1/send and what is asked of its messages at once."""

import asyncio
import base64
import hashlib
import json

import pytest

from gateway.accept import ids_of
from gateway.api import all_routes
from gateway.api.app import application
from topics.catalogue import BROADCASTS, IDEMPOTENT_USES, SUBMISSIONS
from topics.client import Place


async def test_a_mail_is_written_before_the_202(rig, mail):
    answer = await rig.ask("POST", "/v1/send", mail)
    assert answer.status == 202, answer.body
    ((key, submission, record),) = rig.log.records[SUBMISSIONS]
    ids = ids_of(submission, Place(0, record.offset, record.timestamp))
    assert key == "acme" and submission["sender"] == {"address": "ann@acme.test", "name": "Ann"}
    assert answer.json() == {
        "submission_id": submission["submission_id"],
        "messages": [
            {"message_id": ids[0], "recipient": "bob@there.test"},
            {"message_id": ids[1], "recipient": "carol@there.test"},
        ],
    }
    assert "ratelimit" in {name.lower() for name in answer.headers}


TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([TRACEPARENT], [TRACEPARENT]),
        ([TRACEPARENT] * 2, []),
        ([TRACEPARENT.upper()], []),
        (["x" * 60_000], []),
        (["ü"], []),
    ],
)
@pytest.mark.parametrize("more", [{}, {"idempotency-key": "k1"}])
async def test_the_trace_of_a_caller_goes_on_with_the_submission(rig, mail, given, kept, more):
    answer = await rig.ask("POST", "/v1/send", mail, headers={"traceparent": given, **more})
    assert answer.status == 202, answer.body
    ((_, _, record),) = rig.log.records[SUBMISSIONS]
    assert record.headers == [("traceparent", value.encode()) for value in kept]


async def test_its_status_is_right_at_once_and_nobody_elses(rig, mail):
    id = (await rig.ask("POST", "/v1/send", mail)).json()["messages"][1]["message_id"]
    answer = await rig.ask("GET", f"/v1/status/{id}")
    found = answer.json()
    assert (answer.status, found["state"], found["ended"], found["recipient"]) == (
        200,
        "accepted",
        False,
        "carol@there.test",
    )
    foreign = await rig.ask("GET", f"/v1/status/{id}", key=rig.stranger)
    none = await rig.ask("GET", f"/v1/status/{id[:-1]}{'0' if id[-1] != '0' else '4'}", key=rig.stranger)
    assert (foreign.status, foreign.body) == (404, none.body)


@pytest.mark.parametrize(
    ("change", "status", "pointer"),
    [
        ({"to": [{"address": 3}]}, 422, "/to/0/address"),
        ({"too": "x"}, 422, "/too"),
        ({"to": []}, 422, "/to"),
        ({"to": ["nobody"]}, 422, "/to/0"),
        ({"cc": ["a@b.test", "x@@y"]}, 422, "/cc/1"),
        ({"from": "eve@elsewhere.test"}, 403, "/from"),
        ({"from": "a@acme.test, b@acme.test"}, 422, "/from"),
        ({"from": None}, 422, "/from"),
        ({"text": None}, 422, "/text"),
        ({"subject": "a\r\nBcc: eve@x.test"}, 422, None),
        ({"headers": {"X-A": "b\nBcc: c@d.test"}}, 422, None),
        ({"headers": {"Bcc": "c@d.test"}}, 422, None),
        ({"send_at": "2026-12-24T18:00:00"}, 422, "/send_at"),
        ({"send_at": "9999-12-24T18:00:00Z"}, 422, "/expires_at"),
        ({"stream": "bulk"}, 422, "/stream"),
        ({"tags": ["x"] * 11}, 422, "/tags"),
        ({"attachments": [{"filename": "a", "content": "***"}]}, 422, "/attachments/0/content"),
        ({"attachments": [{"filename": "../a", "content": ""}]}, 422, None),
        ({"to": [f"r{n}@there.test" for n in range(1001)]}, 422, "/to"),
        ({"raw": base64.b64encode(b"From: a@acme.test\r\n\r\nx").decode()}, 422, "/text"),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_is_written(rig, mail, change, status, pointer):
    answer = await rig.ask("POST", "/v1/send", mail | change)
    told = answer.json()
    assert answer.status == status == told["status"] and answer.headers["content-type"] == "application/problem+json"
    assert told["type"].startswith("urn:postroad:problem:") and told["detail"]
    assert pointer is None or told["errors"][0]["pointer"] == pointer, told
    assert not rig.log.records[SUBMISSIONS]


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"\xff", b'{"to":' + b"[" * 100_000, b"null", b'{"from":"\\ud800@acme.test"}']
)
async def test_bodies_that_are_none(rig, raw):
    assert (await rig.ask("POST", "/v1/send", raw=raw)).status in (400, 422)


async def test_kafka_or_the_store_away_is_503_and_nothing_is_said_to_be_accepted(rig, mail):
    rig.log.away = True
    answer = await rig.ask("POST", "/v1/send", mail)
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")


async def test_broadcasts_have_their_lane(rig, mail):
    assert (await rig.ask("POST", "/v1/send", mail | {"stream": "broadcast"})).status == 202
    assert len(rig.log.records[BROADCASTS]) == 1


async def test_attachments_are_stored_once(rig, mail):
    data = bytes(range(256)) * 2_000
    file = {"filename": "a.bin", "content": base64.b64encode(data).decode()}
    for _ in range(2):
        assert (await rig.ask("POST", "/v1/send", mail | {"attachments": [file, file]})).status == 202
    form = _form(json.dumps(mail).encode(), [("a.bin", data)])
    assert (await rig.ask("POST", "/v1/send", raw=form, kind="multipart/form-data; boundary=XX")).status == 202
    reference = f"sha256:{hashlib.sha256(data).hexdigest()}"
    contents = [one["content"] for sent in rig.log.values(SUBMISSIONS) for one in sent["attachments"]]
    assert contents == [reference] * 5 and await rig.contents.get_blob(reference) == data
    assert len([path for path in (rig.folder / "content").rglob("*") if path.is_file()]) == 1


def _form(message, files, boundary=b"XX"):
    parts = [b'Content-Disposition: form-data; name="message"\r\n\r\n' + message]
    parts += [
        b'Content-Disposition: form-data; name="attachments"; filename="' + name.encode() + b'"\r\nContent-Type: text/plain\r\n\r\n' + data
        for name, data in files
    ]  # fmt: skip
    return b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + boundary + b"--\r\n"


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"--XX", b"--XX\r\n\r\n\r\n--XX--\r\n", b"junk", _form(b"{}", [])[:-6], _form(b"{", [("a", b"b")]),
        b'--XX\r\nContent-Disposition: form-data; name="other"\r\n\r\nx\r\n--XX--\r\n',
        b"--XX\r\n" + b"A: b\r\n" * 1_000 + b"\r\nx\r\n--XX--\r\n", b"--XX\r\nA" + b"a" * 100_000,
        _form(b"{}", [("a", b"")] * 101),
    ],
)  # fmt: skip
async def test_forms_that_are_none(rig, raw):
    answer = await rig.ask("POST", "/v1/send", raw=raw, kind="multipart/form-data; boundary=XX")
    assert answer.status in (400, 413, 422) and not rig.log.records[SUBMISSIONS], answer.body


async def test_other_media_types_and_sizes(rig, mail):
    assert (await rig.ask("POST", "/v1/send", mail, kind="text/xml")).status == 415
    assert (await rig.ask("POST", "/v1/send", mail, headers={"content-length": str(1 << 40)})).status == 413
    big = {"attachments": [{"filename": "a", "content": base64.b64encode(bytes(26 << 20)).decode()}]}
    assert (await rig.ask("POST", "/v1/send", mail | big)).status == 413
    assert (await rig.ask("POST", "/v1/send", mail | {"text": "x" * (8 << 20)})).status == 413


async def test_a_large_raw_message_goes_by_reference(rig):
    raw = b"From: ann@acme.test\r\nSubject: x\r\n\r\n" + b"x" * 70 * 80_000
    answer = await rig.ask("POST", "/v1/send", {"to": "b@there.test", "raw": base64.b64encode(raw).decode()})
    assert answer.status == 202, answer.body
    (submission,) = rig.log.values(SUBMISSIONS)
    assert submission["raw"] is None and await rig.contents.get_blob(submission["raw_blob"]) == raw


# -- Idempotency-Key ---------------------------------------------------------------------------------------------------


async def test_same_key_same_answer_on_every_replica_and_one_mail(rig, mail):
    other = application(rig.replica(), all_routes())
    asked = [
        rig.ask("POST", "/v1/send", mail, headers={"Idempotency-Key": "k"}, app=app) for app in (rig.app, other) * 5
    ]
    answers = await asyncio.gather(*asked)
    assert {one.status for one in answers} == {202} and len({one.body for one in answers}) == 1
    assert len(rig.log.records[SUBMISSIONS]) == 1
    conflict = await rig.ask("POST", "/v1/send", mail | {"text": "other"}, headers={"Idempotency-Key": "k"}, app=other)
    assert (conflict.status, conflict.json()["type"]) == (409, "urn:postroad:problem:idempotency-conflict")
    foreign = mail | {"from": "a@other.test"}
    assert (
        await rig.ask("POST", "/v1/send", foreign, headers={"Idempotency-Key": "k"}, key=rig.stranger)
    ).status == 202


async def test_a_key_is_free_after_a_day(rig, mail):
    first = await rig.ask("POST", "/v1/send", mail, headers={"Idempotency-Key": "k"})
    rig.log.now += 86_400_000
    second = await rig.ask("POST", "/v1/send", mail, headers={"Idempotency-Key": "k"})
    assert (first.status, second.status) == (202, 202) and first.body != second.body


@pytest.mark.parametrize("stored", [True, False])
async def test_what_a_killed_gateway_began_is_found_or_done(rig, mail, stored):
    answer = await rig.ask("POST", "/v1/send", mail, headers={"Idempotency-Key": "k"})
    await asyncio.sleep(0)
    steps = rig.log.records[IDEMPOTENT_USES]
    assert [value["step"] for _, value, _ in steps] == ["claim", "answer"]
    del steps[1:]
    rig.log.heard.clear()
    if not stored:
        rig.log.records[SUBMISSIONS].clear()
    reborn = rig.replica()
    for _, value, record in steps:
        rig.log.heard[IDEMPOTENT_USES][0](record, value)
    rig.log.now += 31_000
    again = await rig.ask(
        "POST", "/v1/send", mail, headers={"Idempotency-Key": "k"}, app=application(reborn, all_routes())
    )
    assert again.status == 202 and len(rig.log.records[SUBMISSIONS]) == 1
    assert again.json()["submission_id"] == answer.json()["submission_id"]
    assert (again.body == answer.body) is stored
