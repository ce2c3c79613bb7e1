"""The rules: each takes its sample, the words' small language, and what no rule may say."""

from pathlib import Path

import pytest

from postroad.bounces import REASONS, RULES, Rule, judge, matching
from postroad.bounces.index import Index
from postroad.bounces.reasons import FROM_SISIMAI, table
from postroad.bounces.rules import pattern, rule
from postroad.bounces.words import words_of
from postroad.reply import Reply

DOCS = Path(__file__).parents[3] / "docs" / "reasons.md"


def line_of(text: str) -> str:
    return f" {' '.join(words_of(text))} "


@pytest.mark.parametrize("one", RULES, ids=lambda one: one.name)
def test_each_rule_takes_its_sample(one: Rule) -> None:
    found = matching(Reply.parse(int(one.sample[:3]), one.sample[4:]))
    assert found is one, f"{one.name}: its sample went to {found.name if found else None}"


def test_rules_have_names_of_their_own_and_known_reasons() -> None:
    assert len({one.name for one in RULES}) == len(RULES)
    assert {one.reason for one in RULES} <= set(REASONS)


def test_no_rule_without_words_and_codes() -> None:
    assert [one.name for one in RULES if not (one.phrases or one.status or one.code or one.phase)] == []


def test_each_phrase_ends_with_a_word_that_it_needs() -> None:
    loose = [
        phrase for one in RULES for phrase in one.phrases if phrase.split()[-1].endswith("?") or phrase.endswith("..")
    ]
    assert loose == []


@pytest.mark.parametrize(
    ("phrase", "text", "found"),
    [
        ("mailbox is? full", "Mailbox full", True),
        ("mailbox is? full", "<a@b.test>: the MAILBOX is full!", True),
        ("mailbox .. full", "mailbox of this dear old user full", False),
        ("mailbox ... full", "mailbox of this dear old user full", True),
        ("user/box unknown", "the box, unknown", True),
        ("quota/mailbox exceed*", "quota exceeded", True),
        ("quota/mailbox exceed*", "mailbox succeeded", False),
        ("full mailbox", "fullmailbox full", False),
        ("boite pleine", "Bo\u00eete pleine", True),
    ],
)
def test_phrases(phrase: str, text: str, found: bool) -> None:
    assert bool(pattern(phrase).search(line_of(text))) is found


def test_the_index_leaves_out_no_rule_that_matches() -> None:
    index = Index()
    for one in RULES:
        words = words_of(one.sample[4:])
        line = f" {' '.join(words)} "
        slow = [
            n
            for n, other in enumerate(RULES)
            if any(pattern(p).search(line) for p in other.phrases) or not other.phrases
        ]
        assert list(index.matching(words, line)) == sorted(slow, key=lambda n: (not RULES[n].phrases, n))


def test_a_phrase_without_a_whole_word_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postroad.bounces.index.RULES", (rule("x", "policy", "550 x", "ab* .. cd*"),))
    with pytest.raises(ValueError, match=r"'ab\* \.\. cd\*'"):
        Index()


def test_words_leave_out_addresses_accents_and_case() -> None:
    assert words_of("<J\u00f6rg.Spam@Blocked.test>: doesn't like 192.0.2.7") == ["adr", "doesnt", "like", "ipadr"]


def test_the_documents_table_is_that_of_the_code() -> None:
    assert table() in DOCS.read_text()


def test_hard_is_only_what_is_bad_for_good() -> None:
    hard = {name for name, one in REASONS.items() if one.bounce_class == "hard"}
    assert hard == {"user-unknown", "host-unknown", "moved", "null-mx"}
    assert hard == {name for name, one in REASONS.items() if one.action == "suppress"}


def test_each_of_sisimais_names_has_one_reason() -> None:
    assert len(FROM_SISIMAI) == sum(len(one.sisimai) for one in REASONS.values())


@pytest.mark.parametrize(
    "words",
    ["spam", "blocked", "policy", "rate limit", "DMARC", "access denied", "poor reputation", "greylisted", "blacklisted", "content rejected",
     "quota exceeded", "authentication required", "too many connections", "not allowed to send", "sender rejected", "virus found"],
)  # fmt: skip
@pytest.mark.parametrize(
    "form", ["550 5.1.1 <a@b.test>: {}", "550 5.1.1 {}: user unknown", "550 5.1.2 host unknown, {}"]
)
def test_what_is_about_us_never_suppresses_whatever_the_code(words: str, form: str) -> None:
    text = form.format(words)
    assert judge(550, text[4:9], text).bounce_class != "hard"
