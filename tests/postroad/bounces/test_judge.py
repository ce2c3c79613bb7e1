"""The judge: what is about us, what is in doubt, and agreement with the corpora."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avro.records import SmtpPhase
from postroad.bounces import REASONS, classify, judge
from postroad.bounces.reasons import FROM_SISIMAI
from postroad.reply import Reply

CORPORA = Path(__file__).parents[4] / "shared" / "corpora"
ZONE_MTA = CORPORA / "smtp-replies" / "zone-mta" / "samples.jsonl"
SISIMAI = CORPORA / "bounces" / "sisimai"


def reply_of(line: str) -> Reply:
    return Reply.parse(int(line[:3]), line[4:])


@pytest.mark.parametrize(
    ("line", "phase", "outcome", "reason"),
    [
        ("250 2.0.0 queued", "done", "delivered", "delivered"),
        ("550 5.1.1 User unknown", "rcpt", "hard", "user-unknown"),
        ("550 5.1.1 User unknown", "body", "hard", "user-unknown"),
        ("550 5.1.1 User unknown", "mail", "soft", "bad-sender"),
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
        ("451 4.7.500 Server busy. Please try again later from", "rcpt", "deferral", "rate-limited"),
        ("550 Requested action not taken: mailbox unavailable", "rcpt", "hard", "user-unknown"),
        (
            "550-5.7.26 Unauthenticated email from example.com is not accepted due to DMARC",
            "body",
            "soft",
            "auth-failure",
        ),
        ("550 5.1.1 <a@example.org> blocked using zen.spamhaus.org", "rcpt", "deferral", "blocked"),
        ("421 4.7.0 Try again later", "rcpt", "deferral", "rate-limited"),
        ("550 : User unknown", "body", "soft", "filtered"),
        ("550 Unknown user", "body", "soft", "filtered"),
        ("550 Unknown user", "rcpt", "hard", "user-unknown"),
        ("550 5.2.1 The mailbox is disabled", "rcpt", "soft", "suspended"),
        ("450 later", "rcpt", "deferral", "system-error"),
        ("554 5.4.6 Too many hops", "body", "soft", "network"),
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


@pytest.mark.skipif(not ZONE_MTA.exists(), reason="the corpora are not here")
def test_agreement_with_zone_mta() -> None:
    rows = [json.loads(line) for line in ZONE_MTA.read_text().splitlines()]
    rows = [row for row in rows if row["rule_matches"]]
    differing = [
        row["reply"]
        for row in rows
        if (classify(reply_of(row["reply"]), "rcpt").outcome == "deferral") != (row["action"] == "defer")
    ]
    assert len(rows) > 100
    assert len(differing) <= len(rows) * 0.05, differing


def test_a_report_and_a_reply_with_the_same_text_agree() -> None:
    for line in (
        "550 5.1.1 User unknown",
        "552 5.2.2 Mailbox full",
        "554 5.7.1 Relay access denied",
        "550 : User unknown",
    ):
        reply = reply_of(line)
        report = f"host mx.there.test[192.0.2.9] said: {line} (in reply to RCPT TO command)"
        bare = judge(reply.code, reply.enhanced, reply.text, phase="rcpt")
        assert judge(reply.code, reply.enhanced, report)[:3] == bare[:3], line
        assert classify(reply, "rcpt")[1:3] == bare[1:3]


@pytest.mark.parametrize(
    ("code", "status", "text", "action"),
    [
        (450, "4.1.1", "User unknown", ""),
        (0, "4.1.1", "User unknown", ""),
        (450, "4.1.1", "User unknown", "delayed"),
        (450, "4.1.1", "Nope", "failed"),
        (450, "4.1.1", "User unknown, the lookup timed out", "failed"),
        (450, "4.1.2", "Domain not found", "failed"),
        (550, "5.1.1", "User unknown", "delayed"),
        (550, "5.1.1", "User unknown, try again later", "failed"),
        (550, "5.1.1", "User unknown: blocked by policy", "failed"),
    ],
)
def test_what_is_temporary_or_in_doubt_is_never_hard(code: int, status: str, text: str, action: str) -> None:
    assert judge(code, status, text, action=action).bounce_class == "soft"


def test_codes_are_found_in_the_text_where_they_are_not_given() -> None:
    assert judge(0, "", "smtp; 550 5.2.2 <a@there.test>").reason == "mailbox-full"
    assert judge(0, "", "Remote host said: 550 5.7.1 <a@there.test>... no").rule == "security-code"


@given(st.integers(0, 600), st.text(max_size=20), st.text(max_size=400))
def test_any_text_is_judged(code: int, status: str, text: str) -> None:
    found = judge(code, status, text)
    assert found.reason in REASONS and 0 <= found.confidence <= 1
    assert found.bounce_class != "hard" or REASONS[found.reason].action == "suppress"


@pytest.mark.skipif(not SISIMAI.exists(), reason="the corpora are not here")
def test_reasons_agree_with_sisimai() -> None:
    truth = {
        (row["file"], row["index"]): row
        for row in map(json.loads, (SISIMAI / "truth.jsonl").read_text().split("\n")[:-1])
    }
    shares: dict[str, list[bool]] = {}
    hard = []
    for row in map(json.loads, (SISIMAI / "replies.jsonl").read_text().split("\n")[:-1]):
        known = truth[row["file"], row["index"]]
        labels = {row["reason"], (known["alt"] or row)["reason"]} if not known["label_stable"] else {row["reason"]}
        status = "" if known["status_is_pseudo"] else row["status"]
        found = judge(int(row["replycode"] or 0), status, row["reply"])
        shares.setdefault(row["reason"], []).append(found.reason in {FROM_SISIMAI[label] for label in labels})
        hard.append((found.bounce_class == "hard") == bool(row["hardbounce"]))
    assert sum(sum(one) / len(one) for one in shares.values()) / len(shares) >= 0.92
    assert sum(hard) / len(hard) >= 0.965  # 0.98 where the command is known that was refused
