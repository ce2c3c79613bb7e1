import math
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.sql import bind, literal, read_json_compact, statements, without_literals

HOSTILE = [
    "'",
    "\\",
    "\\'",
    "' OR 1 = 1 --",
    "a\0b",
    "\n\r\t\b\f\v\a",
    "{tenant:String}",
    "%(x)s",
    "%",
    "'; DROP TABLE events; --",
    "’‘",
    "🙂",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_comes_back_as_it_was(empty, text):
    empty.create_database()
    sql = "SELECT {a:String} AS a, length({a:String}) AS n, {list:Array(String)} AS list"
    found = empty.query(sql, {"a": text, "list": [text, "x"]}).dicts()
    assert found == [{"a": text, "n": len(text.encode()), "list": found[0]["list"]}]
    assert list(found[0]["list"]) == [text, "x"]


def test_many_texts_come_back_as_they_were(empty):
    empty.create_database()

    @settings(max_examples=40, deadline=None)
    @given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
    def there_and_back(text):
        assert empty.query("SELECT {a:String}", {"a": text}).rows == [(text,)]

    there_and_back()


def test_values_of_other_types(empty):
    empty.create_database()
    when = datetime(2026, 3, 1, 12, 0, 1, tzinfo=UTC)
    sql = "SELECT {i:Int64} AS i, {u:UInt64} AS u, {f:Float64} AS f, {t:DateTime} AS t, {l:Array(UInt16)} AS l, toDate({t:DateTime}) AS d"
    (found,) = empty.query(sql, {"i": -(2**63), "u": 2**64 - 1, "f": 0.25, "t": when, "l": [1, 500]}).dicts()
    assert (found["i"], found["u"], found["f"], found["t"], list(found["l"])) == (
        -(2**63),
        2**64 - 1,
        0.25,
        when,
        [1, 500],
    )
    assert found["d"] == when.date()
    assert math.isnan(empty.query("SELECT 0 / 0").rows[0][0])


@pytest.mark.parametrize(
    ("value", "kind"),
    [("1", "UInt8"), (256, "UInt8"), (-1, "UInt64"), (True, "UInt8"), (1, "String"), (math.inf, "Float64"), ("2026", "DateTime"),
     (datetime(2026, 1, 1), "DateTime"), ("\ud800", "String"), (None, "String"), (["a", 1], "Array(String)"), ("x", "Nonsense")],
)  # fmt: skip
def test_a_value_of_the_wrong_type_is_refused(value, kind):
    with pytest.raises(ValueError):
        literal(value, kind)


def test_parameters_are_checked_by_name():
    with pytest.raises(ValueError, match="tenent"):
        bind("SELECT {tenant:String}", {"tenent": "x"})
    with pytest.raises(ValueError, match=r"tenant .* missing"):
        bind("SELECT {tenant:String}")
    with pytest.raises(ValueError, match="parameter tenant"):
        bind("SELECT {tenant:String}", {"tenant": 1})


def test_statements_end_at_semicolons_that_are_not_quoted():
    text = "-- a; b\nSELECT ';' AS `x;y`; /* ; */ SELECT 'it''s \\'; --' ;\n;"
    assert statements(text) == ["SELECT ';' AS `x;y`", "SELECT 'it''s \\'; --'"]


def test_without_literals_keeps_what_is_not_text():
    assert without_literals("SELECT 'a -- b', \"file\"(1) -- file('x')").strip() == "SELECT '', \"file\"(1)"


def test_an_empty_answer_has_no_rows():
    assert read_json_compact(b"").rows == []
