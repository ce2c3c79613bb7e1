"""The sites of the farm: MX hosts, addresses, domains and how each one answers.

A site is added by a line in SITES: host names share all but their leftmost label (the road names sites by it), addresses
are free ones of 127.0.0.0/8. Everything else a name server can say to a sender stands below the table.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, get_args

Mode = Literal["accept", "refuse", "silent", "unreachable", "stall-in-data", "close-after-data"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True)
class Behaviour:
    """How the receivers of one site answer; every field can be changed while the farm runs.

    mode: accept; refuse (nothing listens); silent (connects, never says a word); unreachable (no SYN is answered, Linux);
    stall-in-data (354, then nothing); close-after-data (takes the message, then closes without a reply).
    """

    mode: Mode = "accept"
    starttls: bool = False
    delay_ms: float = 0  # before each reply
    connections: int = 0  # at once, more get 421; 0: no limit
    greylist_s: float = 0  # from the first try of (sender, recipient) until it is taken
    drop_first: bool = False  # cut the connection inside DATA on the first try of (sender, recipients)
    drop_after_dot: float = 0  # share of messages, 0 to 1, that end like close-after-data
    replies: Mapping[str, str] = field(default_factory=dict)  # reply to RCPT by start of the local part, first match
    size: int = 40_000_000  # bytes of one message
    returns: Mapping[str, str] = field(default_factory=dict)  # what comes back, by start of the local part: returns.py
    returns_to: str = ""  # the inbound MX, host:port; empty: nothing comes back
    feedback_to: str = ""  # address for complaints; DSNs go to the return path

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode {self.mode!r} is none of {', '.join(MODES)}")
        for name in ("delay_ms", "connections", "greylist_s", "drop_after_dot", "size"):
            if not isinstance(value := getattr(self, name), int | float) or value < 0:
                raise ValueError(f"{name} is {value!r}, must be a number and not negative")
        for what in self.returns.values():
            if what.partition(" ")[0] not in ("dsn", "arf"):
                raise ValueError(f"returns {what!r} is neither dsn STATUS TEXT nor arf TYPE")
        for reply in self.replies.values():
            if not reply[:3].isdigit():
                raise ValueError(f"reply {reply!r} does not begin with a code of three digits")


@dataclass(frozen=True)
class Host:
    """One MX host: name, loopback address, preference; nothing ever listens where `listens` is false."""

    name: str
    address: str
    preference: int = 10
    listens: bool = True


@dataclass(frozen=True)
class Site:
    """The MX hosts that one operator runs, and the domains whose mail they take; `*.domain` stands for all below it."""

    name: str
    hosts: tuple[Host, ...]
    domains: tuple[str, ...]
    behaviour: Behaviour = Behaviour()


def write(path: Path, sites: Iterable["Site"]) -> Path:
    """Sites as a file for `python -m loadtest.mxfarm --sites`."""
    path.write_text(json.dumps([asdict(site) for site in sites], ensure_ascii=False), "utf-8")
    return path


def read(path: Path) -> tuple["Site", ...]:
    """The sites of such a file."""
    return tuple(
        Site(
            one["name"],
            tuple(Host(**host) for host in one["hosts"]),
            tuple(one["domains"]),
            Behaviour(**one["behaviour"]),
        )
        for one in json.loads(path.read_text("utf-8"))
    )


def _site(name: str, last_octet: int, behaviour: Behaviour, *more_domains: str) -> Site:
    host = Host(f"mx1.{name}.test", f"127.0.0.{last_octet}")
    return Site(name, (host,), (f"{name}.test", *more_domains), behaviour)


SITES: tuple[Site, ...] = (
    Site(
        "accept",
        (Host("mx1.accept.test", "127.0.0.11"), Host("mx2.accept.test", "127.0.0.12", 20)),
        ("accept.test", "shop.test", "verein.test", "bücher.test", "*.many.test"),
    ),
    _site("starttls", 13, Behaviour(starttls=True), "bank.test"),
    _site("greylist", 14, Behaviour(greylist_s=2), "university.test"),
    _site("unknown", 15, Behaviour(replies={"unknown": "550 5.1.1 no such user here"})),
    _site(
        "full",
        16,
        Behaviour(replies={"full": "552 5.2.2 mailbox full", "busy": "452 4.2.2 mailbox full, try again later"}),
    ),
    _site("slow", 17, Behaviour(delay_ms=100)),
    _site("limited", 18, Behaviour(connections=2)),
    _site("dropper", 19, Behaviour(drop_first=True)),
    _site("refusing", 20, Behaviour(mode="refuse")),
    _site("blackhole", 21, Behaviour(mode="silent")),
    Site(  # the first MX is down, the second takes the mail
        "half",
        (Host("mx1.half.test", "127.0.0.22", 10, listens=False), Host("mx2.half.test", "127.0.0.23", 20)),
        ("half.test",),
    ),
)

# Domains that have no MX record of their own, all others get NXDOMAIN.
NULL_MX = ("nullmx.test",)  # RFC 7505
IMPLICIT_MX = {"implicit.test": "accept"}  # domain: site; an address record alone, RFC 5321 5.1
DANGLING_MX = ("dangling.test",)  # the MX host does not exist
NO_MAIL = ("nomail.test",)  # exists, with neither MX nor address
SERVFAIL = ("servfail.test",)  # and all names below
UNANSWERED = ("unanswered.test",)  # and all names below: the query gets no answer
