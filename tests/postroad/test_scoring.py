"""Scoring: each rule fires on what it is for and not on what looks like it; ordinary mail passes."""

import json
from pathlib import Path

import pytest

from postroad.scoring import GTUBE, MODEL_WEIGHT, RULES, score, verdict

SPAM = Path(__file__).parents[2] / "../shared/corpora/spam/spamassassin"
WEIGHTS = {rule.name: rule.weight for rule in RULES}


def page(body: str, subject: str = "Hello") -> bytes:
    return f"Subject: {subject}\nContent-Type: text/html; charset=utf-8\n\n{body}{' some words' * 20}".encode()


def text(body: str, subject: str = "Hello") -> bytes:
    return f"Subject: {subject}\n\n{body}".encode()


def file(name: str) -> bytes:
    return f'Content-Type: application/octet-stream\nContent-Disposition: attachment; filename="{name}"\n\nx'.encode()


@pytest.mark.parametrize(
    ("raw", "rules"),
    [
        (text("Dear Ann,\nyour order has shipped: https://shop.example/o/1\n"), []),
        (page('<p>See <a href="https://shop.example/a">your order</a></p><img src="https://shop.example/i.png">'), []),
        (text(GTUBE), ["gtube"]),
        (text("", f"test {GTUBE}"), ["gtube"]),
        (page(f"<p>{GTUBE}</p>"), ["gtube"]),
        (file("report.pdf"), []),
        (file("setup.exe"), ["executable-attachment"]),
        (file("SETUP.EXE. "), ["executable-attachment"]),
        (file("invoice.pdf.exe"), ["executable-attachment", "double-extension"]),
        (file("invoice.pdf .scr"), ["executable-attachment", "double-extension"]),
        (file("v1.2.exe"), ["executable-attachment"]),
        (file("exe"), []),
        (file("archive.tar.gz"), []),
        (page('<form><input name=p type="password"></form>'), ["password-form"]),
        (page("<form><input type=text></form>"), []),
        (page('<a href="java\nscript:alert(1)">x</a>'), ["script-link"]),
        (page('<a href="data:text/html;base64,x">x</a>'), ["script-link"]),
        (page('<a href="&#106;avascript:x">x</a>'), ["script-link"]),
        (page('<a href="https://x.example/javascript:">x</a>'), []),
        (page('<a href="http://www.bank.example@evil.example/">x</a>'), ["userinfo-link"]),
        (page('<a href="http://x.example/~user@home">x</a>'), []),
        (page('<a href="http://pаypal.example">x</a>'), ["mixed-script-host"]),  # a Cyrillic a
        (page('<a href="http://xn--pypal-4ve.example">x</a>'), ["mixed-script-host"]),
        (page('<a href="http://bücher.example">x</a> <a href="http://пример.example">y</a>'), []),
        (text("http://8.8.8.8/login"), ["ip-literal-link"]),
        (text("http://0x08080808/ "), ["ip-literal-link"]),
        (text("http://134744072/ "), ["ip-literal-link"]),
        (text("http://[2600::1]/ "), ["ip-literal-link"]),
        (text("http://127.0.0.1:8080/ http://192.168.1.1/"), []),
        (page('<a href="http://evil.example/">https://www.bank.example/login</a>'), ["link-text-other-host"]),
        (page('<a href="http://evil.example/"><b>www.bank.example</b></a>'), ["link-text-other-host"]),
        (page('<a href="https://login.bank.example/">www.bank.example</a>'), []),
        (page('<a href="https://a.bank.co.uk/">www.bank.co.uk</a>'), []),
        (page('<a href="https://evil.co.uk/">www.bank.co.uk</a>'), ["link-text-other-host"]),
        (page('<a href="https://x.example/">README.md</a> <a href="mailto:a@x.example">www.x.example</a>'), []),
        (text("https://bit.ly/abc"), ["url-shortener"]),
        (page("<script>x</script>"), ["active-html"]),
        (page('<p style="font-size:0px">hidden</p>'), ["hidden-text"]),
        (page('<p style="font-size:0.9em">small</p>'), []),
        (b"Content-Type: text/html\n\n<img src=x>", ["image-only"]),
        (text("I am the barrister of the deceased; as next of kin you get ten million dollars."), ["advance-fee"]),
        (text("The deceased left his dog to his next of kin."), []),
        (text("Act now! 100% free and no obligation."), ["sales-talk"]),
        (text("x", "YOU HAVE WON A PRIZE"), ["shouting-subject"]),
        (text("x", "IMPORTANT: NASA"), ["shouting-subject"]),
        (text("x", "FYI: RFC 5321"), []),
        (text("x", "日本語の件名はとても長いです"), []),
        (text("x", "Buy now!!"), ["exclaiming-subject"]),
    ],
)
def test_rules(raw: bytes, rules: list[str]) -> None:
    found = score(raw)
    assert found["rules"] == rules
    assert found["value"] == sum(WEIGHTS[rule] for rule in rules)
    assert found["model"] == ""


def test_gtube_rejects_whatever_the_thresholds() -> None:
    assert verdict(score(text(GTUBE))["value"], 500, 999, False) == "reject"


def test_no_rule_but_the_worst_holds_alone() -> None:
    alone = {rule.name for rule in RULES if rule.weight >= 5}
    assert alone == {"gtube", "executable-attachment", "double-extension", "password-form", "advance-fee"}
    assert len(WEIGHTS) == len(RULES)


@pytest.mark.parametrize(
    ("value", "released", "expected"),
    [
        (4.99, False, "pass"),
        (5, False, "hold"),
        (9.99, False, "hold"),
        (10, False, "reject"),
        (5, True, "pass"),
        (2000, True, "pass"),
    ],
)
def test_verdict(value: float, released: bool, expected: str) -> None:
    assert verdict(value, 5, 10, released) == expected


class FixedModel:
    name = "fixed-1"

    def __init__(self, probability: float):
        self.given = probability
        self.seen = ""

    def probability(self, text: str) -> float:
        self.seen = text
        return self.given


@pytest.mark.parametrize(("probability", "value"), [(0, 0), (0.5, 0), (0.75, MODEL_WEIGHT / 2), (1, MODEL_WEIGHT)])
def test_the_model_adds_its_part(probability: float, value: float) -> None:
    model = FixedModel(probability)
    found = score(page("<b>Hi</b>", "Subj"), model)
    assert (found["value"], found["rules"], found["model"]) == (value, [], "fixed-1")
    assert "Subj" in model.seen and "Hi" in model.seen and "<b>" not in model.seen


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan")])
def test_a_model_out_of_its_bounds_is_an_error(probability: float) -> None:
    with pytest.raises(ValueError, match="fixed-1"):
        score(text("x"), FixedModel(probability))


@pytest.mark.skipif(not SPAM.exists(), reason="needs ../shared/corpora")
def test_fire_rates_on_real_mail() -> None:
    """Old mail, one in five: under 0.5 % of ham is stopped, and spam stands out by far."""
    stopped, seen = {"ham": 0, "spam": 0}, {"ham": 0, "spam": 0}
    for line in (SPAM / "labels.jsonl").read_text().splitlines()[::5]:
        row = json.loads(line)
        value = score((SPAM / row["file"]).read_bytes().partition(b"\n")[2])["value"]
        seen[row["label"]] += 1
        stopped[row["label"]] += verdict(value, 5, 10, False) != "pass"
    assert stopped["ham"] / seen["ham"] < 0.005
    assert stopped["spam"] / seen["spam"] > 0.05
