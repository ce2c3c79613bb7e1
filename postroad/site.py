"""Sites: the set of MX hosts that one operator runs, told from their names by a rule that needs no list of operators; and
the order in which a message tries the hosts of a domain (RFC 5321 5.1)."""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import cache, lru_cache

from publicsuffixlist import PublicSuffixList

MAX_SITE = 200  # a site is part of a Kafka key and of a RocksDB key: short enough for both


class LoopsBack(ValueError):
    """The mail of a domain would come back to us: none of its MX hosts is to be preferred to our own."""


def drop_ourselves(hosts: Sequence[tuple[int, str]], own_names: Collection[str]) -> list[tuple[int, str]]:
    """The MX hosts, (preference, name), that mail may go on to where we are one of them: those that are strictly better.

    RFC 5321 5.1: our own host goes, and all of equal or worse preference; else two hosts would hand it to and fro.
    `own_names`: the names that our hosts give in EHLO. Raises LoopsBack where nothing is left.
    """
    own = {_plain(name) for name in own_names}
    ours = min((preference for preference, name in hosts if _plain(name) in own), default=None)
    if ours is None:
        return list(hosts)
    left = [(preference, name) for preference, name in hosts if preference < ours]
    if not left:
        name = next(name for preference, name in hosts if preference == ours and _plain(name) in own)
        raise LoopsBack(
            f"loops back: the best MX host is {name}, a name of our own; is the domain to be delivered elsewhere?"
        )
    return left


def order(hosts: Sequence[tuple[int, str]], message_id: str) -> list[str]:
    """Each host once, by preference; those of the same preference shuffled, always alike for the same message, whatever order
    DNS gave them in."""
    best: dict[str, int] = {}
    for preference, name in hosts:
        best[name] = min(preference, best.get(name, preference))
    return sorted(best, key=lambda name: (best[name], _digest(f"{name}\0{message_id}", b"mx"), name))


def preferred(hosts: Sequence[tuple[int, str]]) -> list[str]:
    """The names of the hosts with the lowest preference value, the ones that take the mail on a good day."""
    best = min((preference for preference, _ in hosts), default=0)
    return [name for preference, name in hosts if preference == best]


@lru_cache(maxsize=20_000)
def operator_of(host: str) -> str:
    """The domain that the operator of a host has registered: `google.com` for `alt1.aspmx.l.google.com`, `firm.co.uk` for
    `firm.co.uk` and `mail.firm.co.uk`.

    What registries hand out (`co.uk`), and what others do to strangers (`duckdns.org`), is in the public suffix list of the
    package `publicsuffixlist`; no network. An address, a name without a dot and a public suffix itself stay as they are.
    """
    name = _plain(host)
    if ":" in name or name.rpartition(".")[2].isdigit():
        return name
    return _registered()(name) or name


def site_of(hosts: Sequence[str], named: Callable[[str], str | None] | None = None) -> str:
    """The site of a domain's most preferred MX hosts: never empty, at most 200 characters.

    That of the operator who runs most of them, the first by name of several: so a domain with hosts of two operators shares
    the limits of one, in place of having its own beside theirs. `named`: the overrides of the shaping file, a host's name in,
    its site's out, which may be the same, or None where the file does not know it (`Policy.named`). Raises ValueError without
    hosts: such a domain takes no mail.
    """
    operators: Counter[str] = Counter()
    for host in filter(None, map(_plain, hosts)):
        operators[(named(host) if named else None) or operator_of(host)] += 1
    if not operators:
        raise ValueError("a site needs at least one MX host name")
    site = min(operators, key=lambda operator: (-operators[operator], operator))
    if len(site) <= MAX_SITE:
        return site
    return f"{site[: MAX_SITE - 33]}~{hashlib.blake2b(site.encode(errors='surrogatepass'), digest_size=16).hexdigest()}"


def shard_of(message_id: str, shards: int) -> int:
    """The shard (0 to shards - 1) of a site that a message belongs to, always the same for the same message."""
    return int.from_bytes(_digest(message_id, b"shard"), "big") % shards


def _digest(text: str, purpose: bytes) -> bytes:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8, person=purpose).digest()


def _plain(name: str) -> str:
    return name.rstrip(".").lower()


@cache
def _registered() -> Callable[[str], str | None]:
    """Name -> the part of it that somebody has registered. The list takes 50 ms to load, so only who routes does."""
    registered: Callable[[str], str | None] = PublicSuffixList().privatesuffix
    return registered
