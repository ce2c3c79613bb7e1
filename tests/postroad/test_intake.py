"""From a submission to messages; a tenant's quotas."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad import budget
from postroad.content import MemoryContents
from postroad.intake import Use, build, distinct, message, sender_domain, take_place, written
from postroad.returnpath import ReturnPaths

NOW = 1_700_000_000_000
DAY_MS = 86_400_000
RETURN_PATHS = ReturnPaths([b"a secret"])
TENANT = {"tenant": "t", "domains": [{"domain": "acme.test", "return_path": "b.acme.test"}]}


def submission(*recipients, **fields):
    return {
        "tenant": "t", "submission_id": "s", "sender": {"address": "a@acme.test"}, "text": "hi",
        "recipients": [{"address": address} for address in recipients], **fields,
    }  # fmt: skip


def made(given, tenant=TENANT, **fields):
    settings = {"accepted_at": NOW, "place": "0:1", "expires_ms": 1000, "return_paths": RETURN_PATHS, **fields}
    return [message(given, tenant, recipient, **settings) for recipient in distinct(given["recipients"])]


async def built(given, store=None, size_max=1 << 20):
    found = []
    await build(given, made(given), store or MemoryContents(), size_max, found)
    return found


def test_the_form_of_an_address_that_keys_lists():
    assert written("Jörg@Bücher.TEST") == "Jörg@xn--bcher-kva.test"
    assert written("not an address") == "not an address"


def test_first_mention_of_an_address_counts():
    people = [{"address": "A@there.test", "name": "one"}, {"address": "a@THERE.test", "name": "two"}]
    assert distinct(people) == people[:1]
    assert distinct([]) == []


@given(st.lists(st.sampled_from(["a@x.test", "A@X.test", "b@x.test", "bad", "BAD", ""]), max_size=12))
def test_distinct_keeps_order_and_each_address(addresses):
    found = [recipient["address"] for recipient in distinct([{"address": a} for a in addresses])]
    assert [a.lower() for a in found] == list(dict.fromkeys(a.lower() for a in addresses))


def test_sender_domain():
    assert sender_domain("a@Bücher.test") == "xn--bcher-kva.test"
    assert sender_domain("nobody") == ""


def test_message_of_a_known_and_of_an_unknown_tenant():
    (own,) = made(submission("r@there.test"))
    assert own["return_path"] == RETURN_PATHS.sign(own["message_id"], "b.acme.test")
    (foreign,) = made(submission("r@there.test"), None)
    assert foreign["return_path"].endswith("@acme.test")
    (unsent,) = made(submission("r@there.test"), return_paths=None)
    assert unsent["return_path"] == ""


def test_expiry_counts_from_the_time_that_the_mail_may_go():
    assert made(submission("r@there.test"))[0]["expires_at"] == NOW + 1000
    assert made(submission("r@there.test", send_at=NOW + 5))[0]["expires_at"] == NOW + 1005
    assert made(submission("r@there.test", send_at=NOW - 5))[0]["expires_at"] == NOW + 1000
    assert made(submission("r@there.test", expires_at=NOW + 1))[0]["expires_at"] == NOW + 1


async def test_build_puts_a_problem_where_it_is_and_not_beside_it():
    given = submission(text="Dear {{name}}", recipients=[
        {"address": "a@there.test", "variables": {"name": "Ann"}}, {"address": "b@there.test", "variables": {"x": "y"}},
        {"address": "c@there.test", "variables": {"name": "Cay"}},
    ])  # fmt: skip
    first, second, third = await built(given)
    assert first.problem is third.problem is None
    assert (second.problem.reason, second.problem.rule) == ("missing-variable", "name")
    assert b"Dear Cay" in third.content["inline"]


async def test_build_is_the_same_the_next_time():
    given = submission("a@there.test", "b@there.test", stream="broadcast", html="<p>hi</p>")
    assert await built(given) == await built(given)


def rules(found):
    return {one.problem and (one.problem.reason, one.problem.rule) for one in found}


def merged(number, **fields):
    given = submission(*(f"r{n}@there.test" for n in range(number)), **fields)
    for recipient in given["recipients"]:
        recipient["variables"] = {"a": "x" * 20_000}
    return given


class Untouched(MemoryContents):
    """A store that nothing is written to."""

    async def put(self, data):
        raise AssertionError("built before its size was looked at")


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"text": "{{a}}" * 1000}, "size"),
        ({"html": "{{a}}" * 1000}, "size"),
        ({"subject": "{{a}}" * 1000}, "size"),
        ({"text": "{{a}}" * 1001}, "placeholders"),
        ({"subject": "{{a}}"}, "subject"),
        ({"text": "{{a}}" + "x" * (1 << 20)}, "size"),
        ({"attachments": [{"filename": "a", "content": b"x" * (800 << 10)}]}, "size"),
        ({"attachments": [{"filename": "a", "content": b"x" * 1000}] * 800}, "size"),
    ],
)
async def test_what_would_be_too_large_is_not_built(fields, rule):
    assert rules(await built(merged(2, **fields), Untouched())) == {("content", rule)}


async def test_escapes_count():
    given = merged(1, text=None, html="{{a}}" * 60)
    assert rules(await built(given, size_max=2 << 20)) == {None}
    given["recipients"][0]["variables"]["a"] = "&" * 20_000
    assert rules(await built(given, Untouched(), size_max=2 << 20)) == {("content", "size")}


async def test_one_blob_named_many_times():
    store = Untouched()
    reference = await store.put_blob(b"x" * 100_000)
    given = submission("r@there.test", attachments=[{"filename": "f", "content": reference}] * 60)
    assert rules(await built(given, store)) == {("content", "size")}
    assert store.read <= 2


async def test_own_contents_have_a_bound_in_all(monkeypatch):
    monkeypatch.setattr(budget, "OWN_CONTENTS_MAX", 1 << 20)
    files = [{"filename": "a.pdf", "content": b"x" * 300_000}]
    assert rules(await built(merged(2, attachments=files))) == {None}
    assert rules(await built(merged(3, attachments=files), Untouched())) == {("content", "own-contents")}
    shared = submission(*(f"r{n}@there.test" for n in range(3)), attachments=files)
    assert rules(await built(shared)) == {None}, "one content for all"


async def test_the_one_too_large_does_not_stop_the_others():
    given = merged(2, text="{{a}}" * 10)
    given["recipients"][0]["variables"] = {"a": "x" * 200_000}
    first, second = await built(given)
    assert first.problem.rule == "size" and second.problem is None


def places(tenant, times):
    use, found = None, []
    for now in times:
        due, use = take_place(use, now, tenant)
        found.append(due)
    return found


def test_no_quota_no_wait():
    assert places({"tenant": "t"}, [NOW] * 1000) == [NOW] * 1000


@given(st.lists(st.integers(0, 3 * DAY_MS), min_size=1, max_size=60), st.integers(1, 5), st.integers(1, 5))
def test_quotas_hold_together(times, per_day, per_second):
    times = sorted(NOW + time for time in times)
    found = places({"tenant": "t", "quota_per_day": per_day, "quota_per_second": float(per_second)}, times)
    assert all(due >= now for due, now in zip(found, times, strict=True))
    days = [due // DAY_MS for due in found]
    # A place that the day gives and the second moves may slip over midnight: one burst of a second at most
    assert all(days.count(day) <= per_day + per_second for day in days)


def test_half_a_message_a_second():
    assert places({"tenant": "t", "quota_per_second": 0.5}, [NOW] * 3) == [NOW, NOW + 2000, NOW + 4000]


def test_use_starts_empty():
    assert take_place(None, NOW, {"tenant": "t", "quota_per_day": 3}) == (NOW, Use(0.0, NOW // DAY_MS, 1))
