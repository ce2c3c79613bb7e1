"""The report: right figures from both engines, one page that loads and runs nothing, whoever wrote the names in it."""

import itertools
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest
from event_rows import NOON_MS, event, rows

from analytics import queries
from analytics.clickhouse import connect
from analytics.migrate import migrate
from analytics.report import gather, page
from analytics.report.charts import heat_class, spread
from analytics.report.facts import floor, step_of
from analytics.report.text import lasting, percent, shown
from analytics.rollups import rebuild
from analytics.sink import Sink

NOON = datetime.fromtimestamp(NOON_MS / 1000, UTC)
HOUR = timedelta(hours=1)
_numbers = itertools.count(1)
HOSTILE = [
    "<script>alert(1)</script>", "\"><img src=x onerror='alert(1)'>", "</svg></style><script>alert(2)</script>", "&lt;b&gt;&#60;i&#62;",
    "$\\frac{1}{0}$ $_^", "turn\u202eed", "line\r\nbreak\x1b[31m\x00", "]]><!-- --><![CDATA[", "x" * 3000, "漢字 ✉️ עברית", "javascript:alert(3)",
    "url(http://evil.test/x)", "#010101 var(--x); fill: #010102",
]  # fmt: skip
ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "p", "ul", "li", "b", "span", "bdi", "i", "section", "div", "table",
    "caption", "thead", "tbody", "tr", "th", "td", "details", "summary", "figure", "code", "svg", "desc", "defs", "g", "path", "use", "text",
    "clippath", "rect",
}  # fmt: skip
VOID = {"meta"}


@pytest.fixture
def one_engine(chdb_url):
    """What a page says does not depend on the engine."""
    warehouse = connect(chdb_url, f"report_{next(_numbers)}")
    migrate(warehouse)
    yield warehouse
    warehouse.close()


def load(warehouse, events):
    sink = Sink(warehouse, "g")
    sink.recover({0: 0})
    sink.write(rows(events))
    for day in {datetime.fromtimestamp(one["at"] / 1000, UTC).date() for one in events}:
        rebuild(warehouse, day)


def life(message, kind="delivered", after_ms=1000, **fields):
    """A message that was accepted and ended."""
    own = {key: fields[key] for key in ("tenant", "accepted_at") if key in fields}
    return [
        event(message, **own),
        event(message, kind, after_ms, **{"attempt": 1, "site": "gmail", "source": "s1"} | fields),
    ]


def some_mail():
    return [
        *(one for n in range(30) for one in life(f"d{n}", after_ms=500 + n)),
        *(one for n in range(12) for one in life(f"b{n}", "bounced", site="ferry", reason="user-unknown", reply="550 who?", enhanced_code="5.1.1")),
        *life("late", after_ms=3_600_000, tenant="other", source="s2"),
        event("w1"), event("w1", "deferred", 5000, attempt=1, site="ferry", source="s1", reason="greylisted", reply="451 wait"),
        event("d1", "complained", 7_200_000, site="gmail", source="s1", reason="abuse", evidence="r1"),
    ]  # fmt: skip


def report(warehouse, since=NOON - 6 * HOUR, until=NOON + 6 * HOUR, tenant=""):
    return gather(warehouse, since, until, tenant)


class Seen(HTMLParser):
    """Tags, attributes and text of a page; whether each tag is closed in its turn."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def harmless(text):
    """Checks that a page loads, runs and refers to nothing else, and gives what it shows."""
    seen = Seen(text)
    assert set(seen.tags) <= ALLOWED
    assert not [
        key
        for key, _ in seen.attributes
        if key.startswith("on") or key in ("src", "srcset", "action", "formaction", "data")
    ]
    assert all(value.startswith("#") for key, value in seen.attributes if key.endswith("href"))
    assert all(
        found.startswith("#") for found in re.findall(r"url\((.*?)\)", "".join(v or "" for _, v in seen.attributes))
    )
    assert "@import" not in text
    ids = [value for key, value in seen.attributes if key == "id"]
    assert len(ids) == len(set(ids))
    meant = {one for key, value in seen.attributes if key == "aria-labelledby" for one in value.split()}
    meant |= {value[1:] for key, value in seen.attributes if key.endswith("href")}
    assert meant <= set(ids)
    return "".join(seen.text)


def test_figures_of_both_engines(warehouse):
    load(warehouse, some_mail())
    facts = report(warehouse)
    assert (facts.since, facts.until, facts.step, len(facts.volumes)) == (NOON - 6 * HOUR, NOON + 6 * HOUR, HOUR, 12)
    assert [(row["at"], row["delivered"]) for row in facts.volumes if row["delivered"]] == [
        (NOON, 30),
        (NOON + HOUR, 1),
    ]
    assert (facts.total("accepted"), facts.total("bounced"), facts.total("deferred"), facts.total("complained")) == (
        44,
        12,
        1,
        1,
    )
    assert facts.ended == 43 and facts.conservation[0]["in_flight"] == 1
    assert sum(row["deliveries"] for row in facts.distribution) == 31
    assert all(row["from_ms"] < row["below_ms"] <= row["from_ms"] * 33 / 32 + 1 for row in facts.distribution)
    (slowest,) = (row for row in facts.distribution if row["from_ms"] <= 3_600_000 < row["below_ms"])
    assert slowest["deliveries"] == 1


def test_a_page_in_plain_words(one_engine):
    load(one_engine, some_mail())
    written = page(report(one_engine))
    text = harmless(written)
    for told in (
        "Mail report: all tenants", "Of 43 messages that ended, 31 were delivered; 12 bounced.", "did not arrive was user-unknown (12)",
        "ferry stands out among sites: 100\u202f% of 12", "The books balance", "550 who?", "451 wait",
    ):  # fmt: skip
        assert told in text
    assert written.count('role="img"') == 2 * 7  # each chart for wide and for narrow pages
    assert page(report(one_engine)) == written  # equal data, equal text


def test_one_tenant(one_engine):
    load(one_engine, some_mail())
    facts = report(one_engine, tenant="other")
    assert facts.ended == facts.total("accepted") == 1 and facts.total("bounced") == 0
    text = harmless(page(facts))
    assert "Mail report: tenant other" in text and "shop" not in text and "ferry" not in text


def test_no_mail_at_all(one_engine):
    text = harmless(page(report(one_engine, tenant="nobody")))
    assert "No mail was accepted or ended in this time." in text and "Nothing was delivered." in text


def test_books_that_do_not_balance_are_told(one_engine):
    load(
        one_engine,
        [*some_mail(), event("d1", "bounced", 4000, attempt=2, site="gmail"), event("ghost", "bounced", 10, attempt=1)],
    )
    assert "The books do not balance: 1 messages have two ends, 1 ended but were never accepted." in harmless(
        page(report(one_engine))
    )


def test_hostile_text_stays_text(one_engine):
    """In sites, reasons, replies, sources and tenants: nothing becomes a tag, an attribute or a style."""
    events = []
    for n, bad in enumerate(HOSTILE):
        events += [
            *life(f"b{n}", "bounced", tenant=bad, site=bad, reason=bad, reply=bad, source=bad, enhanced_code=bad),
            *life(f"d{n}", tenant=bad, site=bad, source=bad),
            event(f"w{n}", "deferred", 5000, attempt=1, tenant=bad, site=bad, source=bad, reason=bad, reply=bad),
        ]
    load(one_engine, events)
    text = page(report(one_engine))
    shown_text = harmless(text)
    assert "<script>alert(1)</script>" in shown_text and "&lt;b&gt;&#60;i&#62;" in shown_text
    assert not re.search("[\u202e\x1b\x00]", text) and "x" * 200 not in text
    own = report(one_engine, tenant=HOSTILE[0])
    assert own.ended == 2 and HOSTILE[0] in harmless(page(own))


def test_window_is_whole_hours_and_not_empty(one_engine):
    load(one_engine, some_mail())
    facts = report(one_engine, NOON - timedelta(minutes=1), NOON + timedelta(minutes=1))
    assert (facts.since, facts.until) == (NOON - HOUR, NOON + HOUR) and facts.ended == 42
    for since, until in ((NOON, NOON), (NOON, NOON - HOUR), (NOON - timedelta(days=400), NOON)):
        with pytest.raises(ValueError, match="a report is over at least an hour"):
            report(one_engine, since, until)


def test_volumes_by_hour_counts_messages_once(warehouse):
    sink_twice = some_mail()
    load(warehouse, sink_twice + sink_twice[:10])  # a stage that crashed tells again
    (first, second, third) = queries.run(warehouse, "volumes_by_hour", since=NOON).dicts()
    assert (
        first["hour"].replace(tzinfo=UTC),
        first["accepted"],
        first["delivered"],
        first["bounced"],
        first["deferred"],
    ) == (NOON, 44, 30, 12, 1)
    assert (second["delivered"], third["complained"]) == (1, 1)


@pytest.mark.parametrize(
    ("window", "step"), [(1, 1), (24, 1), (72, 1), (73, 6), (24 * 18, 6), (24 * 18 + 1, 24), (24 * 90, 24)]
)
def test_steps(window, step):
    assert step_of(window * HOUR) == step * HOUR


def test_floor_is_of_utc_days():
    at = datetime.fromisoformat("2026-03-29T03:30:00+02:00")
    assert floor(at, 6 * HOUR) == datetime(2026, 3, 29, tzinfo=UTC)
    assert floor(at, HOUR) == datetime(2026, 3, 29, 1, tzinfo=UTC)


def test_spread_keeps_every_delivery():
    edges, shares = spread(
        [{"from_ms": 0, "below_ms": 1, "deliveries": 2}, {"from_ms": 1000, "below_ms": 1024, "deliveries": 6}]
    )
    assert sum(shares) == pytest.approx(100) and len(edges) == len(shares) + 1
    assert sum(s for e, s in zip(edges, shares, strict=False) if e > 500) == pytest.approx(75)


@pytest.mark.parametrize(
    ("delivered", "bounced", "role"),
    [
        (9, 0, "heat-none"),
        (10, 0, "heat-0"),
        (99, 1, "heat-1"),
        (98, 2, "heat-2"),
        (95, 5, "heat-3"),
        (80, 20, "heat-4"),
        (0, 50, "heat-4"),
    ],
)
def test_heat(delivered, bounced, role):
    assert heat_class({"delivered": delivered, "bounced": bounced, "expired": 0}) == role


def test_words():
    assert [percent(part, 10_000) for part in (0, 1, 9999, 10_000, 968)] == [
        "0\u202f%",
        "< 0.1\u202f%",
        "> 99.9\u202f%",
        "100\u202f%",
        "9.7\u202f%",
    ]
    assert percent(0, 0) == "–"
    assert [lasting(ms) for ms in (0, 999, 1400, 90_000, 7_560_000)] == [
        "0\u202fms",
        "999\u202fms",
        "1.4\u202fs",
        "1.5\u202fmin",
        "2.1\u202fh",
    ]
    assert shown("a\tb\u202ec\ud800") == "a b\ufffdc\ufffd" and len(shown("y" * 500)) == 160
