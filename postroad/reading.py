"""What a mail shows: subject, text, HTML, links and file names, out of any bytes that call themselves a mail.

Never fails and does bounded work: the sender of the mail is the adversary. RFC 2045, 2046, 2047, 2183, 2231 as readers
follow them, not as the grammar wants it: what is broken is read like a lenient mail program would.
"""

import binascii
import codecs
import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.header import decode_header, make_header
from itertools import islice
from urllib.parse import unquote

TEXT_MAX = 256 * 1024  # encoded bytes of text and HTML that are looked at
PARTS_MAX = 200
DEPTH_MAX = 20
LINKS_MAX = 500
_MARKS_MAX = 20 * PARTS_MAX  # lines that begin like a boundary of one multipart
HEADER_MAX = 64 * 1024  # bytes of one header section
_WORD_MAX = 2_000  # characters of one field or file name

_UNFOLD = re.compile(r"\r?\n[ \t]+")
_PARAMETER = re.compile(r';\s*([\w*-]{1,40})\s*=\s*(?:"((?:[^"\\]|\\.){0,1000})"|([^\s;"]{0,1000}))')
_OPEN_A = re.compile(r"<a\s[^<>]{0,2000}>", re.IGNORECASE)
_HREF = re.compile(r"""href\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>]+))""", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]*>")
_URL = re.compile(r"https?://[^\s<>\"']{1,2000}", re.IGNORECASE)
_AUTHORITY = re.compile(r"(?:[a-z][a-z0-9+.-]{0,20}:)?[/\\]{2}([^/\\?#\s]*)", re.IGNORECASE)
_ENCODED_LEFT = re.compile(rb"[^A-Za-z0-9+/]+")
_CHARSET_MAX = 40  # characters; Python keeps every name that it was asked for
_NO_TEXT_CODECS = ("idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape")  # slow, or not of mail
LONG_REFERENCE = re.compile(r"&#(?=[0-9]{1000})0*([0-9]{0,7})[0-9]*")  # int() refuses more than 4,300 digits


@dataclass(frozen=True, slots=True)
class Link:
    """A link. `url` and `text` (empty for a bare URL) are unescaped; `host` is lower case, empty where there is none."""

    url: str
    text: str
    host: str
    userinfo: str


@dataclass(slots=True)
class Sample:
    """What was found. `text` and `page` (HTML): all parts of the kind, one after the other."""

    subject: str = ""
    sender: str = ""
    text: str = ""
    page: str = ""
    files: list[str] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)

    def words(self) -> str:
        """Subject and text as a reader sees them, HTML without its tags."""
        page = LONG_REFERENCE.sub(r"&#\1", _TAG.sub(" ", self.page))
        return f"{self.subject}\n{self.text}\n{html.unescape(page)}"


def read(raw: bytes) -> Sample:
    """Read a mail. Any bytes give a Sample."""
    sample = Sample()
    top = header_fields(raw[:HEADER_MAX])[0]
    sample.subject, sample.sender = decoded_words(top.get("subject", "")), decoded_words(top.get("from", ""))
    texts: list[str] = []
    pages: list[str] = []
    left = TEXT_MAX
    for fields, begin, end in islice(leaves(raw), PARTS_MAX):
        kind = fields.get("content-type", "text/plain").partition(";")[0].strip().lower()
        sample.files.extend(_file_names(fields))
        if left > 0 and (kind.startswith("text/") or "/" not in kind):
            body = decoded(raw[begin : min(end, begin + left)], fields)
            left -= min(end - begin, left)
            (pages if kind == "text/html" else texts).append(body)
    sample.text, sample.page = "\n".join(texts), "\n".join(pages)
    sample.links = list(islice(_links(sample.text, sample.page), LINKS_MAX))
    return sample


def leaves(raw: bytes) -> Iterator[tuple[dict[str, str], int, int]]:
    """Header fields and the place of the body of every part that is no multipart, in order."""
    waiting = [(0, len(raw), 0)]
    seen = 0
    while waiting and seen < 2 * PARTS_MAX:
        seen += 1
        begin, end, depth = waiting.pop()
        fields, body = header_fields(raw[begin : min(end, begin + HEADER_MAX)], begin)
        kind = fields.get("content-type", "").lstrip().lower()
        if depth < DEPTH_MAX and kind.startswith("multipart/"):
            inside = split_parts(raw, body, end, parameter(fields["content-type"], "boundary"))
            if inside:
                waiting += [(first, last, depth + 1) for first, last in reversed(inside)]
                continue
        elif depth < DEPTH_MAX and kind.startswith("message/rfc822"):
            waiting.append((body, end, depth + 1))
            continue
        yield fields, body, end


def header_fields(section: bytes, begin: int = 0) -> tuple[dict[str, str], int]:
    """First value of each header field by lower-case name, and where the body begins."""
    first = section[:2]
    if first[:1] == b"\n" or first == b"\r\n":
        return {}, begin + (1 if first[:1] == b"\n" else 2)
    ends = [(found, width) for mark, width in ((b"\n\r\n", 3), (b"\n\n", 2)) if (found := section.find(mark)) >= 0]
    found, width = min(ends, default=(len(section), 0))
    fields: dict[str, str] = {}
    for line in _UNFOLD.sub(" ", section[:found].decode("utf-8", "replace")).split("\n"):
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip().lower(), value.strip())
    return fields, begin + found + width


def split_parts(raw: bytes, begin: int, end: int, boundary: str) -> list[tuple[int, int]]:
    """Places of the parts between the boundary lines."""
    mark = b"\n--" + boundary.encode("utf-8", "replace")
    places: list[tuple[int, int]] = []
    opened = 0  # where the open part begins; 0 in front of the first
    at = raw.find(mark, begin - 1, end) if boundary else -1
    for _ in range(_MARKS_MAX):
        if at < 0 or len(places) == PARTS_MAX:
            break
        line_end = raw.find(b"\n", at + 1, end)
        tail = raw[at + len(mark) : line_end if line_end >= 0 else end].strip()
        if tail in (b"", b"--"):  # else it is the longer boundary of a part inside
            if opened:
                places.append((opened, at))
            opened = line_end + 1
            if tail or not opened:
                return places
        at = raw.find(mark, at + len(mark), end)
    if opened:
        places.append((opened, end))
    return places


def parameter(value: str, name: str) -> str:
    """A parameter of a structured field, its RFC 2231 pieces put together."""
    pieces = []
    extended = False
    for key, quoted, bare in _PARAMETER.findall(value[: 4 * _WORD_MAX]):
        base, star, _ = key.lower().partition("*")
        if base == name:
            extended |= bool(star) and key.endswith("*")
            pieces.append(re.sub(r"\\(.)", r"\1", quoted) if quoted else bare)
    joined = "".join(pieces)
    return unquote(joined.rpartition("'")[2], errors="replace") if extended else joined


def _file_names(fields: dict[str, str]) -> Iterator[str]:
    for header, name in (("content-disposition", "filename"), ("content-type", "name")):
        value = fields.get(header, "")
        if name in value.lower() and (found := decoded_words(parameter(value, name))):
            yield found


def decoded_words(text: str) -> str:
    text = text[:_WORD_MAX]
    if "=?" not in text:
        return text
    try:
        return str(make_header(decode_header(text)))
    except Exception:  # the library fails in many ways on hostile words; a reader then sees them as they stand
        return text


def decoded(body: bytes, fields: dict[str, str]) -> str:
    encoding = fields.get("content-transfer-encoding", "").strip().lower()
    if encoding == "base64":
        body = _ENCODED_LEFT.sub(b"", body)
        if len(body) % 4 == 1:
            body = body[:-1]  # six bits are no byte
        body = binascii.a2b_base64(body + b"=" * (-len(body) % 4))
    elif encoding == "quoted-printable":
        body = binascii.a2b_qp(body)
    charset = parameter(fields.get("content-type", ""), "charset")[:_CHARSET_MAX] or "utf-8"
    try:
        # by the codec's own name: Python finds punycode under "-Punycode!" as well
        if codecs.lookup(charset).name.replace("-", "_") not in _NO_TEXT_CODECS:
            return body.decode(charset, "replace")
    except (LookupError, ValueError):  # no such codec, or a name that is none
        pass
    return body.decode("latin-1")


def _links(text: str, page: str) -> Iterator[Link]:
    for match in _OPEN_A.finditer(page):
        href = _HREF.search(match[0])
        if href:
            close = page.find("</", match.end(), match.end() + 500)
            shown = page[match.end() : close] if close >= 0 else ""
            yield _link(html.unescape(href[1] or href[2] or href[3] or ""), html.unescape(_TAG.sub("", shown)))
    yield from (_link(url, "") for url in _urls(text))


def _urls(text: str) -> Iterator[str]:
    """What `_URL.finditer` finds, by "://", which is looked for thirty times faster than a scheme in any case."""
    at = text.find("://")
    while at >= 0:
        found = (at >= 5 and _URL.match(text, at - 5)) or (at >= 4 and _URL.match(text, at - 4))
        if found:
            yield found[0]
        at = text.find("://", found.end() if found else at + 3)


def _link(url: str, text: str) -> Link:
    url = url.strip()
    match = _AUTHORITY.match(url)
    userinfo, _, place = match[1].rpartition("@") if match else ("", "", "")
    host = place.partition("]")[0] + "]" if place.startswith("[") else place.partition(":")[0]
    return Link(url, text.strip(), unquote(host, errors="replace").lower().rstrip("."), userinfo)
