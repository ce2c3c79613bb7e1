"""shaping.toml: what holds for a place, shares, faults with line and hint, hostile files, change at run time."""

import math
import os
import time
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroad.retry import RetrySchedule
from postroad.shaping import layers
from postroad.shaping.limits import Limits, TenantLimits, split_float
from postroad.shaping.policy import Policy, ShapingError, Watched, load, parse
from postroad.smtp_timeouts import SmtpTimeouts


def faults(text):
    with pytest.raises(ShapingError) as wrong:
        parse(text, "x.toml")
    return str(wrong.value).splitlines()


@pytest.mark.parametrize(
    ("site", "expected"),
    [
        ("l.google.com", ("google", 5, 50, "required")),
        ("google.com", ("google", 5, 50, "required")),
        ("ALT1.ASPMX.L.Google.com.", ("google", 5, 50, "required")),
        ("am0.yahoodns.net", ("yahoo", 10, 20, "opportunistic")),
        ("olc.protection.outlook.com", ("outlook", 5, 50, "opportunistic")),
        ("mail.protection.outlook.com", ("microsoft365", 5, 50, "opportunistic")),
        ("mail.icloud.com", ("apple", 10, 5, "opportunistic")),
        ("comcast.net", ("comcast", 25, 1000, "required")),
        ("there.test", ("there.test", 10, 100, "opportunistic")),
        ("google.com.there.test", ("google.com.there.test", 10, 100, "opportunistic")),
        ("notgoogle.com", ("notgoogle.com", 10, 100, "opportunistic")),
    ],
)
def test_the_shipped_providers(site, expected):
    policy = load(None)
    limits = policy.limits(site)
    assert (policy.site_of(site), limits.connections, limits.messages_per_connection, limits.tls) == expected
    assert policy.limits(policy.site_of(site)) == limits


def test_the_shipped_defaults_are_those_of_limits():
    assert load(None).limits("there.test") == Limits()


OWN = """
[default]
connections = 7
idle = "2m"
[site.google]
messages_per_second = 3
[site."big"]
hosts = ["*.big.test", "mx.other.test"]
connections = 20
timeouts = {banner = "10s"}
[source.a]
connections = 4
messages_per_day = 1000
timeouts.ehlo = 20
[site.big.source.a]
messages_per_day = "unlimited"
retry.delays = ["1m", "1h"]
[tenant.acme]
messages_per_hour = 100
[tenant.acme.site.big]
messages_per_hour = 10
connections = 1
"""


def test_later_of_default_site_source_and_both_holds():
    policy = parse(OWN, "x.toml", Limits(timeouts=SmtpTimeouts(scale=0.5), retry=RetrySchedule((9,), 0.2)))
    there, big = policy.limits("there.test"), policy.limits("mx.big.test")
    assert (there.connections, there.idle_s, there.per_second) == (7, 120, 100)
    assert (policy.limits("l.google.com").per_second, policy.limits("l.google.com").connections) == (3, 5)
    assert (big.connections, big.timeouts.of("banner"), big.timeouts.of("rcpt")) == (20, 5, 150)
    assert policy.limits("other.test") == there and policy.limits("mx.other.test") == big
    from_a = policy.limits("there.test", "a")
    assert (from_a.connections, from_a.per_day, from_a.idle_s) == (4, 1000, 120)
    both = policy.limits("big", "a")
    assert (both.connections, both.per_day, both.timeouts.banner, both.timeouts.ehlo) == (4, None, 10, 20)
    assert both.retry == RetrySchedule((60, 3600), 0.2) and from_a.retry == RetrySchedule((9,), 0.2)
    assert policy.limits("there.test", "unheard of") == there


def test_tenants():
    policy = parse(OWN, "x.toml")
    assert policy.tenant("acme", "there.test") == TenantLimits(per_hour=100)
    assert policy.tenant("acme", "mx.big.test") == TenantLimits(per_hour=10, connections=1)
    assert policy.tenant("other", "big") is None


def test_where_each_limit_is_from():
    lines = {key: (value, where) for key, value, where in parse(OWN, "x.toml").explain("mx.big.test", "a")}
    assert lines["connections"] == (4, "x.toml [source.a]")
    assert lines["timeouts.banner"] == (10, "x.toml [site.big]") and lines["timeouts.ehlo"] == (20, "x.toml [source.a]")
    assert lines["retry.delays"] == ((60, 3600), "x.toml [site.big.source.a]")
    assert lines["tls"] == ("opportunistic", "default.toml [default]")
    assert lines["timeouts.rcpt"] == (300, "built in, or a setting")


def test_shards_are_no_more_than_what_is_shared():
    policy = parse(
        "[default]\nshards = 8\n[site.a]\nmessages_per_hour = 3\n[site.b.source.s]\nconnections = 2", "x.toml"
    )
    assert policy.limits("there.test").shards == 8
    assert policy.limits("a").shards == 3
    assert policy.limits("b").shards == policy.limits("b", "s").shards == 2
    assert {key: where for key, _, where in policy.explain("a")}["shards"].endswith(
        "says 8: no more than a limit that is shared"
    )
    assert parse("[default]\nshards = 8\n[tenant.t]\nmessages_per_day = 5", "x").limits("there.test").shards == 5


some = st.none() | st.integers(1, 10**9)
wholes = st.builds(
    Limits,
    connections=st.integers(1, 10**4),
    new_per_minute=st.integers(1, 10**6),
    per_second=st.floats(0.0001, 1e6),
    per_hour=some,
    per_day=some,
    shards=st.integers(1, 256),
)


@settings(deadline=None)
@given(wholes)
def test_shares_of_all_shards_add_up_exactly(limits):
    shares = [limits.share(shard) for shard in range(limits.shards)]
    for name in ("connections", "new_per_minute", "per_hour", "per_day"):
        whole = getattr(limits, name)
        parts = [getattr(share, name) for share in shares]
        if whole is None:
            assert set(parts) == {None}
        else:
            assert sum(parts) == whole and max(parts) - min(parts) <= 1
    assert sum(Fraction(share.per_second) for share in shares) == Fraction(limits.per_second)
    assert math.fsum(share.per_second for share in shares) == limits.per_second
    if limits.shards <= limits.smallest:
        assert all(share.connections and share.per_hour != 0 and share.per_day != 0 for share in shares)
        if limits.per_second >= 1:  # in any second, all shards together
            assert sum(math.floor(share.per_second) for share in shares) == math.floor(limits.per_second)
    none = limits.share(limits.shards)
    assert (none.connections, none.per_second, none.new_per_minute) == (0, 0, 0)


@settings(deadline=None)
@given(st.builds(TenantLimits, st.none() | st.floats(0.0001, 1e6), some, some, some), st.integers(1, 256))
def test_shares_of_a_tenant_add_up_exactly(limits, shards):
    shares = [limits.share(shard, shards) for shard in range(shards)]
    if limits.per_second is not None:
        assert sum(Fraction(share.per_second) for share in shares) == Fraction(limits.per_second)
        if shards <= limits.smallest:
            assert sum(math.floor(share.per_second) for share in shares) == math.floor(limits.per_second)
    for name in ("per_hour", "per_day", "connections"):
        if (whole := getattr(limits, name)) is not None:
            assert sum(getattr(share, name) for share in shares) == whole


def test_a_rate_below_one_a_shard_has_fewer_shards():
    policy = parse(
        "[default]\nshards = 8\n[site.a]\nmessages_per_second = 3.5\n[site.b]\nmessages_per_second = 0.4\n"
        "[tenant.t.site.c]\nmessages_per_second = 2",
        "x.toml",
    )
    assert [policy.limits(site).shards for site in ("a", "b", "c", "d")] == [3, 1, 2, 8]
    assert [policy.limits("a").share(shard).per_second for shard in range(3)] == [1.5, 1, 1]
    tenant = policy.tenant("t", "c")
    assert tenant is not None and [tenant.share(shard, 2).per_second for shard in range(2)] == [1, 1]


def test_a_schedule_of_retries_for_broadcasts():
    policy = parse(
        "[default]\nretry = {delays = [60], jitter = 0.2}\nretry_broadcast.delays = [900, 3600]\n"
        "[site.a]\nretry.delays = [30]\n[site.b]\nretry_broadcast = {jitter = 0}",
        "x.toml",
    )
    other, a, b = policy.limits("other"), policy.limits("a"), policy.limits("b")
    assert other.retry_of("transactional") == RetrySchedule((60,), 0.2)
    assert other.retry_of("broadcast") == RetrySchedule((900, 3600), 0.2)
    assert (a.retry.delays_s, a.retry_of("broadcast").delays_s) == ((30,), (900, 3600))
    assert b.retry_of("broadcast") == RetrySchedule((900, 3600), 0)
    assert Limits().retry_of("broadcast") == Limits().retry
    lines = {key: (value, where) for key, value, where in policy.explain("a")}
    assert lines["retry_broadcast.delays"] == ((900, 3600), "x.toml [default]")
    assert lines["retry_broadcast.greylist"] == (a.retry.greylist_s, "as retry")
    assert lines["retry.delays"] == ((30,), "x.toml [site.a]")
    assert faults("[default]\nretry_broadcast.delays = [0]") and faults("[default]\nretry_broadcast.delay = [5]")


def test_shares_of_the_smallest_and_the_largest_rates():
    for whole in (0.0001, 1 / 3, 2.0**-1000, 1.7e308):
        assert sum(Fraction(split_float(whole, shard, 7)) for shard in range(7)) == Fraction(whole)


RULE = '[[rule]]\nname = "r"\nreply = "x"\naction = "reduce-rate"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[default]\nconections = 3", "x.toml:2: default.conections is no key of this table; did you mean connections?"),
        ("\n[defaults]\na = 1", "x.toml:2: defaults is no table of this file; did you mean default?"),
        ("[default]\nshard = 3", "did you mean shards?"),
        ("[site.x]\nwhat_is_this = 3", "x.toml:2: site.x.what_is_this is no key of this table; these are: connections"),
        ("[source.x]\nshards = 3", "x.toml:2: source.x.shards is no key"),
        ('[default]\n\nconnections = "3"', "x.toml:3: default.connections = '3' wants a whole number from 1 to 10,000"),
        ("[default]\nconnections = true", "= True wants a whole number"),
        ("[default]\nconnections = 1.0", "= 1.0 wants a whole number"),
        ("[default]\nconnections = 0", "from 1 to"),
        ("[default]\nconnections = -1", "= -1 wants"),
        ("[default]\nmessages_per_second = nan", "= nan wants a number"),
        ("[default]\nmessages_per_second = inf", "= inf wants a number"),
        ("[default]\nmessages_per_second = -0.5", "= -0.5 wants"),
        ("[default]\nmessages_per_second = 1e-300", "wants a number from 0.0001"),
        ("[default]\nidle = nan", "wants a time"),
        ('[default]\nidle = "-5s"', "wants a time"),
        ('[default]\nidle = "5 weeks"', '"5m"'),
        ('[default]\nidle = "٣s"', "wants a time"),
        ("[default]\nmessages_per_hour = 0", 'or "unlimited"'),
        ('[default]\ntls = "requierd"', "wants one of none, opportunistic, required; did you mean required?"),
        ("[default]\nverify = 1", "wants true or false"),
        ("[default]\nshards = 257", "from 1 to 256"),
        ("[default]\ntimeouts = 3", "wants a table with some of connect"),
        ("[default.timeouts]\nbaner = 3", "x.toml:2: default.timeouts.baner is no key of this table; did you mean banner?"),
        ("[default]\nretry = {delays = []}", "wants a list of 1 to 100"),
        ("[default]\nretry.delays = [5, 0]", "wants a time from 0.001"),
        ("[default]\nretry.jitter = 1", "wants a number from 0 to 0.99"),
        ("[default]\ntimeouts.scale = 2", "is no key"),
        ("default = 3", "x.toml:1: default wants a table"),
        ("site = 3", "x.toml:1: site wants tables"),
        ("[site]\nx = 3", "site.x wants a table"),
        ('[site."a#1"]\nconnections = 1', "is no name"),
        ('[site.""]\nconnections = 1', "is no name"),
        ("[site.x]\nsource = 3", "site.x.source wants tables"),
        ('[site.x]\nhosts = ["*.*.com"]', "wants names of MX hosts"),
        ('[site.x]\nhosts = ["(a+)+"]', "wants names of MX hosts"),
        ('[site.x]\nhosts = ["*"]', "wants names of MX hosts"),
        ('[site.x]\nhosts = ["*.google.com"]', "x.toml:2: site.x.hosts has *.google.com, which is of site google"),
        ('[site.x]\nhosts = ["yahoo"]', "which is of site yahoo"),
        ("[tenant.t]\ntls = 'none'", "tenant.t.tls is no key"),
        ("[warmup.a]\ndays = [1]", "x.toml:1: warmup.a wants a start"),
        ("[warmup.a]\nstart = 2026-02-30", "not TOML"),
        ("[warmup.a]\nstart = 2026-02-03T10:00:00Z", "wants a date"),
        ("[warmup.a]\nstart = 2026-11-30\ndays = [0]", "whole number from 1"),
        ("[warmup.a]\nstart = 2026-11-30\npaused_above = {bounces = 5}", "x.toml:3: warmup.a.paused_above.bounces = 5 wants a number from 0 to 1"),
        ("[rule]\nname = 'x'", "rule wants tables: [[rule]]"),
        ('[[rule]]\nname = "r"\naction = "reduce-rate"', "x.toml:1: rule[0] wants reply"),
        (RULE + "[[rule]]\nreply = 'x'\naction = 'reduce-rate'", "x.toml:5: rule[1] wants name"),
        (RULE + RULE, "x.toml:6: rule[1].name = 'r' is the name of another rule"),
        (RULE.replace("x", "(a+)+"), "x.toml:3: rule[0].reply = '(a+)+' repeats a group"),
        (RULE.replace("reduce-rate", "suspend"), "wants one of reduce-rate, reduce-connections"),
        (RULE + "factor = 1.5", "x.toml:5: rule[0].factor = 1.5 wants"),
        (RULE + "threshold = 101", "from 1 to 100"),
        (RULE + 'duration = "8d"', "wants a time"),
        (RULE + 'phases = ["hello"]', "wants one of dns, connect"),
        ("[default]\nconnections = 1\nconnections = 2", "x.toml:3: not TOML: Cannot overwrite"),
        ("[site.x]\n[site.x]", "x.toml:2: not TOML: Cannot declare"),
        ("[default", "x.toml:1: not TOML: Expected"),
        ("a = " + "[" * 3000 + "]" * 3000, "not TOML"),
        ("[default]\nconnections = " + "9" * 5000, "not TOML"),
        ("x." * 2000 + "y = 1", "is no table of this file"),
        ("#" * (layers.SIZE_MAX + 1), "is longer than"),
    ],
)  # fmt: skip
def test_a_fault_has_its_line_and_a_hint(text, said):
    (line,) = faults(text)
    assert said in line
    assert len(line) < 1000


@pytest.mark.parametrize(
    "text",
    [
        f'[site.x]\nhosts = ["{"a" * 200}!"]',
        f'[site.x]\nhosts = ["{"a-" * 100}!"]',
        f'[site.x]\nhosts = ["{"a." * 100}!"]',
        "[default] #" + "]" * 500_000 + "!\nx = 1",
        "[default]\nx = 1\ny" + " " * 500_000 + "= 1",
        f'[default]\nidle = "{"1" * 500_000}"',
        f'[default]\n"{"x" * 500_000}" = 1',
    ],
)  # fmt: skip
def test_no_fault_takes_long_or_long_lines_to_tell(text):
    """A search that went back would take hours, so the time is generous."""
    begin = time.process_time()
    assert all(len(line) < 1500 for line in faults(text))
    assert time.process_time() - begin < 5


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[site.x]\ntimeouts = {banner = "1h", mail = "1h", body = "1h", attempt = "1h"}', ["x.toml:2: site.x.timeouts let one"]),
        ("[default.timeouts]\nattempt = 3600", ["x.toml:1: default.timeouts let"]),
        ("[default.timeouts]\nbanner = 900\n[site.x.timeouts]\nbody = 1200", ["x.toml:3: site.x.timeouts let"]),
        ("[site.x.timeouts]\nbanner = 900\n[source.a.timeouts]\nbody = 1200", ["x.toml:3: source.a.timeouts let"]),
        ("[site.x.timeouts]\nbanner = 900\n[site.x.source.a.timeouts]\nbody = 1200", ["x.toml:3: site.x.source.a.timeouts let"]),
        ("[site.x.timeouts]\nbanner = 900\n[site.y.timeouts]\nbody = 1200", []),
        ("[site.x.timeouts]\nbanner = 1800\nmail = 30\nehlo = 30\n[source.a.timeouts]\nrcpt = 30", []),
    ],
)  # fmt: skip
def test_time_outs_that_let_an_attempt_take_longer_than_a_worker_waits_for_it(text, told):
    """Those of one place together: the default, the site, the source and both."""
    if told:
        assert [line[: len(said)] for line, said in zip(faults(text), told, strict=True)] == told
    else:
        assert parse(text, "x.toml").limits("x", "a").timeouts.longest <= layers.ATTEMPT_MAX_S


def test_every_fault_is_told_in_order():
    found = faults('[default]\nconnections = 0\nidle = "x"\n[sight.x]\n[site.y]\nhosts = 3\n[[rule]]\nname = 1\n')
    assert [line.split(":")[1] for line in found] == ["2", "3", "4", "6", "7", "7", "8"]


def test_lines_of_dotted_and_quoted_keys():
    text = '[site]\n"a.b".connections = 0\n[site."c d"]  # e\n\ntimeouts.banner = -1\n[ tenant . "t" . site.\'a.b\' ]\nmessages_per_day = -1\n'
    assert [line.split(":")[1] for line in faults(text)] == ["2", "5", "7"]


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_a_policy_or_faults(text):
    try:
        parse(text, "x.toml")
    except ShapingError as error:
        assert error.faults


leaf = st.none() | st.sampled_from(
    ["0", "-1", "nan", "inf", "true", '"x"', "[]", "{}", "[[1]]", "2026-01-01", "1e400", '"\\u0000"']
)


@settings(deadline=None)
@given(
    st.sampled_from(["default", "site.x", "source.x", "site.x.source.y", "tenant.t", "tenant.t.site.s", "warmup.a"]),
    st.sampled_from(
        ["connections", "idle", "tls", "hosts", "timeouts", "retry", "retry.delays", "days", "start", "source", "site"]
    ),
    leaf,
)
def test_any_value_is_taken_or_told(table, key, value):  # fmt: skip
    try:
        policy = parse(f"[{table}]\n{key} = {value or 3}", "x.toml")
    except ShapingError as error:
        assert all(fault.line in (0, 1, 2) for fault in error.faults)
    else:
        policy.limits("x", "y"), policy.tenant("t", "s"), policy.warmup("a")


def test_rules_of_a_file_go_before_over_and_away():
    text = (
        RULE
        + '[[rule]]\nname = "listed"\noff = true\n[[rule]]\nname = "google-unusual-rate"\nreply = "y"\naction = "suspend-source"\nsites = ["google"]\n'
    )
    policy, shipped = parse(text, "x.toml"), load(None)
    assert [rule.name for rule in policy.rules[:2]] == ["r", "google-unusual-rate"]
    assert len(policy.rules) == len(shipped.rules)  # one more, one away
    names = [rule.name for rule in policy.rules_of("l.google.com")]
    assert "listed" not in names and "yahoo-volume" not in names and names.count("google-unusual-rate") == 1
    assert policy.rule_origins["r"] == "x.toml" and policy.rule_origins["yahoo-volume"] == "default.toml"


def test_the_version_is_of_what_is_said_not_how():
    one = parse('[default]\nconnections = 3\nidle = "60s"', "x.toml").version
    assert one == parse("# a comment\n[default]\nidle = 60\nconnections = 3", "other.toml").version
    assert one != parse("[default]\nconnections = 4", "x.toml").version
    assert one != parse('[default]\nconnections = 3\nidle = "60s"\n' + RULE, "x.toml").version
    assert one != parse('[default]\nconnections = 3\nidle = "60s"\n[warmup.a]\nstart = 2026-11-30', "x.toml").version
    assert load(None).version != load(None, replace(Limits(), retry=RetrySchedule((5,)))).version
    assert len(one) == 12 and int(one, 16) >= 0


def test_warmup_of_the_file():
    plan = parse("[warmup.a]\nstart = 2026-11-30\ndays = [5, 9]\npaused_above = {bounces = 0.1}", "x.toml").warmup("a")
    assert (plan.start.isoformat(), plan.days, plan.bounces_max, plan.complaints_max) == (
        "2026-11-30",
        (5, 9),
        0.1,
        0.003,
    )
    assert load(None).warmup("a") is None


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def write(path, text, at):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    os.utime(path, (at, at))


def test_a_change_holds_within_a_second_and_a_wrong_one_never(tmp_path, caplog):
    file, clock = tmp_path / "shaping.toml", Clock()
    write(file, "[default]\nconnections = 3", 1)
    watched = Watched(file, clock=clock)
    first = watched.policy
    write(file, "[default]\nconnections = 4", 2)
    clock.now = 0.9
    assert watched.policy is first
    clock.now = 1.0
    assert watched.policy.limits("x").connections == 4
    right = watched.policy
    for at, wrong in enumerate((b"[default]\nconnections = 0", b"\xff", b"x" * (layers.SIZE_MAX + 1), None), 3):
        if wrong is None:
            file.unlink()
        else:
            write(file, wrong, at)
        caplog.clear()
        for _ in range(3):
            clock.now += 1
            assert watched.policy is right
        assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1
    write(file, "[default]\nconnections = 5", 9)
    clock.now += 1
    assert watched.policy.limits("x").connections == 5


def test_the_file_is_looked_at_once_a_second(tmp_path, monkeypatch):
    file, clock = tmp_path / "shaping.toml", Clock()
    write(file, "", 1)
    watched, looks = Watched(file, clock=clock), []
    monkeypatch.setattr(watched, "_look", lambda: looks.append(clock.now))
    for now in range(100):
        clock.now = now / 10
        watched.policy  # noqa: B018
    assert len(looks) == 9


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[default]\n\xff = 1", "shaping.toml:2: is not UTF-8"),
        (b"#" * (layers.SIZE_MAX + 1), "is longer than"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_wrong_from_the_start_is_an_error(tmp_path, content, said):
    file = tmp_path / "shaping.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ShapingError) as wrong:
        Watched(file)
    assert said in str(wrong.value)
    assert Watched(None).policy.version == load(None).version


def test_a_file_laid_over_another_leaves_what_it_does_not_say():
    both = layers.Layers()
    layers.read("[site.a]\nconnections = 2\ntimeouts = {banner = 5, ehlo = 6}", "one.toml", both)
    layers.read("[site.a]\nidle = 9\ntimeouts = {banner = 7}", "two.toml", both)
    limits = Policy(both, Limits()).limits("a")
    assert (limits.connections, limits.idle_s, limits.timeouts.banner, limits.timeouts.ehlo) == (2, 9, 7, 6)
