"""Patterns of replies: what they match, what is refused, and that none of them can be made to take long."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroad.shaping.patterns import PATTERN_MAX, TEXT_MAX, Pattern, PatternError


@pytest.mark.parametrize(
    ("pattern", "reply", "fits"),
    [
        ("rate limit", "421 4.7.28 Temporarily RATE LIMITED", True),
        ("^4", "421 x", True),
        ("^4", "550 4.7.1 x", False),
        (r"\[ts+0[45]\]", "421 4.7.0 [TSS04] Messages deferred", True),
        (r"\[ts+0[45]\]", "421 4.7.0 [TS03] Messages deferred", False),
        ("a.*b.*c", "xxaxxbxxc", True),
        ("a.*b.*c", "xxbxxaxxc", False),
        ("a.*c$", "a c b c", True),  # the first c is not the last sign
        ("(?:over|high) (?:quota|volume)", "452 high volume", True),
        ("(?:smtp )?sessions", "421 sessions", True),
        (r"client host \[[\d.]+\] blocked", "554 Client host [192.0.2.1] blocked using zen", True),
        (r"\d{1,3}\.\d{1,3}", "550 10.255", True),
        (r"100\$", "costs 100$", True),
        ("a.+b", "ab", False),
        ("a.+b", "axb", True),
        (r"[^\]]+x", "]]abx", False),  # [^\]]+ takes the x and gives nothing back
        (r"[]a]b", "]b", True),
    ],
)
def test_what_fits(pattern, reply, fits):
    assert Pattern(pattern).matches(reply) is fits


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("", "is empty"),
        (".*", "nothing but .*"),
        ("x?", "matches the empty text"),
        ("(a+)+b", "repeats a group"),
        ("(a|a)*b", "repeats a group"),
        ("(a){2,30}b", "repeats a group"),
        ("(.*a)?b", "inside a group"),
        ("a|b", "outside of a group"),
        ("(a", "without its )"),
        ("a)", "without its ("),
        ("a++b", "nothing to repeat"),
        ("*a", "nothing to repeat"),
        ("a.*?b", "a.*?b"),
        (r"(a)\1", "does not compile"),
        ("(?=a)b", "does not compile"),
        ("(?P<n>a)", "does not compile"),
        ("[z-a]x", "does not compile"),
        ("[a", "does not compile"),
        ("a\\", "does not compile"),
        ("a{3,2}b", "does not compile"),
        ("x" * (PATTERN_MAX + 1), "the longest allowed"),
    ],
)
def test_what_is_refused(pattern, said):
    if said == pattern:  # a .* that takes as little as it can is as any other
        said = "does not compile"
    with pytest.raises(PatternError) as refused:
        Pattern(pattern)
    assert said in str(refused.value)


@settings(deadline=None)
@given(st.text(alphabet=r"ab.*+?()|[]{}\d^$12,-: ", max_size=40), st.text(alphabet="ab12. ()-", max_size=60))
def test_any_text_is_a_pattern_or_refused(pattern, reply):
    try:
        compiled = Pattern(pattern)
    except PatternError:
        return
    compiled.matches(reply)
    assert not compiled.matches("")


HOSTILE = ["a" * TEXT_MAX, "ab" * TEXT_MAX, "1." * TEXT_MAX, "a" * (TEXT_MAX - 1) + "!", " " * 100_000]


@pytest.mark.parametrize(
    "pattern",
    [
        "a.*" * 60 + "b",
        "a+" * 90 + "b",
        "[ab]+" * 30 + "!",
        "(a|a)" * 30 + "c",
        "(a|ab)?" * 20 + "c",
        "(?:a?b?)?" * 15 + "c",
        "a{1,999}" * 20 + "b",
        ".+.+.+.+!",
        r"\d+\.\d+\.\d+\.\d+x",
    ],
)
def test_no_pattern_takes_long_with_any_reply(pattern):
    """Steps, not seconds, are bounded; a search that went back would take hours, so the time is generous."""
    compiled = Pattern(pattern[:PATTERN_MAX])
    begin = time.process_time()
    for reply in HOSTILE:
        compiled.matches(reply)
    assert time.process_time() - begin < 5
