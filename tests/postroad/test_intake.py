"""From a submission to messages; a tenant's quotas."""

from hypothesis import given
from hypothesis import strategies as st

from postroad.content import MemoryContents
from postroad.intake import Use, build, distinct, message, sender_domain, take_place, written

NOW = 1_700_000_000_000
DAY_MS = 86_400_000
TENANT = {"tenant": "t", "domains": [{"domain": "acme.test", "return_path": "b.acme.test"}]}


def submission(*recipients, **fields):
    return {
        "tenant": "t", "submission_id": "s", "sender": {"address": "a@acme.test"}, "text": "hi",
        "recipients": [{"address": address} for address in recipients], **fields,
    }  # fmt: skip


def made(given, tenant=TENANT, **fields):
    settings = {"accepted_at": NOW, "place": "0:1", "expires_ms": 1000, **fields}
    return [message(given, tenant, recipient, **settings) for recipient in distinct(given["recipients"])]


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
    assert sender_domain(submission(sender={"address": "a@Bücher.test"})) == "xn--bcher-kva.test"
    assert sender_domain(submission(sender={"address": "nobody"})) == ""


def test_message_of_a_known_and_of_an_unknown_tenant():
    (own,) = made(submission("r@there.test"))
    assert own["return_path"] == f"b-{own['message_id']}@b.acme.test"
    (foreign,) = made(submission("r@there.test"), None)
    assert foreign["return_path"].endswith("@acme.test")


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
    first, second, third = await build(given, made(given), MemoryContents())
    assert first.problem is third.problem is None
    assert (second.problem.reason, second.problem.rule) == ("missing-variable", "name")
    assert b"Dear Cay" in third.content["inline"]


async def test_build_is_the_same_the_next_time():
    given = submission("a@there.test", "b@there.test", stream="broadcast", html="<p>hi</p>")
    assert await build(given, made(given), MemoryContents()) == await build(given, made(given), MemoryContents())


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
