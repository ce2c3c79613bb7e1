"""The reply classifier: each rule's sample, what is about us, and agreement with a corpus."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avro.records import SmtpPhase
from postroad.bounces import RULES, Rule, classify, matching
from postroad.reply import Reply

CORPUS = Path(__file__).parents[3] / "shared" / "corpora" / "smtp-replies" / "zone-mta" / "samples.jsonl"


def reply_of(line: str) -> Reply:
    return Reply.parse(int(line[:3]), line[4:])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_each_rule_takes_its_sample(rule: Rule) -> None:
    assert matching(reply_of(rule.sample)) is rule


def test_rule_names_are_unique() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)


@pytest.mark.parametrize(
    ("line", "phase", "outcome", "reason"),
    [
        ("250 2.0.0 queued", "done", "delivered", "delivered"),
        ("550 5.1.1 User unknown", "rcpt", "hard", "user-unknown"),
        ("550 5.1.1 User unknown", "body", "hard", "user-unknown"),
        ("550 5.1.1 User unknown", "mail", "soft", "user-unknown"),
        ("450 4.1.1 User unknown", "rcpt", "deferral", "user-unknown"),
        ("554 5.7.1 no", "banner", "deferral", "refused-us"),
        ("550 5.1.1 User unknown", "ehlo", "deferral", "refused-us"),
        ("452 4.2.2 Mailbox full", "rcpt", "deferral", "mailbox-full"),
        ("552 5.2.2 Mailbox full", "rcpt", "soft", "mailbox-full"),
        ("550 5.1.1 <a@example.org>: mailbox is full", "rcpt", "soft", "mailbox-full"),
        ("450 4.2.0 <a@example.org>: Recipient address rejected: Greylisted", "rcpt", "deferral", "greylisted"),
        (
            "450 4.7.1 <a@example.org>: Recipient address rejected: Greylisted for 5 minutes",
            "rcpt",
            "deferral",
            "greylisted",
        ),
        ("451 4.7.1 Try again later", "body", "deferral", "greylisted"),
        ("451 Temporarily deferred - please try again later.", "rcpt", "deferral", "greylisted"),
        ("451 Temporary failure, please try again later.", "rcpt", "deferral", "greylisted"),
        ("451 4.7.500 Server busy. Please try again later from", "rcpt", "deferral", "policy"),
        ("550 Requested action not taken: mailbox unavailable", "rcpt", "hard", "user-unknown"),
        (
            "550-5.7.26 Unauthenticated email from example.com is not accepted due to DMARC",
            "body",
            "soft",
            "auth-failure",
        ),
        ("550 5.1.1 <a@example.org> blocked using zen.spamhaus.org", "rcpt", "deferral", "blocked"),
        ("421 4.7.0 Try again later", "rcpt", "deferral", "policy"),
        ("451 hm", "rcpt", "deferral", "system-error"),
        ("599 hm", "rcpt", "soft", "undetermined"),
        (
            "553 5.6.7 local: address or header needs SMTPUTF8, which the host does not offer",
            "mail",
            "soft",
            "smtputf8",
        ),
        ("552 5.3.4 local: message of 2000 bytes, the host takes 1000", "mail", "soft", "message-too-big"),
    ],
)
def test_verdicts(line: str, phase: SmtpPhase, outcome: str, reason: str) -> None:
    verdict = classify(reply_of(line), phase)
    assert (verdict.outcome, verdict.reason) == (outcome, reason)


@pytest.mark.parametrize("reply", [None, Reply(0, "", "timeout: no complete reply in phase rcpt")])
def test_no_reply_is_a_deferral(reply: Reply | None) -> None:
    assert classify(reply, "rcpt").outcome == "deferral"


@given(st.integers(200, 599), st.text(max_size=300), st.sampled_from(["connect", "banner", "mail", "rcpt", "body"]))
def test_any_reply_has_a_verdict_and_only_5xx_of_the_recipient_end_it(code: int, text: str, phase: SmtpPhase) -> None:
    verdict = classify(Reply.parse(code, text), phase)
    assert verdict.rule and verdict.reason
    if code < 500 or phase in ("connect", "banner"):
        assert verdict.outcome == "deferral"
    if phase == "mail":
        assert verdict.outcome != "hard"


@pytest.mark.parametrize("text", ["a" * 1000, "user " * 200, "account " * 125, "exceeded " * 111, " " * 1000])
def test_hostile_text_takes_no_exponential_time(text: str) -> None:
    assert classify(Reply.parse(550, text), "rcpt").outcome in ("soft", "hard")


def test_a_reply_longer_than_any_that_is_kept_is_cut() -> None:
    verdict = classify(Reply(550, "5.1.1", "user " * 200_000 + "spam"), "rcpt")
    assert (verdict.outcome, verdict.reason) == ("hard", "user-unknown")


@pytest.mark.skipif(not CORPUS.exists(), reason="the corpora are not here")
def test_agreement_with_zone_mta() -> None:
    rows = [json.loads(line) for line in CORPUS.read_text().splitlines()]
    rows = [row for row in rows if row["rule_matches"]]
    differing = [
        row["reply"]
        for row in rows
        if (classify(reply_of(row["reply"]), "rcpt").outcome == "deferral") != (row["action"] == "defer")
    ]
    assert len(rows) > 100
    assert len(differing) <= len(rows) * 0.05, differing
