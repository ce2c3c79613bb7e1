"""Files of mails: what is sent, what is refused and told, and that a killed process leaves nothing half done."""

import asyncio
import json
from types import SimpleNamespace

import pytest

from gateway import batch, jobs
from gateway.accept import Acceptor
from gateway.api.batch import maker
from gateway.inbound import Unavailable
from gateway.jobs import Jobs
from topics.catalogue import BROADCASTS, JOBS, SUBMISSIONS

TEMPLATE = {"from": "news@acme.test", "subject": "Hi {{First}}", "text": "Code {{code}}", "stream": "broadcast"}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(jobs, "LOOK_S", 0.001)
    monkeypatch.setattr(batch, "TELL_S", 0.0)
    monkeypatch.setattr(batch, "AGAIN_S", 0.001)


def _form(message, file, kind):
    parts = [b'Content-Disposition: form-data; name="message"\r\n\r\n' + json.dumps(message).encode()]
    parts.append(
        b'Content-Disposition: form-data; name="recipients"; filename="f"\r\nContent-Type: '
        + kind.encode()
        + b"\r\n\r\n"
        + file
    )
    return b"".join(b"--XX\r\n" + part + b"\r\n" for part in parts) + b"--XX--\r\n"


async def _post(rig, message, file, kind="text/csv"):
    answer = await rig.ask(
        "POST", "/v1/send/batch", raw=_form(message, file, kind), kind="multipart/form-data; boundary=XX"
    )
    assert answer.status == 202, answer.body
    return answer.json()["job_id"]


def _worker(rig, name, acceptor=None):
    """A process that runs jobs; told of all steps so far and to come."""
    known = Jobs(name, rig.log, rig.log)
    for _, value, record in rig.log.records[JOBS]:
        known.hear(record, value)
    rig.log.heard[JOBS].append(known.hear)
    make = maker(rig.tenants, lambda: rig.log.now, rig.settings.size_max)
    runs = batch.Batch(
        rig.contents, acceptor or Acceptor(rig.log, rig.contents), rig.door.lookup, make, rig.folder / "spool"
    )
    return asyncio.create_task(jobs.work(known, runs.run, lambda: rig.log.now))


async def _ended(rig, id):
    async with asyncio.timeout(10):
        while rig.door.jobs.states[id].ended is None:
            await asyncio.sleep(0.002)
    return (await rig.ask("GET", f"/v1/jobs/{id}")).json()


async def _stop(task):
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _people(number):
    return b"Email,First,code\r\n" + b"".join(b"r%d@there.test,R%d,%d\r\n" % (n, n, n) for n in range(number))


async def test_a_csv_becomes_mails_with_variables(rig):
    id = await _post(rig, TEMPLATE, _people(450))
    worker = _worker(rig, "w1")
    found = await _ended(rig, id)
    await _stop(worker)
    sent = rig.log.values(BROADCASTS)
    assert (found["state"], found["read"], found["accepted"], found["refused"]) == ("done", 451, 450, 0)
    assert [len(one["recipients"]) for one in sent] == [200, 200, 50] and len(
        {one["submission_id"] for one in sent}
    ) == 3
    assert sent[2]["recipients"][49] == {
        "address": "r449@there.test",
        "name": "",
        "kind": "to",
        "variables": {"First": "R449", "code": "449"},
    }


async def test_lines_that_are_wrong_are_told_with_their_numbers(rig):
    file = b'to,First\r\na@there.test,A\r\nnobody,B\r\nc@there.test\r\n"d@there.test,D\r\ne@there.test,=1+1\r\n,F\r\n\xff@there.test,G\r\n'
    id = await _post(rig, TEMPLATE | {"text": "x"}, file)
    worker = _worker(rig, "w1")
    found = await _ended(rig, id)
    await _stop(worker)
    assert (found["state"], found["accepted"], found["refused"]) == ("done", 2, 5)
    answer = await rig.ask("GET", f"/v1/jobs/{id}/refusals")
    refusals = [json.loads(line) for line in answer.body.splitlines()]
    assert sorted(one["line"] for one in refusals) == [3, 4, 5, 7, 8] and all(one["reason"] for one in refusals)
    assert answer.headers["content-type"].startswith("application/x-ndjson")


async def test_ndjson_is_a_mail_a_line(rig, mail):
    lines = [
        json.dumps(mail),
        "",
        "{",
        json.dumps(mail | {"from": "a@elsewhere.test"}),
        json.dumps(mail | {"stream": "broadcast"}),
        "[1]",
        "\u2028",
    ]
    answer = await rig.ask("POST", "/v1/send/batch", raw="\n".join(lines).encode(), kind="application/x-ndjson")
    worker = _worker(rig, "w1")
    found = await _ended(rig, answer.json()["job_id"])
    await _stop(worker)
    assert (found["accepted"], found["refused"], found["read"]) == (4, 4, 7)
    assert (len(rig.log.records[SUBMISSIONS]), len(rig.log.records[BROADCASTS])) == (1, 1)


async def test_ndjson_with_a_message_says_what_is_different(rig):
    lines = b'{"to": "a@there.test", "variables": {"First": "A", "code": "1"}}\n{"to": "b@there.test", "send_at": "2026-12-24T18:00:00Z"}'
    id = await _post(rig, TEMPLATE, lines, "application/x-ndjson")
    worker = _worker(rig, "w1")
    assert (await _ended(rig, id))["accepted"] == 2
    await _stop(worker)
    assert rig.log.values(BROADCASTS)[1]["send_at"] == 1_798_135_200_000


@pytest.mark.parametrize("seed", range(5))
async def test_killed_anywhere_it_goes_on_and_sends_nothing_twice(rig, monkeypatch, seed):
    monkeypatch.setattr(batch, "LINES", 3)
    id = await _post(rig, TEMPLATE, _people(60) + b"wrong\r\n" * 3)
    left = [1 + 4 * seed]

    class Dying:
        """Writes some, then the process is gone: nobody hears the answer of the last."""

        async def write(self, submission):
            left[0] -= 1
            place = await Acceptor(rig.log, rig.contents).write(submission)
            if left[0] <= 0:
                await asyncio.sleep(3600)
            return place

    first = _worker(rig, "w1", Dying())
    async with asyncio.timeout(10):
        while left[0] > 0:
            await asyncio.sleep(0.002)
    await _stop(first)
    second = _worker(rig, "w2")
    await asyncio.sleep(0.02)
    assert rig.door.jobs.states[id].owner == "w1", "its lease holds"
    rig.log.now += jobs.LEASE_MS
    found = await _ended(rig, id)
    await _stop(second)
    sent = rig.log.values(BROADCASTS)
    assert (found["state"], found["accepted"], found["refused"]) == ("done", 60, 3)
    assert sorted(to["address"] for one in sent for to in one["recipients"]) == sorted(
        f"r{n}@there.test" for n in range(60)
    )


async def test_what_a_frozen_process_says_later_counts_no_more(rig):
    id = await _post(rig, TEMPLATE, _people(1))
    states = rig.door.jobs
    step = {"job_id": id, "tenant": "acme"}

    async def say(**more):
        await rig.log.send(JOBS, {**step, **more})

    await say(step="claimed", by="w1")
    await say(step="claimed", by="w2")
    assert states.states[id].owner == "w1"
    rig.log.now += jobs.LEASE_MS
    await say(step="claimed", by="w2")
    await say(step="progressed", by="w1", lines=9)
    await say(step="ended", by="w1", outcome="done")
    assert (states.states[id].owner, states.states[id].far, states.states[id].ended) == ("w2", None, None)


async def test_kafka_away_for_a_while_costs_time_only(rig):
    id = await _post(rig, TEMPLATE, _people(10))
    away = [3]

    class Away:
        async def write(self, submission):
            away[0] -= 1
            if away[0] >= 0:
                raise Unavailable("away")
            return await Acceptor(rig.log, rig.contents).write(submission)

    worker = _worker(rig, "w1", Away())
    assert (await _ended(rig, id))["accepted"] == 10
    await _stop(worker)
    assert len(rig.log.records[BROADCASTS]) == 1


async def test_cancelled_and_failed_are_said(rig):
    id, lost = await _post(rig, TEMPLATE, _people(10)), await _post(rig, TEMPLATE, _people(11))
    assert (await rig.ask("POST", f"/v1/jobs/{id}/cancel")).status == 202
    assert (await rig.ask("GET", f"/v1/jobs/{id}")).json()["cancelling"] is True
    blob = rig.door.jobs.states[lost].created["input"].removeprefix("sha256:")
    (rig.folder / "content" / "blobs" / blob[:2] / blob).unlink()
    worker = _worker(rig, "w1")
    assert (await _ended(rig, id))["state"] == "cancelled"
    failed = await _ended(rig, lost)
    await _stop(worker)
    assert failed["state"] == "failed" and "not in the content store" in failed["error"]
    assert not rig.log.records[BROADCASTS]
    assert (await rig.ask("POST", f"/v1/jobs/{id}/cancel")).status == 409


@pytest.mark.parametrize(
    ("message", "kind", "status"),
    [({**TEMPLATE, "to": "a@b.test"}, "text/csv", 422), (TEMPLATE, "text/html", 422), ({"x": 1}, "text/csv", 422), ({**TEMPLATE, "text": "x" * (600 << 10)}, "text/csv", 413)],
)  # fmt: skip
async def test_what_is_no_batch(rig, message, kind, status):
    answer = await rig.ask(
        "POST", "/v1/send/batch", raw=_form(message, b"to\r\n", kind), kind="multipart/form-data; boundary=XX"
    )
    assert answer.status == status, answer.body
    assert not rig.log.records[JOBS]


async def test_jobs_are_listed_newest_first(rig):
    ids = [await _post(rig, TEMPLATE, _people(1)) for _ in range(3)]
    first = (await rig.ask("GET", "/v1/jobs?limit=2")).json()
    rest = (await rig.ask("GET", f"/v1/jobs?limit=2&cursor={first['next']}")).json()
    assert [one["job_id"] for one in first["jobs"] + rest["jobs"]] == ids[::-1] and rest["next"] is None


def test_forgets_what_is_over():
    known = Jobs("w", None)
    known.hear(SimpleNamespace(timestamp=1), {"job_id": "j", "tenant": "t", "step": "created"})
    known.forget(jobs.KEPT_MS)
    assert "j" in known.states
    known.forget(jobs.KEPT_MS + 1)
    assert not known.states
