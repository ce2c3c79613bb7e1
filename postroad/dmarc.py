"""DMARC records (RFC 7489): what a domain asks of receivers, and whether names align.

The organisational domain comes from the tree walk of the revised DMARC (draft-ietf-dmarc-dmarcbis 4.10), which needs no list of
public suffixes: the records in DNS say themselves where an organisation begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from postroad.spf import Ask

Policy: TypeAlias = Literal["none", "quarantine", "reject"]
QUERIES_MAX = 8  # dmarcbis 4.10: names with more labels are cut


class DmarcError(ValueError):
    """A record that receivers ignore; says why."""


@dataclass(frozen=True, slots=True)
class Dmarc:
    """A record. `strict_*`: whether a subdomain is another name there; `psd`: y, n or u (not said)."""

    domain: str
    policy: Policy
    subdomain_policy: Policy
    strict_dkim: bool = False
    strict_spf: bool = False
    reports: tuple[str, ...] = ()
    percent: int = 100
    psd: str = "u"


def parse(domain: str, text: str) -> Dmarc:
    """The record of a domain. Raises DmarcError; unknown tags are ignored (RFC 7489 6.3)."""
    pairs = [part.partition("=") for part in text.split(";") if part.strip()]
    tags: dict[str, str] = {}
    for name, equals, value in pairs:
        if not equals:
            raise DmarcError(f"{name.strip()!r} is not written tag=value; tags are divided by semicolons")
        if name.strip().lower() in tags:
            raise DmarcError(f"the tag {name.strip()} stands twice")
        tags[name.strip().lower()] = value.strip()
    policy = tags.get("p", "").lower()
    if policy not in ("none", "quarantine", "reject"):
        if "p" in tags or not tags.get("rua"):
            raise DmarcError(f"p={tags['p']!r} is not none, quarantine or reject" if "p" in tags else "p= is missing")
        policy = "none"  # RFC 7489 6.6.3: reports are asked for, so taken as p=none
    below = tags.get("sp", policy).lower()
    for name in ("adkim", "aspf"):
        if tags.get(name, "r").lower() not in ("r", "s"):
            raise DmarcError(f"{name}={tags[name]!r} is neither r (relaxed) nor s (strict)")
    percent = tags.get("pct", "100")
    if not (percent.isascii() and percent.isdigit() and len(percent) <= 3 and int(percent) <= 100):
        raise DmarcError(f"pct={percent!r} is no number from 0 to 100")
    if below not in ("none", "quarantine", "reject"):
        raise DmarcError(f"sp={below!r} is not none, quarantine or reject")
    reports = tuple(each.strip() for each in tags.get("rua", "").split(",") if each.strip())
    return Dmarc(
        domain, policy, below, tags.get("adkim", "").lower() == "s", tags.get("aspf", "").lower() == "s",  # type: ignore[arg-type]
        reports, int(percent), tags.get("psd", "u").lower(),
    )  # fmt: skip


def records(domain: str, ask: Ask) -> list[str]:
    """The DMARC records of one name; more than one is as none (RFC 7489 6.6.3)."""
    return [
        text for text in ask(f"_dmarc.{domain}", "TXT") if text.partition(";")[0].replace(" ", "").upper() == "V=DMARC1"
    ]


def walk(domain: str, ask: Ask) -> list[Dmarc]:
    """The valid records from a name up to the root, nearest first. Raises spf.Temporary."""
    labels = domain.rstrip(".").lower().split(".")
    names = [".".join(labels[at:]) for at in range(len(labels))]
    if len(names) > QUERIES_MAX:
        names = [names[0], *names[-(QUERIES_MAX - 1) :]]
    found = []
    for name in names:
        texts = records(name, ask)
        if len(texts) == 1:
            try:
                found.append(parse(name, texts[0]))
            except DmarcError:
                continue
            if found[-1].psd in ("y", "n"):
                break
    return found


def organisation(domain: str, ask: Ask) -> str:
    """The organisational domain of a name; the name itself where no record says one. Raises spf.Temporary."""
    found = walk(domain, ask)
    if not found:
        return domain
    last = found[-1]
    if last.psd == "y" and last.domain != domain:  # one label below the public suffix
        return ".".join(domain.split(".")[-len(last.domain.split(".")) - 1 :])
    return last.domain


def aligned(name: str, author: str, strict: bool, ask: Ask) -> bool:
    """Whether a domain that was authenticated may speak for the domain of From (RFC 7489 3.1). Raises spf.Temporary."""
    if strict or name == author:
        return name == author
    if name.endswith("." + author) or author.endswith("." + name):
        return True
    return organisation(name, ask) == organisation(author, ask)
