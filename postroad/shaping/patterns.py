"""Patterns of replies: a part of regular expressions that is matched in linear time, whoever wrote pattern or reply.

| allowed | meaning |
|---|---|
| text, `.`, `[...]`, `\\d \\w \\s \\b`, `\\.` | as in `re`, case ignored |
| `?` `+` `*` `{m,n}` after one character or class | as much as there is; nothing is given back |
| `(a|b)`, `(a|b)?` | the first that fits; nothing is given back |
| `.*` outside of groups | anything between two pieces, each found where it first stands behind the one before |
| `^` first, `$` last | begin and end of the reply |

Nothing is ever tried again at the same place, so a search costs at most length of pattern times length of reply.
"""

from __future__ import annotations

import re
from functools import lru_cache

PATTERN_MAX = 200  # characters
TEXT_MAX = 1_100  # of a reply: what postroad.reply keeps, with its codes

_TOKEN = re.compile(
    r"""(?P<anything>\.[*+](?!\?))|(?P<open>\((?:\?:)?)|(?P<close>\))|(?P<bar>\|)
    |(?P<quantifier>[?*+]|\{\d{1,3}(?:,\d{0,3})?\})
    |(?P<atom>\\[dDwWsSb]|\\[^A-Za-z0-9]|\[\^?\]?(?:\\.|[^\]\\])*\]|[^\\\[\](){}|?*+])""",
    re.VERBOSE | re.DOTALL,
)


class PatternError(ValueError):
    """The pattern is wrong; the text says what is, and what would do."""


class Pattern:
    """A compiled pattern. Two of the same text are equal."""

    __slots__ = ("_pieces", "text")

    def __init__(self, text: str) -> None:
        """Raises PatternError."""
        self.text = text
        self._pieces = _compiled(text)

    def matches(self, reply: str) -> bool:
        """Whether it stands anywhere in a reply; of a longer one, in its first TEXT_MAX characters."""
        reply, at = reply[:TEXT_MAX], 0
        for piece in self._pieces:
            found = piece.search(reply, at)
            if found is None:
                return False
            at = found.end()
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"


@lru_cache(maxsize=1024)
def _compiled(text: str) -> tuple[re.Pattern[str], ...]:
    if not text:
        raise PatternError("is empty: it would match every reply")
    if len(text) > PATTERN_MAX:
        raise PatternError(f"has {len(text)} characters, the longest allowed is {PATTERN_MAX}; a list takes several")
    pieces = []
    for source in _translated(text):
        try:
            pieces.append(re.compile(source, re.IGNORECASE | re.DOTALL))
        except (re.error, OverflowError, RecursionError) as error:
            raise PatternError(f"does not compile: {error}") from None
    if not pieces:
        raise PatternError("is nothing but .*: it would match every reply")
    if any(piece.match("") for piece in pieces):
        raise PatternError("matches the empty text: it would match every reply")
    return tuple(pieces)


def _translated(text: str) -> list[str]:
    """The pieces between `.*`, with every group and quantifier made such that nothing is given back."""
    body, first, last = text, "", ""
    if body.startswith("^"):
        body, first = body[1:], r"\A"
    if body.endswith("$") and not body.endswith(r"\$"):
        body, last = body[:-1], r"\Z"
    pieces, piece, depth, at, before = [], first, 0, 0, ""
    while at < len(body):
        token = _TOKEN.match(body, at)
        if token is None:
            raise PatternError(
                f"does not compile at {body[at : at + 10]!r}; a backslash makes a sign plain text: \\{body[at]}"
            )
        kind, word, at = str(token.lastgroup), token[0], token.end()
        if kind == "anything":
            if depth:
                raise PatternError(
                    f"has {word} inside a group, which could run on and on; write two patterns in a list"
                )
            pieces.append(piece + ("." if word == ".+" else ""))
            piece = ""
        elif kind == "open":
            depth, piece = depth + 1, piece + "(?>"
        elif kind == "close":
            depth, piece = depth - 1, piece + ")"
            if depth < 0:
                raise PatternError("does not compile: a ) without its (")
        elif kind == "bar":
            if not depth:
                raise PatternError("has | outside of a group; write (a|b), or two patterns in a list")
            piece += "|"
        elif kind == "quantifier":
            if before not in ("atom", "close"):
                raise PatternError(f"does not compile: {word} has nothing to repeat")
            if before == "close" and word != "?":
                raise PatternError(
                    f"repeats a group by {word}, which could run on and on; repeat a character or a [class]"
                )
            piece += word + "+"
        else:
            piece += word
        before = kind
    if depth:
        raise PatternError("does not compile: a ( without its )")
    pieces.append(piece + last)
    return [piece for piece in pieces if piece]
