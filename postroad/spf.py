"""SPF (RFC 7208): whether a domain lets an address send, and what a record costs a receiver who asks.

Macros included, explanations (exp=) not: they only tell a person something. Written here because the command line needs both
the verdict and the count of look-ups, and pyspf brings its own resolver; measured on the suite of openspf.org.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, TypeAlias
from urllib.parse import quote

LOOKUPS_MAX, VOIDS_MAX, NAMES_MAX = 10, 2, 10  # RFC 7208 4.6.4
Result: TypeAlias = Literal["none", "neutral", "pass", "fail", "softfail", "temperror", "permerror"]
Kind: TypeAlias = Literal["A", "AAAA", "MX", "TXT", "PTR", "CNAME"]
QUALIFIERS: dict[str, Result] = {"+": "pass", "-": "fail", "~": "softfail", "?": "neutral"}

_MACRO = r"%(?:\{[slodipvhSLODIPVH](?:[1-9][0-9]*)?[rR]?[-.+,/_=]*\}|%|_|-)"
_TOP = r"(?:[A-Za-z0-9]*[A-Za-z][A-Za-z0-9]*|[A-Za-z0-9]+-[A-Za-z0-9-]*[A-Za-z0-9])"
_STRING = re.compile(rf"(?:[\x21-\x24\x26-\x7e]|{_MACRO})*")
_END = re.compile(rf".*(?:\.{_TOP}\.?|%\{{[^}}]*\}}|%[%_-])")
_EXPANDED = re.compile(r"%\{([a-zA-Z])(\d*)([rR]?)([-.+,/_=]*)\}|%%|%_|%-")
_MODIFIER = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*)=(.*)")
_MECHANISM = re.compile(r"([-+?~]?)([A-Za-z][A-Za-z0-9_.-]*)([:/].*)?")
_HOST = re.compile(r"(?::(.+?))?(?:/(0|[1-9]\d?))?(?://(0|[1-9]\d{0,2}))?")
_LABEL = re.compile(r"[^.]{1,63}")


class Temporary(Exception):
    """A name server did not answer."""


class Ask(Protocol):
    """DNS: the records of a name, () where there are none (NXDOMAIN too). TXT with its strings joined, MX hosts in order of
    preference, names without a final dot. Raises Temporary."""

    def __call__(self, name: str, kind: Kind) -> tuple[str, ...]: ...


class SpfError(ValueError):
    """A record that receivers answer with permerror; says why."""


class Term(NamedTuple):
    """A mechanism (or redirect=) of a record. `domain` as written, macros and all; `text`: the whole term."""

    name: str
    result: Result
    domain: str
    prefix: tuple[int, int]
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None
    text: str

    @property
    def looks_up(self) -> bool:
        """Whether it counts against LOOKUPS_MAX."""
        return self.name in ("include", "a", "mx", "ptr", "exists", "redirect")


class Record(NamedTuple):
    """A record's mechanisms in order, and where redirect= points, if anywhere."""

    mechanisms: tuple[Term, ...]
    redirect: Term | None


def records(domain: str, ask: Ask) -> list[str]:
    """The SPF records among a name's TXT records (RFC 7208 4.5); there should be one."""
    return [text for text in ask(domain, "TXT") if re.match(r"v=spf1(?: |$)", text, re.IGNORECASE)]


def parse(text: str) -> Record:
    """The terms of a record. Raises SpfError, since one wrong term makes the whole record void (RFC 7208 4.6)."""
    mechanisms: list[Term] = []
    modifiers: dict[str, Term] = {}
    for word in filter(None, text.split(" ")[1:]):
        if modifier := _MODIFIER.fullmatch(word):
            name, value = modifier[1].lower(), modifier[2]
            if name in modifiers and name in ("redirect", "exp"):
                raise SpfError(f"{name}= stands twice")
            if name in ("redirect", "exp"):
                value = _domain_spec(value, word)
            elif not re.fullmatch(rf"(?:[\x21-\x24\x26-\x7e]|{_MACRO})*", value):
                raise SpfError(f"{word!r} is not a modifier")
            modifiers[name] = Term(name, "pass", value, (32, 128), None, word)
        else:
            mechanisms.append(_mechanism(word))
    return Record(tuple(mechanisms), modifiers.get("redirect"))


def _mechanism(word: str) -> Term:
    found = _MECHANISM.fullmatch(word)
    if not found:
        raise SpfError(f"{word!r} is not a mechanism")
    result, name, rest = QUALIFIERS[found[1] or "+"], found[2].lower(), found[3] or ""
    domain, prefix, network = "", (32, 128), None
    if name == "all" and not rest:
        pass
    elif name in ("include", "exists") and rest.startswith(":"):
        domain = _domain_spec(rest[1:], word)
    elif name == "ptr" and (not rest or rest.startswith(":")):
        domain = _domain_spec(rest[1:], word) if rest else ""
    elif name in ("a", "mx") and (host := _HOST.fullmatch(rest)):
        domain = _domain_spec(host[1], word) if host[1] else ""
        prefix = (int(host[2] or 32), int(host[3] or 128))
        if prefix[0] > 32 or prefix[1] > 128:
            raise SpfError(f"{word!r} has a prefix that is too long")
    elif name in ("ip4", "ip6") and re.fullmatch(r":[0-9A-Fa-f.:]+(?:/(?:0|[1-9]\d{0,2}))?", rest):
        try:
            make = ipaddress.IPv4Network if name == "ip4" else ipaddress.IPv6Network
            network = make(rest[1:], strict=False)
        except ValueError:
            raise SpfError(f"{word!r} has no {name.replace('ip', 'IPv')} network") from None
    else:
        known = ("all", "include", "exists", "ptr", "a", "mx", "ip4", "ip6")
        raise SpfError(f"{word!r} is {'not written as RFC 7208 asks' if name in known else 'no mechanism of RFC 7208'}")
    return Term(name, result, domain, prefix, network, word)


def _domain_spec(text: str, word: str) -> str:
    if not (_STRING.fullmatch(text) and _END.fullmatch(text)):
        raise SpfError(f"{word!r} names no domain")
    return text


@dataclass
class Check:
    """One evaluation (RFC 7208 4): does `ip` send for `sender`? Counts what it costs in `lookups` and `voids`."""

    ip: ipaddress.IPv4Address | ipaddress.IPv6Address
    sender: str
    helo: str
    ask: Ask
    lookups: int = 0
    voids: int = 0
    why: str = field(default="", init=False)

    def result(self, domain: str) -> Result:
        """check_host() for a domain; `why` tells of errors."""
        if not _is_name(domain) or "." not in domain.rstrip("."):
            return "none"
        try:
            return self._host(domain)
        except SpfError as error:
            self.why = str(error)
            return "permerror"
        except Temporary as error:
            self.why = str(error)
            return "temperror"

    def _host(self, domain: str) -> Result:
        found = records(domain, self.ask)
        if not found:
            return "none"
        if len(found) > 1:
            raise SpfError(f"{domain} has {len(found)} SPF records")
        if not found[0].isascii():
            raise SpfError(f"the record of {domain} is not ASCII")
        record = parse(found[0])
        for term in record.mechanisms:
            if self._matches(term, domain):
                return term.result
        if record.redirect is None or any(term.name == "all" for term in record.mechanisms):
            return "neutral"
        self._count()
        target = self._expand(record.redirect.domain, domain)
        result = self._host(target) if _is_name(target) else "none"
        if result == "none":
            raise SpfError(f"{record.redirect.text}: no record there")
        return result

    def _count(self) -> None:
        self.lookups += 1
        if self.lookups > LOOKUPS_MAX:
            raise SpfError(f"more than {LOOKUPS_MAX} DNS look-ups")

    def _look(self, name: str, kind: Kind) -> tuple[str, ...]:
        answer = self.ask(name, kind) if _is_name(name) else ()
        if not answer:
            self.voids += 1
            if self.voids > VOIDS_MAX:
                raise SpfError(f"more than {VOIDS_MAX} look-ups that find nothing")
        return answer

    def _matches(self, term: Term, domain: str) -> bool:
        if term.name == "all":
            return True
        if term.network is not None:
            return self.ip in term.network
        self._count()
        name = self._expand(term.domain, domain) if term.domain else domain
        kind: Kind = "A" if self.ip.version == 4 else "AAAA"
        if term.name == "include":
            result = self._host(name) if _is_name(name) else "none"
            if result == "none":
                raise SpfError(f"{term.text}: no SPF record there")
            return result == "pass"
        if term.name == "exists":
            return bool(self._look(name, "A"))
        if term.name == "a":
            return self._inside(self._look(name, kind), term)
        if term.name == "mx":
            hosts = self._look(name, "MX")
            if len(hosts) > NAMES_MAX:
                raise SpfError(f"{term.text}: more than {NAMES_MAX} MX hosts")
            return any(self._inside(self.ask(host, kind), term) for host in hosts if _is_name(host))
        target = name.rstrip(".").lower()
        return any(host == target or host.endswith("." + target) for host in self._validated())

    def _inside(self, found: tuple[str, ...], term: Term) -> bool:
        bits = term.prefix[self.ip.version == 6]
        return any(self.ip in ipaddress.ip_network(f"{each}/{bits}", strict=False) for each in found)

    def _validated(self) -> Iterator[str]:
        """The names of the address that lead back to it (RFC 7208 5.5)."""
        kind: Kind = "A" if self.ip.version == 4 else "AAAA"
        try:
            names = self.ask(self.ip.reverse_pointer, "PTR")[:NAMES_MAX]
        except Temporary:
            return
        for name in names:
            try:
                if str(self.ip) in {str(ipaddress.ip_address(each)) for each in self.ask(name, kind)}:
                    yield name.lower()
            except Temporary:  # RFC 7208 5.5: that name is skipped
                continue

    def _expand(self, text: str, domain: str) -> str:
        """Macros replaced (RFC 7208 7.3)."""
        local, _, sender_domain = self.sender.rpartition("@")

        def one(found: re.Match[str]) -> str:
            if found[1] is None:
                return {"%%": "%", "%_": " ", "%-": "%20"}[found[0]]
            values: dict[str, Callable[[], str]] = {
                "s": lambda: self.sender, "l": lambda: local, "o": lambda: sender_domain, "d": lambda: domain, "h": lambda: self.helo,
                "i": lambda: _dotted(self.ip), "v": lambda: "in-addr" if self.ip.version == 4 else "ip6", "p": lambda: self._name(domain),
            }  # fmt: skip
            value = values[found[1].lower()]()
            parts = re.split(f"[{re.escape(found[4] or '.')}]", value)
            if found[3]:
                parts.reverse()
            value = ".".join(parts[-int(found[2]) :] if found[2] else parts)
            return _quoted(value) if found[1].isupper() else value

        name = _EXPANDED.sub(one, text)
        while len(name.rstrip(".")) > 253:
            name = name.partition(".")[2]
        return name

    def _name(self, domain: str) -> str:
        names = list(self._validated())
        below = [name for name in names if name.endswith("." + domain.lower())]
        return next(iter([name for name in names if name == domain.lower()] + below + names), "unknown")


def check(ip: str, sender: str, helo: str, ask: Ask) -> Check:
    """The check of an address, not yet run: `.result(domain)`. An empty sender is postmaster@helo (RFC 7208 2.4)."""
    address = ipaddress.ip_address(ip)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    sender = sender or helo
    local, _, domain = sender.rpartition("@")
    return Check(address, f"{local or 'postmaster'}@{domain}", helo, ask)


@dataclass
class Survey:
    """What a record costs in the worst case, all records that it includes counted: what a receiver may meet."""

    lookups: int = 0
    voids: int = 0
    faults: list[str] = field(default_factory=list)
    included: set[str] = field(default_factory=set)  # names that it includes or redirects to, at any depth
    open: list[str] = field(default_factory=list)  # domains whose record lets everybody pass: +all


def survey(domain: str, ask: Ask, into: Survey | None = None, depth: int = 0) -> Survey:
    """Walk a domain's SPF record and all that it includes. Raises Temporary; what is wrong is in `faults`."""
    told = into or Survey()
    found = records(domain, ask)
    if len(found) != 1:
        told.faults.append(f"{domain} has {len(found) or 'no'} SPF record{'s' if len(found) > 1 else ''}")
        return told
    try:
        record = parse(found[0])
    except SpfError as error:
        told.faults.append(f"{domain}: {error}")
        return told
    if any(term.name == "all" and term.result == "pass" for term in record.mechanisms):
        told.open.append(domain)
    has_all = any(term.name == "all" for term in record.mechanisms)
    terms = [*record.mechanisms, *([record.redirect] if record.redirect and not has_all else [])]
    for term in (term for term in terms if term.looks_up):
        told.lookups += 1
        name = (term.domain or domain).rstrip(".").lower()
        if "%" in name:  # depends on the mail
            continue
        if term.name in ("include", "redirect"):
            seen, told.included = name in told.included, told.included | {name}
            if depth >= LOOKUPS_MAX or told.lookups > 5 * LOOKUPS_MAX or (seen and name == domain):
                told.faults.append(f"{domain}: {term.text} goes round in a circle, or too deep")
                return told
            survey(name, ask, told, depth + 1)
        elif term.name == "mx":
            told.voids += not ask(name, "MX")
        elif term.name in ("a", "exists"):
            told.voids += not (ask(name, "A") or (term.name == "a" and ask(name, "AAAA")))
    return told


def _is_name(name: str) -> bool:
    labels = name.removesuffix(".").split(".")
    return len(name.rstrip(".")) <= 253 and all(_LABEL.fullmatch(label) for label in labels)


def _dotted(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    return str(ip) if ip.version == 4 else ".".join(ip.exploded.replace(":", ""))


def _quoted(value: str) -> str:
    return quote(value, safe="")
