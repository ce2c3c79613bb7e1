"""Reply codes, enhanced status codes and host names in a diagnostic text. RFC 5321 4.2, RFC 3463."""

import re
from functools import lru_cache

_AT_START = re.compile(r"\s*(?:smtp[ ;:]+)?#?<?([245][0-7]\d)(?=[ \-:;,>.]|$)", re.IGNORECASE)
_SAID = re.compile(
    r"(?:said|error|response|reply|replied|answer|code|smtp|<<<|>>>|returned?|responded|message|respuesta|failed with|\]|:|^)[\w ]{0,24}[\s:;,'\"(\[#=.-]{1,5}([45][0-7]\d)(?=[ \-:;,'\")\]]|$)",
    re.IGNORECASE | re.MULTILINE,
)
_WITH_STATUS = re.compile(r"(?<![\d.])([45][0-7]\d)[ -]+[(#<]{0,2}[45]\.\d{1,3}\.\d{1,3}")
_STATUS = re.compile(r"(?<![\d.])([245]\.\d{1,3}\.\d{1,3})(?![\d.]*\.\d|\d)")
_REMOTE = re.compile(
    r"(?:\bhosts?:? |while talking to |remote (?:host|server|mta)\W{1,3}|relay (?:host )?|connect(?:ed|ion)? to |server for the recipient domain \S{1,100} by |error from remote [^\n]{0,60}\bhost |\bserver[\" ]{1,3}|>>> )"
    r"<?(\[?[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}\]?)",
    re.IGNORECASE,
)
_ADDRESS_OF_HOST = re.compile(
    r"^(?:Connected to )?(\d{1,3}(?:\.\d{1,3}){3}) (?:does not like|failed after|but)", re.MULTILINE
)


@lru_cache(maxsize=256)  # a host says the same of many recipients
def reply_code(text: str) -> int:
    """The SMTP reply code that a text quotes; 0 where there is none."""
    found = _AT_START.match(text) or _WITH_STATUS.search(text) or _SAID.search(text)
    return int(found[1]) if found else 0


def status(text: str, code: int = 0) -> str:
    """The enhanced status code that a text quotes, of the reply code's class where that is known; empty where there is none."""
    for found in _STATUS.finditer(text):
        if found[1][0] != "2" and (not code or found[1][0] == str(code)[0]):
            return found[1]
    return ""


def is_general(code: str) -> bool:
    """Whether a status says no more than its class (RFC 3463 3.1)."""
    return not code or code.endswith((".0.0", ".0"))


@lru_cache(maxsize=256)
def remote_host(text: str) -> str:
    """The host that a text says it talked to; empty where it does not."""
    found = _REMOTE.search(text) or _ADDRESS_OF_HOST.search(text)
    return found[1].strip("[].").lower() if found else ""


def tidy(text: str, code: int) -> str:
    """A reply in one line, without the repeated codes of its continuation lines (RFC 5321 4.2.1)."""
    text = " ".join(text.split())
    if code:
        text = re.sub(rf"(?<=[^\d.]){code}-(?:[245]\.\d{{1,3}}\.\d{{1,3}} ?)?", "", text)
        text = re.sub(rf"(?<=\w )(?<!said: ){code} (?:[245]\.\d{{1,3}}\.\d{{1,3}} )", "", text)
    return text
