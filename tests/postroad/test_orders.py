"""Orders: what each is about, and the commands that give them."""

import pytest
from typer.testing import CliRunner

from postroad import cli
from postroad.commands import orders as commands
from postroad.events import ENDS
from postroad.orders import BOUNCE, Orders, bounce, is_about, order, order_id

NOW = 1_700_000_000_000
runner = CliRunner()


def of(*given):
    return Orders({one["order_id"]: one for one in given})


def message(**fields):
    return {"message_id": "m", "tenant": "acme", "accepted_at": NOW, "route": {"site": "s.test"}, **fields}


@pytest.mark.parametrize("scopes", [{"site": "s"}, {"tenant": "t"}, {"source": "x"}, {"site": "s", "source": "x"},
                                    {"site": "s", "tenant": "t"}, {"tenant": "t", "source": "x"}, {"site": "s", "tenant": "t", "source": "x"}])  # fmt: skip
def test_a_suspension_is_about_mail_in_all_its_scopes_and_no_other(scopes):
    known = of(order("suspend", "op", NOW, **scopes))
    assert known.suspended("s", "t", "x", NOW)
    for what in scopes:
        assert known.suspended(**{"site": "s", "tenant": "t", "source": "x", what: "other"}, now=NOW) is None
        assert known.suspended(**{"site": "s", "tenant": "t", "source": "x", what: ""}, now=NOW) is None


def test_a_suspension_ends_at_its_time_and_a_narrower_one_that_is_over_hides_no_wider_one():
    short = order("suspend", "op", NOW, site="s", tenant="t", until=NOW + 10)
    assert of(short).suspended("s", "t", "", NOW + 9) == short
    assert of(short).suspended("s", "t", "", NOW + 10) is None
    wide = order("suspend", "op", NOW, site="s")
    assert of(short, wide).suspended("s", "t", "", NOW + 10) == wide


def test_a_bounce_is_about_what_was_accepted_before_it():
    given = order("bounce", "op", NOW, site="s.test", tenant="acme")
    assert of(given).bounced(message(), "s.test") == given
    assert of(given).bounced(message(accepted_at=NOW + 1), "s.test") is None
    assert of(given).bounced(message(tenant="other"), "s.test") is None
    assert of(given).bounced(message(), "") is None, "its site is not known yet"
    assert of(order("bounce", "op", NOW, tenant="acme")).bounced(message(), "")
    assert is_about(given, message()) and not is_about(given, message(route=None))


def test_an_end_by_an_order_fits_the_schema():
    content = {"hash": "", "size": 0}
    end = bounce(message(content=content), order("bounce", "op", NOW, site="s.test", reason="r"), NOW, "send")
    assert (end["reason"], end["rule"], end["detail"]) == (BOUNCE, "op", "r") and end["kind"] in ENDS


@pytest.mark.parametrize("name", ["a b", "a\0", "x" * 201, "\x1b[31m", "ü", "a\n", " "])
@pytest.mark.parametrize("what", ["site", "tenant", "source"])
def test_a_name_that_is_none(what, name):
    with pytest.raises(ValueError, match=f"no {what}"):
        order("suspend", "op", NOW, **{what: name})


@pytest.mark.parametrize("wrong", [{}, {"site": "s", "until": NOW}, {"site": "s", "until": -1}])
def test_a_suspension_without_scope_or_with_a_time_that_is_over(wrong):
    with pytest.raises(ValueError, match=r"scope|end after"):
        order("suspend", "op", NOW, **wrong)


def test_only_a_suspension_is_about_a_source():
    with pytest.raises(ValueError, match="no source yet"):
        order("flush", "op", NOW, source="x")


@pytest.fixture
def topic(monkeypatch):
    """What lies in control.orders."""
    kept = {}

    def write(outputs):
        for output in outputs:
            kept.pop(output.key.decode(), None)
            if output.value is not None:
                kept[output.key.decode()] = output.value

    async def read():
        return dict(kept)

    monkeypatch.setattr(cli, "_write", write)
    monkeypatch.setattr(commands, "_read", read)
    monkeypatch.setattr(commands, "_now", lambda: NOW)
    return kept


def test_suspend_list_resume(topic):
    assert (
        runner.invoke(
            cli.app, ["suspend", "--site", "s", "--source", "x", "--for", "2h", "--reason", "why", "--by", "me"]
        ).exit_code
        == 0
    )
    (given,) = topic.values()
    assert (given["until"], given["by"], given["reason"]) == (NOW + 7_200_000, "me", "why")
    assert "site s, source x" in runner.invoke(cli.app, ["orders"]).output
    refused = runner.invoke(cli.app, ["resume", "--site", "s"])
    assert isinstance(refused.exception, cli.CommandError) and topic
    assert runner.invoke(cli.app, ["resume", "--site", "s", "--source", "x"]).exit_code == 0
    assert topic == {}


def test_flush_and_bounce(topic):
    assert runner.invoke(cli.app, ["flush", "--site", "s"]).exit_code == 0
    assert runner.invoke(cli.app, ["bounce", "--tenant", "t", "--reason", "gone"]).exit_code == 0
    assert set(topic) == {order_id("flush", site="s"), order_id("bounce", tenant="t")}


@pytest.mark.parametrize("args", [
    ["suspend"], ["flush"], ["bounce", "--reason", "x"], ["resume"], ["suspend", "--site", "a\0b"], ["suspend", "--tenant", "x" * 100_000],
    ["suspend", "--site", "s", "--for", "-2h"], ["suspend", "--site", "s", "--for", "0s"], ["suspend", "--site", "s", "--for", "9999999d"],
    ["suspend", "--site", "s", "--for", "٣h"], ["bounce", "--site", "s", "--reason", "x" * 501], ["flush", "--site", "s", "--by", "a\x1b[2J"],
])  # fmt: skip
def test_what_is_wrong_writes_nothing(topic, args):
    result = runner.invoke(cli.app, args)
    assert isinstance(result.exception, cli.CommandError), result.output
    assert topic == {} and len(str(result.exception)) < 300
