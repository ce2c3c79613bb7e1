"""Scoring: how much a mail looks like spam or phishing. Named rules with weights, and a model when there is one.

Made to tell a tenant that was broken into from one that sends its mail: weights are set so that no single weak sign
holds a mail (5 by default) and few things reject one (10). See `RULES`; tests/postroad/test_scoring.py measures them.
"""

# ruff: noqa: SIM905  # lists of words are easier to read and to add to as one text

import ipaddress
import re
import unicodedata
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

from avro.records import Score
from postroad.reading import Link, Sample, read

MODEL_WEIGHT = 6.0  # of a model that is certain: holds, does not reject on its own

GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"

EXECUTABLE = frozenset(
    "ade adp apk app bat chm cmd com cpl dll docm exe hta img ins iso isp jar jnlp js jse lib lnk mde msc msi msp mst nsh "
    "pif ps1 pptm reg scf scr sct shb sys vb vbe vbs vhd vhdx vxd wsc wsf wsh xlam xll xlsm".split()
)  # what Gmail and Outlook block, and documents with macros
_DOCUMENT = frozenset("avi bmp doc docx gif htm html jpeg jpg mp3 mp4 pdf png ppt pptx rtf txt xls xlsx zip".split())

_SHORTENERS = frozenset(
    "bit.ly cutt.ly goo.gl is.gd ow.ly rb.gy rebrand.ly shorturl.at t.ly tiny.cc tinyurl.com".split()
)
_ADVANCE_FEE = (
    "million united states dollars", "million us dollars", "million dollars", "next of kin", "deceased", "foreign account",
    "transfer of the fund", "transfer the fund", "this transaction", "utmost confiden", "strictly confidential", "beneficiary",
    "late president", "bank of nigeria", "barrister", "your assistance", "lottery", "consignment",
)  # fmt: skip  # a list of words
_CLAIMS = (
    "this is not spam", "this email is not spam", "not unsolicited", "section 301", "s. 1618", "s.1618", "to be removed from our",
    "removed from future mail", "removed from our mailing", "remove in the subject", "bulk email", "100% free", "risk free",
    "risk-free", "no obligation", "work from home", "work at home", "make money", "lose weight", "viagra", "lowest rates",
    "financial freedom", "email marketing", "million email", "credit card debt", "mortgage rate", "no prescription",
    "click here to be removed", "order now", "act now", "limited time offer", "double your", "satisfaction guaranteed",
)  # fmt: skip  # a list of words

_IP_NUMBER = re.compile(r"0x[0-9a-f]{1,8}|\d{8,10}")
_SHOWN_HOST = re.compile(r"\s*(?:https?://|www\.)((?:[a-z0-9-]{1,63}\.)+[a-z]{2,24})(?![\w@.-])", re.IGNORECASE)
_HIDDEN = re.compile(
    r"font-size\s*:\s*0(?:px|pt|em|%)?\s*[;\"'!]|display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE
)
_PASSWORD = re.compile(r"<input\b[^<>]{0,500}type\s*=\s*[\"']?password", re.IGNORECASE)
_IMAGE = re.compile(r"<img\b", re.IGNORECASE)
_SCRIPT = re.compile(r"<(?:script|iframe|object|embed)\b", re.IGNORECASE)


class Model(Protocol):
    """A trained classifier. `name` says which and what version."""

    name: str

    def probability(self, text: str) -> float:
        """How likely the text is unwanted, 0 to 1."""


class Rule(NamedTuple):
    """A sign that a mail is bad, and how bad."""

    name: str
    weight: float
    test: Callable[[Sample, str], bool]  # (sample, its words in lower case)


def score(raw: bytes, model: Model | None = None) -> Score:
    """The score of a built message. Any bytes give one; at most reading.TEXT_MAX bytes of text are looked at."""
    sample = read(raw)
    words = sample.words()
    lower = words.lower()
    fired = [rule for rule in RULES if rule.test(sample, lower)]
    value = sum(rule.weight for rule in fired)
    if model is None:
        return {"value": value, "rules": [rule.name for rule in fired], "model": ""}
    probability = model.probability(words)
    if not 0 <= probability <= 1:
        raise ValueError(f"model {model.name} gave {probability}, which is no probability")
    value += MODEL_WEIGHT * max(0.0, 2 * probability - 1)  # below a half it says nothing against the mail
    return {"value": value, "rules": [rule.name for rule in fired], "model": model.name}


def verdict(
    score: float, hold_score: float, reject_score: float, released: bool = False
) -> Literal["pass", "hold", "reject"]:
    """What happens to a message with this score: thresholds are reached by equality; an operator's release wins."""
    if released:
        return "pass"
    if score >= reject_score:
        return "reject"
    return "hold" if score >= hold_score else "pass"


# -- rules -----------------------------------------------------------------------------------------------------------


def _extensions(name: str) -> list[str]:
    """Lower-case extensions, last first. Windows drops dots and blanks at the end, and a right-to-left mark hides one."""
    name = "".join(letter for letter in name.lower() if unicodedata.category(letter) != "Cf")
    return [part.strip() for part in reversed(name.rstrip(". ").split(".")[1:])]


def _executable(sample: Sample, _: str) -> bool:
    return any((found := _extensions(name)) and found[0] in EXECUTABLE for name in sample.files)


def _double_extension(sample: Sample, _: str) -> bool:
    for name in sample.files:
        found = _extensions(name)
        if len(found) > 1 and found[0] in EXECUTABLE and found[1] in _DOCUMENT:
            return True
    return False


def _is_ip(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host.strip("[]")).is_private
    except ValueError:
        return _IP_NUMBER.fullmatch(host) is not None


def _registered(host: str) -> str:
    """The part of a host that somebody registered, by its shape: two labels, three below such as co.uk."""
    labels = host.split(".")
    return ".".join(labels[-3:] if len(labels) > 2 and len(labels[-1]) == 2 and len(labels[-2]) <= 3 else labels[-2:])


def _shows_other_host(link: Link) -> bool:
    match = _SHOWN_HOST.match(link.text)
    return bool(match and link.host and _registered(match[1].lower()) != _registered(link.host))


def _mixed_scripts(host: str) -> bool:
    if host.isascii() and "xn--" not in host:
        return False
    for label in host.split("."):
        try:
            label = (
                label[4:].encode("ascii").decode("punycode") if label.startswith("xn--") and len(label) < 64 else label
            )
        except ValueError:
            continue
        scripts = {unicodedata.name(letter, "").partition(" ")[0] for letter in label[:63] if letter.isalpha()}
        if "LATIN" in scripts and scripts & {"CYRILLIC", "GREEK", "ARMENIAN"}:
            return True
    return False


def _is_script(url: str) -> bool:
    url = "".join(url[:100].split()).lower()  # browsers skip white space inside a scheme
    return url.startswith(("javascript:", "vbscript:", "data:text/html"))


def _shouting(sample: Sample, _: str) -> bool:
    letters = [letter for letter in sample.subject if letter.isalpha()]
    return len(letters) >= 12 and sample.subject.upper() == sample.subject != sample.subject.lower()


def _image_only(sample: Sample, lower: str) -> bool:
    return bool(sample.page) and len(lower.split()) < 30 and bool(_IMAGE.search(sample.page))


def _count(phrases: tuple[str, ...], lower: str) -> int:
    return sum(phrase in lower for phrase in phrases)


RULES = (
    Rule("gtube", 1000, lambda sample, _: GTUBE in sample.text or GTUBE in sample.page or GTUBE in sample.subject),
    Rule("executable-attachment", 6, _executable),
    Rule("double-extension", 5, _double_extension),
    Rule("password-form", 6, lambda sample, _: bool(sample.page) and bool(_PASSWORD.search(sample.page))),
    Rule("script-link", 4, lambda sample, _: any(_is_script(link.url) for link in sample.links)),
    Rule("userinfo-link", 4, lambda sample, _: any("." in link.userinfo for link in sample.links)),
    Rule("mixed-script-host", 4, lambda sample, _: any(_mixed_scripts(link.host) for link in sample.links)),
    Rule("ip-literal-link", 3, lambda sample, _: any(_is_ip(link.host) for link in sample.links)),
    Rule("link-text-other-host", 3, lambda sample, _: any(map(_shows_other_host, sample.links))),
    Rule("url-shortener", 1, lambda sample, _: any(link.host in _SHORTENERS for link in sample.links)),
    Rule("active-html", 2, lambda sample, _: bool(sample.page) and bool(_SCRIPT.search(sample.page))),
    Rule("hidden-text", 1, lambda sample, _: bool(sample.page) and bool(_HIDDEN.search(sample.page))),
    Rule("image-only", 1, _image_only),
    Rule("advance-fee", 5, lambda _, lower: _count(_ADVANCE_FEE, lower) >= 4),
    Rule("sales-talk", 4, lambda _, lower: _count(_CLAIMS, lower) >= 2),
    Rule("shouting-subject", 1.5, _shouting),
    Rule("exclaiming-subject", 1, lambda sample, _: "!!" in sample.subject or sample.subject.count("!") > 2),
)
