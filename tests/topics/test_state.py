"""Views: what a record sees, what is taken back, what is written; expiry; scans. Against a model in a dictionary."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topics.state import EXPIRY_BUCKET_MS, MAX_NUMBER, Memory, Table, View, expiry_bucket, is_expired

NAMES: Table[int] = Table(1, "names", lambda n: b"%d" % n, int)
OTHERS: Table[int] = Table(2, "others", lambda n: b"%d" % n, int)
SEEN: Table[int] = Table(3, "seen", lambda n: b"%d" % n, int, expires=True)
TABLES = {table.number: table for table in (NAMES, OTHERS, SEEN)}


def view(database=None, cache=None):
    return View(TABLES, Memory() if database is None else database, {} if cache is None else cache)


def test_a_record_sees_what_those_before_it_have_kept():
    state = view()
    state.begin()
    state.names.put("a", 1)
    assert state.names.get("a") == 1
    state.keep()
    state.begin()
    assert state.names.get("a") == 1
    assert state.names.get(b"a") == 1, "text keys are UTF-8"
    assert state.others.get("a") is None, "tables are apart"


def test_what_a_failed_record_changed_is_gone():
    state = view()
    state.begin()
    state.names.put("a", 1)
    state.keep()
    state.begin()
    state.names.put("a", 2)
    state.names.put("b", 2)
    state.begin()
    assert (state.names.get("a"), state.names.get("b")) == (1, None)
    assert state.entries() == {b"\x01a": b"1"}


def test_the_cache_shows_a_write_only_when_it_is_durable():
    database, cache = Memory(), {}
    lost = view(database, cache)
    assert lost.names.get("a") is None
    lost.names.put("a", 1)
    lost.keep()
    assert view(database, cache).names.get("a") is None, "its write failed: the next view knows nothing of it"
    done = view(database, cache)
    done.names.put("a", 2)
    done.keep()
    database.write(done.entries())
    done.written()
    assert view(database, cache).names.get("a") == 2
    assert view(database).names.get("a") == 2


def test_large_values_stay_out_of_the_cache():
    large: Table[int] = Table(4, "large", lambda n: b"%d" % n, int, cached=False)
    database, cache = Memory(), {}
    for value in (1, 2):
        state = View({**TABLES, 4: large}, database, cache)
        state.begin()
        state.names.put("a", value)
        state.large.put("a", value)
        state.keep()
        database.write(state.entries())
        state.written()
        assert (state.names.get("a"), state.large.get("a")) == (value, value)
        assert cache == {b"\x01a": value}


def test_deletion_is_a_change_like_any_other():
    database = Memory()
    database.write({b"\x01a": b"1"})
    state = view(database)
    state.names.delete("a")
    assert state.names.get("a") is None
    state.begin()
    assert state.names.get("a") == 1
    state.names.delete("a")
    state.keep()
    assert state.entries() == {b"\x01a": None}


def test_expiry_needs_a_time_and_only_where_it_is_kept():
    state = view()
    with pytest.raises(ValueError, match="expires_at is needed"):
        state.seen.put("a", 1)
    with pytest.raises(ValueError, match="expires_at is not kept"):
        state.names.put("a", 1, expires_at=5)


@given(st.integers(0, 2**40))
def test_an_entry_never_goes_early_and_at_most_a_minute_late(until):
    raw = expiry_bucket(until).to_bytes(4, "big") + b"x"
    assert not is_expired(raw, until - 1)
    assert is_expired(raw, until + EXPIRY_BUCKET_MS)


def test_an_expired_entry_is_not_there_though_nobody_has_deleted_it():
    database, state = Memory(), view()
    state.seen.put("a", 7, expires_at=60_000)
    state.keep()
    database.write(state.entries())
    late = view(database)
    late.now = 59_999
    assert late.seen.get("a") == 7
    assert late.seen.scan() == [(b"a", 7)]
    late.now = 60_000
    assert late.seen.get("a") is None
    assert late.seen.scan() == []


def test_unknown_table_says_what_to_do():
    with pytest.raises(AttributeError, match=r"no table 'nemo' in this stage: name it in Stage\(tables="):
        view().nemo  # noqa: B018 - the look-up is the test


@pytest.mark.parametrize("number", [0, -1, MAX_NUMBER + 1])
def test_table_numbers_leave_room_for_the_stores_own_keys(number):
    with pytest.raises(ValueError, match=r"is not in 1\.\.31"):
        Table(number, "x", bytes, bytes)


KEYS = st.text("abc", max_size=2)
CHANGES = st.lists(st.tuples(KEYS, st.one_of(st.none(), st.integers(0, 9))), max_size=8)


@given(st.lists(st.tuples(CHANGES, st.sampled_from(["keep", "fail", "write"])), max_size=8), KEYS, st.integers(1, 5))
def test_view_is_a_dictionary_with_records_that_fail(records, first, limit):
    """Gets and scans over three layers (record, batch, database) against a plain dictionary."""
    database, cache, model = Memory(), {}, {}
    state = view(database, cache)
    for changes, end in records:
        state.begin()
        tried = dict(model)
        for key, value in changes:
            if value is None:
                state.names.delete(key)
                tried.pop(key, None)
            else:
                state.names.put(key, value)
                tried[key] = value
            assert state.names.get(key) == value
        expected = sorted((k.encode(), v) for k, v in tried.items() if k >= first)[:limit]
        assert state.names.scan(first, limit) == expected
        if end == "fail":
            state.begin()
            continue
        model = tried
        state.keep()
        if end == "write":
            database.write(state.entries())
            state.written()
    assert {key: state.names.get(key) for key in model} == model


@given(
    st.lists(st.dictionaries(st.binary(max_size=2), st.one_of(st.none(), st.binary(max_size=2)))), st.binary(max_size=2)
)
def test_memory_is_an_ordered_database(writes, first):
    database, model = Memory(), {}
    for entries in writes:
        database.write(entries)
        for key, value in entries.items():
            model.pop(key, None) if value is None else model.update({key: value})
    assert list(database.items(first, 3)) == sorted((k, v) for k, v in model.items() if k >= first)[:3]
    assert {key: database.get(key) for key in model} == model
