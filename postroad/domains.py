"""A sender's domain in DNS: the records to publish, and in plain words what is wrong with those that are there.

DKIM keys (RFC 6376, RFC 8463), SPF (RFC 7208), DMARC (RFC 7489), the return path's CNAME. Keys stand in the order in which they
were made, and `active` says which sign, so their place tells the rest:

    retired (inactive) ... | active ... | pending (inactive) ...      `rotate` adds at the end, `activate` moves on, `retire` cuts

Retired keys stay published for mail that is under way: a receiver verifies when it gets the mail, days later in the worst case.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from cryptography.hazmat.primitives import serialization

from avro.records import DkimAlgorithm, DkimKey, SenderDomain
from postroad import dmarc, spf
from postroad.dkim import generate, published
from postroad.spf import Ask, Temporary

STRING_MAX = 255  # octets of one string of a TXT record (RFC 1035 3.3)
ALGORITHMS: tuple[tuple[DkimAlgorithm, str], ...] = (("rsa", "r"), ("ed25519", "e"))  # and the end of their selectors
Level: TypeAlias = Literal["ok", "weak", "wrong", "unknown"]


class DomainError(ValueError):
    """What was asked cannot be done with the domain's keys; says why and what to do."""


@dataclass(frozen=True, slots=True)
class Platform:
    """Our side: the name that holds our SPF record, the host that takes bounces (each may be empty), our addresses."""

    spf_include: str = ""
    return_path_host: str = ""
    addresses: tuple[str, ...] = ()

    def public(self) -> tuple[str, ...]:
        """The addresses that receivers can see."""
        return tuple(each for each in self.addresses if ipaddress.ip_address(each).is_global)


class Record(NamedTuple):
    """A record to publish: `name` without a final dot, `value` as one text, `why` for people."""

    name: str
    kind: Literal["TXT", "CNAME"]
    value: str
    why: str

    def zone_text(self) -> str:
        """As a line of a zone file, TXT in strings of at most 255 octets (RFC 1035 5.1)."""
        if self.kind == "CNAME":
            return f"{self.name}. IN CNAME {self.value}."
        text = self.value.replace("\\", "\\\\").replace('"', '\\"')
        strings = [f'"{text[at : at + STRING_MAX]}"' for at in range(0, len(text), STRING_MAX)]
        return f"{self.name}. IN TXT {strings[0] if len(strings) == 1 else '( ' + ' '.join(strings) + ' )'}"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is to say about one record. wrong: mail would not pass; unknown: DNS did not answer; weak: it passes, and yet."""

    level: Level
    record: str
    text: str


@dataclass
class Keys:
    """The DKIM keys of a domain by their part in a rotation."""

    retired: list[DkimKey] = field(default_factory=list)
    active: list[DkimKey] = field(default_factory=list)
    pending: list[DkimKey] = field(default_factory=list)

    @staticmethod
    def of(own: SenderDomain) -> Keys:
        """As their order tells."""
        keys = Keys()
        for key in own.get("dkim", []):
            if key.get("active", True):
                keys.retired += keys.pending  # what stood before an active one was not the latest
                keys.pending = []
                keys.active.append(key)
            else:
                keys.pending.append(key)
        return keys

    def all(self) -> list[DkimKey]:
        """In order, each with the `active` of its part."""
        old: list[DkimKey] = [{**key, "active": False} for key in self.retired]
        now: list[DkimKey] = [{**key, "active": True} for key in self.active]
        return [*old, *now, *({**key, "active": False} for key in self.pending)]  # type: ignore[list-item]


def new_keys(selector: str, taken: Iterable[str], *, active: bool) -> list[DkimKey]:
    """An RSA and an Ed25519 key, under `selector`r and `selector`e; numbered where those are `taken`."""
    used, base, number = {each.lower() for each in taken}, selector, 1
    while any(f"{base}{end}".lower() in used for _, end in ALGORITHMS):
        number += 1
        base = f"{selector}-{number}"
    return [
        {"selector": f"{base}{end}", "algorithm": algorithm, "private_key": generate(algorithm)[0], "active": active}
        for algorithm, end in ALGORITHMS
    ]


def rotate(own: SenderDomain, selector: str) -> SenderDomain:
    """With new keys, which do not sign yet. Raises DomainError while there are such."""
    keys = Keys.of(own)
    if keys.pending:
        named = ", ".join(key["selector"] for key in keys.pending)
        raise DomainError(f"{named} wait to be activated: publish and `domains activate {own['domain']}` them first")
    keys.pending = new_keys(selector, (key["selector"] for key in own.get("dkim", [])), active=False)
    return {**own, "dkim": keys.all()}


def activate(own: SenderDomain) -> SenderDomain:
    """New keys sign, those before them no more. Raises DomainError without new keys."""
    keys = Keys.of(own)
    if not keys.pending:
        raise DomainError(f"{own['domain']} has no key that waits to be activated: `domains rotate` makes new ones")
    return {**own, "dkim": Keys(keys.retired + keys.active, keys.pending).all()}


def retire(own: SenderDomain) -> tuple[SenderDomain, list[str]]:
    """Without the keys that signed before the active ones, and the names of their records. Raises DomainError if none."""
    keys = Keys.of(own)
    if not keys.retired:
        raise DomainError(f"{own['domain']} has no key from before its active ones")
    gone = [_key_name(key, own["domain"]) for key in keys.retired]
    return {**own, "dkim": Keys([], keys.active, keys.pending).all()}, gone


def records(own: SenderDomain, platform: Platform) -> list[Record]:
    """What to publish for a domain."""
    domain, path, keys = own["domain"], own.get("return_path") or own["domain"], Keys.of(own)
    why = {"active": "DKIM, signs now", "pending": "DKIM, will sign", "retired": "DKIM, verifies mail under way"}
    told = [
        Record(_key_name(key, domain), "TXT", published(key["algorithm"], key["private_key"]), text)
        for part, text in why.items()
        for key in getattr(keys, part)
    ]
    if path != domain and platform.return_path_host:
        told.append(Record(path, "CNAME", platform.return_path_host, "bounces come to us, and SPF is ours there"))
    elif path != domain:
        told.append(Record(path, "TXT", _spf_text(platform), "SPF of the return path, which is what receivers look at"))
    told.append(
        Record(domain, "TXT", _spf_text(platform),
               "SPF; add the include to the record that is there, if any: two are none")
    )  # fmt: skip
    told.append(
        Record(f"_dmarc.{domain}", "TXT", f"v=DMARC1; p=quarantine; rua=mailto:dmarc@{domain}",
               "DMARC; begin with p=none if other systems send for the domain, and read the reports")
    )  # fmt: skip
    return told


def verify(own: SenderDomain, platform: Platform, ask: Ask) -> list[Finding]:
    """What DNS says against what mail from the domain needs: at least one finding for each record."""
    domain, path, keys = own["domain"], own.get("return_path") or own["domain"], Keys.of(own)
    found: list[Finding] = []
    if not keys.active:
        found.append(Finding("wrong", "DKIM", f"no key signs mail from {domain}: `postroad domains activate {domain}`"))
    for key in (*keys.active, *keys.pending, *keys.retired):
        found += verify_key(key, domain, ask, signs=key in keys.active)
    for check in (_verify_return_path, _verify_spf, _verify_dmarc):
        try:
            found += check(domain, path, platform, ask)
        except Temporary as error:
            record = {_verify_spf: "SPF", _verify_dmarc: "DMARC"}.get(check, "return path")
            found.append(Finding("unknown", record, f"DNS does not answer ({error}); ask again"))
    return found


def passes(findings: Sequence[Finding]) -> bool:
    """Whether mail would pass: nothing is wrong, and everything was answered."""
    return not any(finding.level in ("wrong", "unknown") for finding in findings)


def verify_key(key: DkimKey, domain: str, ask: Ask, *, signs: bool) -> list[Finding]:
    """The record of one key (RFC 6376 3.6.1). One that does not sign yet, or no more, is at most weak."""
    name, bad = _key_name(key, domain), "wrong" if signs else "weak"

    def say(level: str, text: str) -> list[Finding]:
        return [Finding(level, f"DKIM {name}", text)]  # type: ignore[arg-type]

    try:
        texts = ask(name, "TXT")
        if not texts:
            if ask(f"{name}.{domain}", "TXT"):
                return say(
                    bad, f"stands at {name}.{domain}: the zone added its own name; leave {domain} out of the name"
                )
            return say(bad, "no such record: publish it")
    except Temporary as error:
        return say("unknown", f"DNS does not answer ({error}); ask again")
    if len(texts) > 1:
        return say(bad, f"{len(texts)} TXT records under one selector: receivers take any of them; leave one")
    text = texts[0]
    if text.startswith('"') or "\\;" in text:
        return say(bad, "quotes or backslashes are part of the value: enter the plain value, without them")
    pairs = [part.partition("=") for part in text.split(";") if part.strip()]
    tags = {tag.strip(): re.sub(r"\s+", "", value) for tag, _, value in pairs}
    if not all(equals for _, equals, _ in pairs) or len(tags) != len(pairs):
        return say(bad, f"is not written tag=value; tag=value: {text[:60]!r}")
    if tags.get("v", "DKIM1") != "DKIM1" or ("v" in tags and pairs[0][0].strip() != "v"):
        return say(bad, "must begin with v=DKIM1")
    if "p" not in tags:
        return say(bad, "has no key: p= is missing")
    if not tags["p"]:
        return say(bad, "the key is revoked: p= is empty")
    if tags.get("k", "rsa") != key["algorithm"]:
        return say(bad, f"k={tags.get('k', 'rsa')} is not the algorithm of our key, {key['algorithm']}")
    ours = published(key["algorithm"], key["private_key"]).rpartition("p=")[2]
    if not _same_key(tags["p"], ours):
        cut = "the value is cut off, as panels do with long ones" if ours.startswith(tags["p"]) else "another key"
        return say(bad, f"{cut}: publish the value that `postroad domains show {domain}` prints")
    if "h" in tags and "sha256" not in tags["h"].split(":"):
        return say(bad, f"h={tags['h']} does not allow sha256, which we sign with: leave h= out")
    if "s" in tags and not {"*", "email"} & set(tags["s"].split(":")):
        return say(bad, f"s={tags['s']} does not allow mail: leave s= out")
    if "y" in tags.get("t", "").split(":"):
        return say("weak", "t=y says that the domain only tests DKIM: receivers may treat its mail as not signed")
    return say("ok", "published, and the key is ours")


def _verify_return_path(domain: str, path: str, platform: Platform, ask: Ask) -> list[Finding]:
    record, host = f"return path {path}", platform.return_path_host.lower().rstrip(".")
    alias = ask(path, "CNAME")
    if host and alias and alias[0].lower().rstrip(".") == host:
        return [Finding("ok", record, f"is a CNAME of {host}")]
    if host and alias:
        return [Finding("wrong", record, f"is a CNAME of {alias[0]}, not of {host}: bounces go elsewhere")]
    hosts = ask(path, "MX")
    if not (hosts or ask(path, "A") or ask(path, "AAAA")):
        needs = f"publish the CNAME of {host}" if host and path != domain else "it needs an MX record that leads to us"
        return [
            Finding(
                "wrong", record, f"no mail can be sent there, so bounces are lost, and receivers refuse it: {needs}"
            )
        ]
    if host and ({each.lower() for each in hosts} & {host, *(each.lower() for each in ask(host, "MX"))}):
        return [Finding("ok", record, "its MX hosts are ours")]
    if path == domain:
        text = f"bounces go to the mail hosts of {domain}, not to us: `domains add --return-path bounce.{domain}` gives them a place"
        return [Finding("weak", record, text)]
    if host:
        return [
            Finding("wrong", record, f"no CNAME of {host}: bounces go to {', '.join(hosts[:3]) or 'its own address'}")
        ]
    return [Finding("weak", record, "takes mail; whether bounces reach us cannot be told: set return_path_host")]


def _verify_spf(domain: str, path: str, platform: Platform, ask: Ask) -> list[Finding]:
    record = f"SPF {path}"
    texts = spf.records(path, ask)
    if not texts:
        near = [text for text in ask(path, "TXT") if "spf1" in text.lower()]
        more = f"; {near[0][:40]!r} is none: it must begin with v=spf1 and a blank" if near else ""
        return [Finding("wrong", record, f"no SPF record at the return path{more}")]
    if len(texts) > 1:
        return [
            Finding("wrong", record, f"{len(texts)} SPF records: receivers take that for an error; make one of them")
        ]
    cost = spf.survey(path, ask)
    found = [Finding("wrong", record, fault) for fault in cost.faults]
    if cost.lookups > spf.LOOKUPS_MAX:
        text = f"{cost.lookups} DNS look-ups with all that it includes; above {spf.LOOKUPS_MAX} receivers take it for an error: include less"
        found.append(Finding("wrong", record, text))
    if cost.voids > spf.VOIDS_MAX:
        text = f"{cost.voids} of its names do not exist; above {spf.VOIDS_MAX} receivers take that for an error: remove them"
        found.append(Finding("wrong", record, text))
    found += [
        Finding(
            "wrong", record, f"+all in {name} lets everybody send: receivers trust it in nothing; write -all or ~all"
        )
        for name in cost.open
    ]
    results = {each: spf.check(each, f"b@{path}", path, ask).result(path) for each in platform.public()}
    failed = [f"{address} ({result})" for address, result in results.items() if result != "pass"]
    include, own_host = platform.spf_include.lower(), platform.return_path_host.lower()
    if failed and not found:
        told = f": add include:{include}" if include and include not in cost.included else ""
        found.append(Finding("wrong", record, f"does not let us send from {', '.join(failed[:3])}{told}"))
    elif (
        not results
        and include
        and include not in cost.included
        and not {path, *ask(path, "CNAME")} & {include, own_host}
    ):
        found.append(Finding("wrong", record, f"does not include {include}: receivers see us as a stranger"))
    if not (results or include):
        found.append(
            Finding("weak", record, "whether it lets us send cannot be told: set spf_include, or addresses of egress")
        )
    return found or [Finding("ok", record, f"lets us send; {cost.lookups} of {spf.LOOKUPS_MAX} look-ups used")]


def _verify_dmarc(domain: str, path: str, platform: Platform, ask: Ask) -> list[Finding]:
    record, texts = f"DMARC _dmarc.{domain}", dmarc.records(domain, ask)
    if len(texts) > 1:
        return [Finding("wrong", record, f"{len(texts)} DMARC records: receivers ignore them all; leave one")]
    if texts:
        try:
            rules = dmarc.parse(domain, texts[0])
        except dmarc.DmarcError as error:
            return [Finding("wrong", record, f"receivers ignore it: {error}")]
    elif above := dmarc.walk(domain, ask):
        rules = above[0]
    else:
        near = [text for text in ask(f"_dmarc.{domain}", "TXT") if "dmarc1" in text.lower()]
        more = f"; {near[0][:40]!r} is none: it must begin with v=DMARC1;" if near else ""
        return [Finding("wrong", record, f"no DMARC record: Google and Yahoo refuse bulk mail without one{more}")]
    found = []
    policy = rules.policy if rules.domain == domain else rules.subdomain_policy
    if policy == "none":
        found.append(
            Finding("weak", record, "p=none: anybody may send in this domain's name; p=quarantine or p=reject stops it")
        )
    if rules.percent < 100:
        found.append(Finding("weak", record, f"pct={rules.percent}: the policy holds for a part of the mail only"))
    if not rules.reports:
        found.append(Finding("weak", record, "no rua=: nobody tells you who sends in this domain's name"))
    if not dmarc.aligned(path, domain, rules.strict_spf, ask):
        how = "aspf=s asks for the very same name" if rules.strict_spf else "it is another organisation's name"
        text = f"the return path {path} does not align with From ({how}): DMARC passes by DKIM alone, so not where DKIM breaks"
        found.append(Finding("weak", record, text))
    if rules.strict_dkim:
        text = f"adkim=s: mail from names below {domain} is signed with d={domain}, which does not align: add each as a domain"
        found.append(Finding("weak", record, text))
    at = "" if rules.domain == domain else f", from {rules.domain}"
    return found or [Finding("ok", record, f"p={policy}{at}; DKIM (d={domain}) and return path align")]


def _key_name(key: DkimKey, domain: str) -> str:
    return f"{key['selector']}._domainkey.{domain}"


def _same_key(theirs: str, ours: str) -> bool:
    """RSA keys stand in DNS as SubjectPublicKeyInfo, by errata 3017 of RFC 6376 also as bare RSAPublicKey."""
    if theirs == ours:
        return True
    try:
        one, other = (serialization.load_der_public_key(base64.b64decode(each)) for each in (theirs, ours))
        return one == other
    except (ValueError, binascii.Error):
        return False


def _spf_text(platform: Platform) -> str:
    if platform.spf_include:
        return f"v=spf1 include:{platform.spf_include} ~all"
    networks = [f"ip{ipaddress.ip_address(each).version}:{each}" for each in platform.public()]
    return " ".join(["v=spf1", *networks, "~all"])
