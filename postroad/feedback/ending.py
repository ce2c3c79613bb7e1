"""Where the host's own text ends and the returned message begins, in mail that has no part of its own for it."""

import re

from postroad.feedback import words

LINES_MAX = 1_000
LINE_MAX = 500  # characters of a line
_ORIGINAL_LINE = re.compile(
    r"^[\s>]{0,20}[-=*|#_+~]{2,}+.{0,40}(?:(?:original|returned|unsent|undelivered|forwarded|source|bounced|rejected|attached) (?:e-?)?(?:mail|message)|(?:e-?mail|message) (?:headers?|text|body|source|contents?)\b|copy of (?:the|your|this)|(?:below this line|headers? of the))"
    r"|^[\s>]{0,20}[-=*|#_+~]{2,}+.{0,80}(?:follow(?:s|ing)|returned|attached|enclosed|original|below)[\s:.|*=_#+~-]{0,80}$(?<!transcript of session follows)"
    r"|^\s{0,8}(?:included |here |below |following |this |attached )?(?:is |are )?(?:a |the )?(?:copy of )?(?:the |your )?(?:original|returned|unsent|undelivered|old|source)? ?(?:e-?mail|message|mail)?'?s? ?(?:headers?|text|body|message|mail)? (?:is |are )?follow(?:s|ing)?(?: below)?[.:]?\s*$"
    r"|^\s{0,8}(?:included |here |below |following |attached )?(?:is )?(?:a )?copy of (?:the|your) (?:original )?(?:message|mail|e-mail)(?: headers?)?[.:]?\s*$"
    r"|^\s{0,8}(?:original|old|returned|undelivered|unsent|rejected) (?:message|mail|e-mail)(?: headers?| text| content)?\s?:\s*$|^\s{0,8}original message (?:headers?|follows)"
    r"|^\s{0,8}[-=]{3,}.{0,3}(?:original|元の|原文|原邮件|原始|ursprüngliche|message d.origine|mensaje original|messaggio originale)",
    re.IGNORECASE,
)
_LOG_LINE = re.compile(
    r"transcript of session|message log|failed addresses|session follows|error (?:detail|message|text)|diagnostic",
    re.IGNORECASE,
)
_FIELD = re.compile(
    r"^ {0,4}(Received|Return-Path|X-[\w-]{1,60}|DKIM-Signature|Message-ID|MIME-Version|Content-[\w-]{1,40}|From|To|Subject|Date|Delivered-To|Reply-To|Cc|Sender|Received-SPF|User-Agent|List-[\w-]{1,40}|ARC-[\w-]{1,40}|References|In-Reply-To) ?:",
    re.IGNORECASE,
)
_ONLY_MAIL = ("received", "return-path", "x-", "dkim-", "message-id", "mime-", "content-", "list-", "arc-")


def body_and_original(text: str) -> tuple[list[str], str]:
    """The lines that the host wrote, and the returned message behind them (may be empty)."""
    lines = [line[:LINE_MAX] for line in text.split("\n", 4 * LINES_MAX)[: 4 * LINES_MAX]]
    run, only_mail = 0, False  # header fields in a row, and whether one of them stands in mail only
    for number, line in enumerate(lines[: 2 * LINES_MAX]):
        if number and len(line) > 7 and _ORIGINAL_LINE.search(line) and not _LOG_LINE.search(line):
            return lines[:number][:LINES_MAX], "\n".join(_from_header(lines[number + 1 :]))
        field = _FIELD.match(line)
        if field:
            run, only_mail = run + 1, only_mail or field[1].lower().startswith(_ONLY_MAIL)
            if run >= 3 and only_mail and not (line.startswith(" ") and _is_said_on(lines, number)):
                begin = _first_of_run(lines, number)
                return lines[:begin][:LINES_MAX], "\n".join(lines[begin:])
        elif not line[:1].isspace() or not line.strip():
            run, only_mail = 0, False
    return lines[:LINES_MAX], ""


def _is_said_on(lines: list[str], number: int) -> bool:
    """Whether the host only lists fields of the message, indented, and says behind them what became of it."""
    for line in lines[number + 1 : number + 20]:
        if line.strip() and not line.startswith(" "):
            return _FIELD.match(line) is None and words.FAILURE.search(line) is not None
    return False


def _first_of_run(lines: list[str], number: int) -> int:
    while number and (
        _FIELD.match(lines[number - 1]) or (lines[number - 1][:1].isspace() and lines[number - 1].strip())
    ):
        number -= 1
    while number < len(lines) and not _FIELD.match(lines[number]):
        number += 1
    return number


def _from_header(lines: list[str]) -> list[str]:
    """The lines from the first header field on, where one comes soon."""
    for number, line in enumerate(lines[:12]):
        if _FIELD.match(line):
            return [line.lstrip() if line[:1].isspace() and _FIELD.match(line) else line for line in lines[number:]]
    return []
