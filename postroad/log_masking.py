"""The last defence of a log: whatever a line, a value or an exception quotes, no address and no key of anybody is written.

What a message is about is not logged in the first place; this catches what an exception or a library quotes. Of an address the
domain stays (`***@example.org`), of an API key its id. A value that names itself by its key (`subject`, `password`) goes
whole. Every pattern takes time in proportion to the text, and no more of a text is looked at than SEEN_MAX.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from pydantic import BaseModel, SecretStr

MASKED = "***"
SECRET_MIN = 6  # characters of a configured secret: a shorter one would mask half of every word
SEEN_MAX, TEXT_MAX, HEAD_MAX = 65_536, 4_000, 2_000  # characters of one text: looked at, written, of its beginning
ITEMS_MAX, DEPTH_MAX = 50, 8

_FORMS = [
    (re.compile(r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]{0,30}PRIVATE KEY-----|\Z)", re.S), "***private key***"),
    (re.compile(r"\bM(?:C4CAQAwBQYDK2Vw|II[A-Za-z0-9+/]{2}I)[A-Za-z0-9+/\\\s]{16,}={0,2}"), "***private key***"),
    (re.compile(r"(pr_(?:live|test)_(?:[a-z0-9]{16}(?=_))?)\w*"), rf"\1{MASKED}"),
    (re.compile(r"\b(wh(?:sec|sk)_)[A-Za-z0-9+/=_-]*"), rf"\1{MASKED}"),  # postroad/webhooks/signing.py
    (re.compile(r"\bgAAAAA[\w-]{20,}={0,2}"), "***sealed***"),  # postroad/webhooks/sealing.py
    (re.compile(r"\beyJ[\w-]{5,}\.[\w-]*(?:\.[\w-]*)?"), "***token***"),
    (re.compile(r"""(?i)(authorization["']?\s{0,5}[:=,]\s{0,5}b?["']?)(?:[a-z]{1,20}\s{1,5})?[^\s"',;]+"""), rf"\1{MASKED}"),
    (re.compile(r"(?i)\b((?:bearer|basic)\s{1,5})[\w+/.~=-]{16,}"), rf"\1{MASKED}"),
    (re.compile(r"(?i)\b(AUTH\s{1,5}(?:PLAIN|LOGIN|XOAUTH2|OAUTHBEARER)\s{1,5})\S+"), rf"\1{MASKED}"),
    (re.compile(r"""(?i)((?:passw(?:or)?d|secret|token|api_?key|private_?key)\w{0,20}["']?\s{0,5}[:=]\s{0,5}b?["']?)[^\s"',;&)]{4,}"""), rf"\1{MASKED}"),
    (re.compile(r"(://[^/:@\s]{0,200}):[^@\s]{1,500}@"), rf"\1:{MASKED}@"),
]  # fmt: skip
_AT_FORMS = r"@|＠|%(?:25)?40|=40|\\u0040|\\x40"  # the wide one is meant
_AT = re.compile(_AT_FORMS, re.I)
_ENTITY = re.compile(r"&(?:#0{0,5}64|#x0{0,5}40|commat);", re.I)  # of HTML
_QUOTED = re.compile(rf'\\?".{{1,130}}?"(?={_AT_FORMS})', re.I | re.S)  # a quoted local part
_WORD = re.compile(
    r'[^\s<>(),;:"]+'
)  # RFC 5322: what of these an unquoted address cannot have parts it from its neighbours
_HOST = re.compile(r"(?!\d+(?!\.\d|[\w-]))[\w\[]")  # a place in a topic, topic@offset, has a number
_NAME = re.compile(r"[\w-]+(?:\.[\w-]+)*\.[^\W\d_]")  # behind an encoded @: timeout=40.5 is no address
_OPENED = re.compile(r"[\[{]*b?'")  # as Python shows values
_NAMED = re.compile(
    r"(?i)subject|body|text|html|raw|recipients?|sender|address|to|cc|bcc|from|.*(?:authorization|passw|secret|token|private_?key|api_?key).*"
)


class Mask:
    """Masks what goes into a log; a processor of structlog. `known`: secrets of this installation, wherever they stand."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        long = sorted({secret for secret in known if len(secret) >= SECRET_MIN}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, long))) if long else None

    def __call__(self, logger: Any, method: str, told: Any) -> dict[str, Any]:
        """The line with every text in it masked, and names of its own."""
        return {self.text(name): self.value(value, name) for name, value in told.items()}

    def value(self, value: Any, name: str = "", depth: int = 0) -> Any:
        """The same of anything that a line can have."""
        if value is None or isinstance(value, bool | int | float):
            return value if not isinstance(value, float) or abs(value) < float("inf") else str(value)
        if name and _NAMED.fullmatch(name):
            return MASKED
        if isinstance(value, str):
            return self.text(value)
        if depth < DEPTH_MAX and isinstance(value, Mapping):
            items = list(value.items())[:ITEMS_MAX]
            return {self.text(str(key)): self.value(each, str(key), depth + 1) for key, each in items}
        if depth < DEPTH_MAX and isinstance(value, list | tuple | set | frozenset):
            return [self.value(each, "", depth + 1) for each in list(value)[:ITEMS_MAX]]
        return self.text(repr(value))

    def text(self, text: str) -> str:
        """Masked, and cut where it is long."""
        length = len(text)
        if length > SEEN_MAX:  # what the cut goes through could no longer be told
            text = text[:SEEN_MAX].rpartition(" ")[0]
        if self._known is not None:
            text = self._known.sub(MASKED, text)
        for form, masked in _FORMS:
            text = form.sub(masked, text)
        text = _ENTITY.sub("@", text)
        if _AT.search(text):
            text = _WORD.sub(_without_local, _QUOTED.sub(MASKED, text))
        if length > SEEN_MAX or len(text) > TEXT_MAX:
            end = text[max(HEAD_MAX, len(text) - TEXT_MAX + HEAD_MAX) :]  # of a traceback the end says most
            text = f"{text[:HEAD_MAX]} ... ({length:,} characters) ... {end}"
        return text


def _without_local(found: re.Match[str]) -> str:
    """The last address in a word without all that stands before it."""
    word, last = found[0], None
    for at in _AT.finditer(word):
        if (_HOST if at[0] == "@" else _NAME).match(word, at.end()):
            last = at
    if last is None or not last.start():
        return word
    opened = _OPENED.match(word)
    return f"{opened[0] if opened else ''}{MASKED}@{word[last.end() :]}"


def secrets_of(settings: BaseModel) -> Iterator[str]:
    """Every secret among the settings: those that are typed so, and passwords in URLs."""
    for name in type(settings).model_fields:
        yield from _secrets(getattr(settings, name))


def _secrets(value: Any) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, str):
        for password in re.findall(r"://[^/:@\s]*:([^@\s]+)@", value):
            yield from {password, unquote(password)}
    elif isinstance(value, BaseModel):
        yield from secrets_of(value)
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _secrets(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _secrets(each)
