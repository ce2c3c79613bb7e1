"""Header fields as they are written: folded, encoded where they are not ASCII. RFC 5322 2.2.3, RFC 2047, RFC 6532."""

import re
from collections.abc import Iterable
from email.header import Header as EncodedHeader

from avro.records import Mailbox
from postroad.addresses import BadAddress, normalise

LINE_SOFT_MAX = 76  # RFC 2047 2, for lines with encoded words; RFC 5322 2.1.1 says 78 for the others
LINE_MAX = 998  # RFC 5322 2.1.1: MUST, without CRLF
CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]+")  # a break, in some reader: in no header

_ATOMS = re.compile(r"[\w!#$%&'*+/=?^`{|}~ -]+", re.ASCII)  # a phrase that needs no quotes
_FOLD_AT = re.compile(r"[ \t]+(?=[^ \t])")


def unstructured(name: str, text: str) -> str:
    """Body of a field for people to read, folded; non-ASCII text as encoded words (RFC 2047)."""
    text = text.strip()
    if text.isascii() and "=?" not in text:  # what looks like an encoded word is shown as it was written
        return fold(name, text)
    return EncodedHeader(text, "utf-8", header_name=name).encode(linesep="\r\n")


def mailbox_list(name: str, mailboxes: Iterable[Mailbox]) -> str:
    """Body of an address field, folded. What is not an address is left out: its own message says so.

    Domains are written as A-labels, so only a non-ASCII local part makes the header need SMTPUTF8.
    """
    written = []
    for mailbox in mailboxes:
        try:
            address = normalise(mailbox["address"]).text
        except BadAddress:
            continue
        shown = mailbox.get("name", "").strip()
        written.append(f"{_phrase(shown)} <{address}>" if shown else address)
    return fold(name, ", ".join(written))


def fold(name: str, text: str) -> str:
    """Text broken at white space into lines of at most 76 characters where that is possible; tokens stay whole."""
    if len(name) + 2 + len(text) <= LINE_SOFT_MAX:
        return text
    lines: list[str] = []
    begin, last = 0, 0
    width = LINE_SOFT_MAX - len(name) - 2
    for match in _FOLD_AT.finditer(text):
        if match.start() - begin > width and last > begin:
            lines.append(text[begin:last])
            begin, width = last, LINE_SOFT_MAX
        last = match.start()
    if len(text) - begin > width and last > begin:
        lines.append(text[begin:last])
        begin = last
    lines.append(text[begin:])
    return "\r\n".join(lines)


def _phrase(name: str) -> str:
    if not name.isascii() or "=?" in name:
        return EncodedHeader(name, "utf-8", maxlinelen=75).encode(
            linesep=""
        )  # words with spaces between; fold comes after
    if _ATOMS.fullmatch(name):
        return name
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
