"""A reply's words: what rules and the model look at. Case, accents, punctuation and what addresses say are gone."""

from __future__ import annotations

import re
import unicodedata

ADDRESS = "adr"  # stands for any address
IP = "ipadr"  # for any IPv4 address
NAMELESS = "nameless"  # stands before what is said of nobody: "550 : User unknown"
KEY = 5  # letters of a word that say which rules to try

_ADDRESS = re.compile(r"[^\s<>@:;,()\[\]\"']+@[\w.-]+")
_IP = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b")
_NAMELESS = re.compile(r"(?:^|\b5\d\d:? )\s*:\s")
# a reply that begins with a domain and says what it is or does: "553 example.org does not exist"
_DOMAIN_FIRST = re.compile(
    r"^(?:[45]\d\d[ -])?(?:[45]\.\d{1,3}\.\d{1,3} )?[\"'<(]?(?:[\w-]{1,63}\.){1,8}[a-z-]{2,24}[\"'>)]?:? (?=does not |doesn|is (?:un|not )|not found|not known|has no )"
)
_WORD = re.compile(r"[^\W_]+")


def key(word: str) -> str:
    """By what a word is looked up."""
    return word[:KEY]


# letters that have no accent to take off
_LETTERS = str.maketrans({"ł": "l", "ı": "i", "ø": "o", "đ": "d", "æ": "ae", "ß": "ss"})


def folded(text: str) -> str:
    """Without case and accents; full-width forms are narrow."""
    text = text.lower()
    if text.isascii():
        return text
    return "".join(c for c in unicodedata.normalize("NFKD", text.translate(_LETTERS)) if not unicodedata.combining(c))


def words_of(text: str) -> list[str]:
    """The words of `text`, in order, as `folded`."""
    text = folded(text).replace("\u2019", "'").replace("n't", "nt")
    if "@" in text:
        text = _ADDRESS.sub(f" {ADDRESS} ", text)
    if text.startswith(":") or " : " in text:
        text = _NAMELESS.sub(f" {NAMELESS} ", text, 1)
    if named := _DOMAIN_FIRST.match(text):
        text = f"domain {text[named.end() :]}"
    if text.count(".") > 2:
        text = _IP.sub(f" {IP} ", text)
    return _WORD.findall(text)
