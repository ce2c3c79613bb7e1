"""Failed recipients in the text for people, by the places where hosts put them, in whatever language they write.

A bounce says an address alone on a line, at the start of a line with what the host said behind it, behind a label or the
command that was refused, or in a sentence that says that mail failed. Places are ranked; the best place that a text has
wins, and addresses of those to ask for help, of the sender and of the host itself stand in no place.
"""

import re
from collections.abc import Collection, Iterator
from itertools import islice
from typing import NamedTuple

from postroad.feedback import codes, words
from postroad.feedback.model import MAX_DIAGNOSTIC, MAX_RECIPIENTS

# Each address costs up to 0.3 ms: what is written beside it is looked at in many ways
_ADDRESSES_MAX, _LINE_MAX = 100, 3  # of a text, of a line
_BESIDE = 120  # characters in front of an address, and behind it, that are read
_LOOKS_MAX = 3  # places of one address whose surroundings are read

ADDRESS = re.compile(
    r"(?<![\w.!#$%&'*+/=?^`{|}~@-])[\w.!#$%&'*+/=?^`{|}~-]{1,128}+@[\w-]{1,63}+(?:\.{1,3}[\w-]{1,63}+){0,10}+(?:\.\.\.(?=$))?"
)
_HELP = re.compile(
    r"(?:contact(?:ing)?|e-?mail(?:ing)? (?:to|us|me)|write to|reply(?:ing)? to|send (?:an? )?(?:e-?mail|mail|message|request|question|complaint)s? to|questions?|assistance|help|support|administrator(?: at)?|forward(?:ed)? (?:this )?(?:\w+ ){0,3}to|mailto:|call|notify|report(?:ed)? (?:\w+ ){0,4}to|abuse|hostmaster|kontakt|contacter|contacte)\W{0,6}(?:[\w ]{0,30}\W{0,3})?$",
    re.IGNORECASE,
)
_SENDER = re.compile(
    r"(?:\bmail from|\bfrom|\bsender|\bsent by|envelope-from|return-path|reply-to|\bvon|\bmfrom|errors-to|F|on behalf of|message-id|references|in-reply-to|\bid|\bvia|\bdomain of|\bby)\W{0,4}(?:address)?\W{0,4}$|https?://\S{0,400}$",
    re.IGNORECASE,
)
_RCPT = re.compile(r"rcpt[ _]?to\W{0,4}$|\bT=\[?<?$", re.IGNORECASE)
_REFUSED = re.compile(r"(?:^|\W)[45][0-7]\d[ -]")
_ORIGIN = re.compile(
    r"(?:generated (?:from|by)|expanded from|originally addressed to|forwarded from|ultimately generated from|reason: )\W{0,3}$",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"(?:recipient|addressee?|user(?:id)?|mailbox|e-?mail|destination|destinataire|empf[äa]nger|adresse|destinatario|indirizzo|direcci[oó]n|odbiorc|адрес|получател|宛先|宛て先|アドレス|收件人|地址|수신|attempts|undeliverable|failed|delivery failed|size|full|unknown|invalid|to)[^:：\n]{0,60}[:：]\s*[<\"'\[(]{0,2}(?:smtp:)?$",
    re.IGNORECASE,
)
_TO_FIELD = re.compile(r"^\s{0,8}(?:to|cc|an|a|para|кому)\s?:\s*[<\"']?$", re.IGNORECASE)
_DECORATION = " \t<>\"'*•·>|:;,.()[]{}-=#_+~–—　「」【】"
_BEHIND = re.compile(
    r"^\s*(?:[>\"')\]]{0,3}\s*(?:[:：;,]|\.\.\.|\s-{1,2}\s|\(|\[|\son\s\w|\s+(?:\d{3}\b|error|err\b|invalid|unknown|user|host|no such|not|is|was|mailbox|address|failed|rejected|delivery))|[>\"']{1,2}\s)",
    re.IGNORECASE,
)
_CODE_IN_FRONT = re.compile(r"^[\s<>]{0,8}[45][0-7]\d[ -](?:#?[45]\.\d+\.\d+ )?\W{0,4}$")
_CODE_FIRST = re.compile(r"^\s{0,8}5[0-5]\d[ -]")
_NEXT_TALK = re.compile(r"^(?:\.{3} )?while talking to |^>>> ", re.IGNORECASE | re.MULTILINE)
# Sendmail's own lines that say only what kind of failure it was, and what stands above them: a host's reply or a program's words
_SUMMARY = re.compile(
    r"^\s{0,8}5[0-5]\d (?:5\.\d\.\d )?\S{3,300}\.\.\. (?:service unavailable|remote protocol error|unknown mailer error \d+|can(?:not|'t) create output|mail\w* returned)\b",
    re.IGNORECASE,
)
_SUMMED_UP = re.compile(
    r"(?:<<< (?=[45]\d\d[ -]))?((?:(?<=<<< )[45]\d\d[ -]|[a-z][\w./-]{1,30}: )\S.{4,300})$", re.IGNORECASE
)
_LOCAL_NAME = re.compile(r"^[ \t]{1,16}([a-z][\w.+-]{1,63})(?:[ \t]*|[ \t]{2,}\S.*)$", re.IGNORECASE)
_NAME_FORM = re.compile(r"mail(?:ing)?(?:\s+to)?\s+NAME@([\w.-]+\w)")
_ROLES = (
    "postmaster",
    "mailer-daemon",
    "abuse",
    "hostmaster",
    "support",
    "helpdesk",
    "noc",
    "webmaster",
    "admin",
    "administrator",
    "root",
    "info",
)


class Found(NamedTuple):
    """A failed recipient: its address, what the text says of it, and the place's rank (5 best)."""

    address: str
    said: str
    rank: int
    original: str = ""


class _Place(NamedTuple):
    address: str
    line: int
    rank: int


def recipients(lines: list[str], *, own: Collection[str], expected: Collection[str]) -> list[Found]:
    """Who the text says was not reached. `own`: addresses of the report's own header, lower case, which fail only in a
    place of their own; `expected`: recipients that the returned message names, lower case."""
    places = list(_places(lines, own, expected))
    if not places:
        return []
    best = max(place.rank for place in places)
    if best <= 2:
        named = [place for place in places if place.address.lower() in expected]
        distinct = {place.address.lower() for place in places if place.rank == best}
        chosen = named or (places if len(distinct) == 1 else [])
    else:
        chosen = [place for place in places if place.rank == best]
        if best < 5:
            confirmed = [place for place in chosen if place.address.lower() in expected]
            chosen = confirmed or chosen
    found: dict[str, Found] = {}
    looks: dict[str, int] = {}
    for place, (before, following) in zip(chosen, _neighbours(chosen, len(lines)), strict=True):
        name = place.address.lower()
        known = found.get(name)
        if known is None and len(found) == MAX_RECIPIENTS:
            break
        if known is None or (looks[name] < _LOOKS_MAX and not codes.reply_code(known.said)):
            looks[name] = looks.get(name, 0) + 1
            said = diagnostic(lines, place.line, following, before, place.address)
            if known is None or not known.said or codes.reply_code(said):
                found[name] = Found(place.address, said, place.rank)
    return list(found.values())


def _neighbours(chosen: list[_Place], end: int) -> list[tuple[int, int]]:
    """For each place, in the order of lines: the last line in front and the first behind that speak of another address."""
    names = [place.address.lower() for place in chosen]
    before, behind = [-1] * len(chosen), [end] * len(chosen)
    for at in range(1, len(chosen)):
        before[at] = before[at - 1] if names[at] == names[at - 1] else chosen[at - 1].line
    for at in range(len(chosen) - 2, -1, -1):
        behind[at] = behind[at + 1] if names[at] == names[at + 1] else chosen[at + 1].line
    return list(zip(before, behind, strict=True))


def _places(lines: list[str], own: Collection[str], expected: Collection[str]) -> Iterator[_Place]:
    seen = 0
    for number, line in enumerate(lines):
        if "@" not in line:
            continue
        matches = list(islice(ADDRESS.finditer(line), _LINE_MAX))
        for match in matches:
            seen += 1
            if seen > _ADDRESSES_MAX:
                return
            address = _cleaned(match[0])
            if not address:
                continue
            rank = _rank(lines, number, line, match, len(matches))
            lowered = address.lower()
            if rank and lowered in own and not (rank == 5 and lowered in expected) and not (rank >= 4 and not expected):
                rank = 0
            if rank and rank < 5 and lowered.partition("@")[0] in _ROLES and lowered not in expected:
                rank = min(rank, 4) if rank == 4 else 0
            if rank:
                yield _Place(address, number, rank)


def _cleaned(text: str) -> str:
    """The address without what a sentence puts around it; empty where it is none."""
    text = text.strip("'`*=|{}~").rstrip(".").lstrip(".#&/!?")
    local, _, domain = text.rpartition("@")
    if not local or "." not in domain or ".." in text or domain.rpartition(".")[2].isdigit():
        return ""
    return text


def _rank(lines: list[str], number: int, line: str, match: re.Match[str], count: int) -> int:
    front = line[max(0, match.start() - _BESIDE) : match.start()]
    behind = line[match.end() : match.end() + _BESIDE]
    above = lines[number - 1][-_BESIDE:].strip() if number else ""
    if _ORIGIN.search(front):
        return 1
    if _RCPT.search(front):
        return 5 if _is_refused(lines, number) else 3
    if _CODE_FIRST.match(front) and front.rstrip(" <").endswith(" to") and not _HELP.search(front):
        return 5
    if _SENDER.search(front) or _HELP.search(front) or (not front.strip(_DECORATION) and _HELP.search(above[-80:])):
        return 0
    bare = front.strip(_DECORATION)
    if not bare or _is_name(front, behind):
        rest = behind.strip(_DECORATION)
        if (
            not rest
            or rest.lower() in (match[0].lower(), f"mailto:{match[0].lower()}")
            or behind.startswith("<mailto:")
        ):
            return 5
        if _BEHIND.match(behind):
            return 5
    if _CODE_IN_FRONT.match(front) and behind.lstrip("> ").startswith(("...", ":")):
        return 5
    if _TO_FIELD.match(front):
        return 1
    if _LABEL.search(front) and count == 1:
        return 4
    sentence = f"{above[-120:] if len(front) < 60 else ''} {front}"
    if words.FAILURE.search(sentence):
        return 4
    return 2 if words.FAILURE.search(behind) or _REFUSED.search(front) else 0


def _is_name(front: str, behind: str) -> bool:
    """Whether the address stands in angle brackets behind a quoted name: "Jo" <jo@there.test>."""
    return (
        front.rstrip().endswith("<")
        and front.strip().startswith('"')
        and behind.startswith(">")
        and front.count('"') == 2
    )


def _is_refused(lines: list[str], number: int) -> bool:
    following = [line for line in lines[number + 1 : number + 4] if line.strip()][:1]
    return bool(following) and bool(_REFUSED.search(following[0][:40]))


def diagnostic(lines: list[str], at: int, following: int, before: int, address: str) -> str:
    """What the text says of the address in line `at`: the host's reply where there is one behind it, else the paragraphs
    behind it, else those in front."""
    if summed_up := _summed_up(lines, at):
        return summed_up[:MAX_DIAGNOSTIC]
    first = _first_of_reply(lines, at)
    if first < at:
        return (_reply("\n".join(lines[first : min(following, at + 10)])) or "")[:MAX_DIAGNOSTIC]
    own = lines[at].replace(address, " ", 1)
    behind = _paragraphs([own, *lines[at + 1 : min(following, at + 40)]])
    near = behind[0] if behind and "\n" in behind[0] and len(behind[0].strip(_DECORATION)) > 11 else ""
    if len(behind) and len(behind[0].strip(_DECORATION)) < 6:
        behind = behind[1:]
    for paragraph in behind[:8]:
        if (reply := _reply(paragraph)) is not None:
            return reply[:MAX_DIAGNOSTIC]
    told = " ".join(part for part in behind[:3] if words.FAILURE.search(part) or len(part) < 120 or part is near)
    in_front = _paragraphs(lines[max(before + 1, at - 20) : at])
    if not words.FAILURE.search(told):
        replies = [reply for part in in_front[::-1] if (reply := _reply(part)) is not None]
        told = replies[0] if replies else told if near else " ".join([told, *in_front[-3:]])
    return " ".join(told.split())[:MAX_DIAGNOSTIC]


def _summed_up(lines: list[str], at: int) -> str:
    """What the host or program said that sendmail sums up in line `at` ("554 <a@b>... Service unavailable"), in the line above."""
    above = lines[at - 1].strip() if at else ""
    if len(above) < 9 or not _SUMMARY.match(lines[at]) or not (found := _SUMMED_UP.match(above)):
        return ""
    return codes.tidy(found[1], codes.reply_code(found[1]))


def _first_of_reply(lines: list[str], at: int) -> int:
    """The first line of the reply of several lines (RFC 5321 4.2.1) that line `at` continues; `at` where it continues none."""
    code = lines[at].strip()[:3]
    if not re.fullmatch("[45][0-5][0-9]", code):
        return at
    while at and lines[at - 1].strip().startswith(f"{code}-"):
        at -= 1
    return at


def _paragraphs(lines: list[str]) -> list[str]:
    found: list[str] = [""]
    for line in lines:
        if line.strip(" \t>|"):
            found[-1] += "\n" + line.strip()
        elif found[-1]:
            found.append("")
    return [part for part in found if part]


def _reply(paragraph: str) -> str | None:
    """A paragraph from the reply code on that it quotes; None where it quotes none."""
    at = re.search(r"(?:^|[\s:>(\[\"'=<-])([45][0-7]\d)(?:[ -](?=\S)|\s*[:;,])|#?\b5\.\d\.\d{1,3}\b", paragraph)
    if not at or (at[1] and not codes.reply_code(paragraph[at.start(1) :])):
        return None
    begin = at.start(1) if at[1] else 0
    above, _, line = paragraph[:begin].rpartition("\n")
    if not line.strip() and (said := _summed_up([above.rpartition("\n")[2], paragraph[begin:].partition("\n")[0]], 1)):
        return said
    if end := _NEXT_TALK.search(paragraph, begin + 4):
        paragraph = paragraph[: end.start()]
    return codes.tidy(paragraph[begin:], codes.reply_code(paragraph[begin:]))


def whole(lines: list[str]) -> str:
    """What the text says as a whole: the reply that it quotes, else its words."""
    parts = _paragraphs(lines[:100])
    replies = [reply for part in parts if (reply := _reply(part)) is not None]
    return (replies[0] if replies else " ".join(" ".join(parts).split()))[:MAX_DIAGNOSTIC]


def local_names(lines: list[str], domain: str) -> list[Found]:
    """Names without a domain that a host lists as its own recipients, under a line that says that mail failed: at the
    domains that the text gives for NAME, else at `domain`."""
    for number, line in enumerate(lines[:60]):
        if not line.rstrip().endswith(":") or not words.FAILURE.search(
            " ".join(lines[max(0, number - 2) : number + 1])
        ):
            continue
        names = [found[1] for found in map(_LOCAL_NAME.match, lines[number + 1 : number + 12]) if found]
        blank = [one for one in lines[number + 1 : number + 12] if one.strip()]
        if names and blank and _LOCAL_NAME.match(blank[0]):
            domains = list(dict.fromkeys(_NAME_FORM.findall("\n".join(lines)))) or [domain]
            said = whole(lines)
            return [Found(f"{name}@{at}", said, 3) for name in dict.fromkeys(names[:1]) for at in domains]
    return []
