"""Sites: the set of MX hosts that one operator runs, told from their names by a rule that needs no list."""

import hashlib
from collections.abc import Sequence

MAX_SITE = 200  # a site is part of a Kafka key and of a RocksDB key: short enough for both


def preferred(hosts: Sequence[tuple[int, str]]) -> list[str]:
    """The names of the hosts with the lowest preference value, the ones that take the mail on a good day."""
    best = min((preference for preference, _ in hosts), default=0)
    return [name for preference, name in hosts if preference == best]


def operator_of(host: str) -> str:
    """The part of a host name that the hosts of one operator share: the name without its first label.

    A name of two labels (or an address) stays whole: `com` would be everybody's site.
    """
    name = host.rstrip(".").lower()
    _, _, rest = name.partition(".")
    is_address = rest.rpartition(".")[2].isdigit() or ":" in name
    return rest if "." in rest and not is_address else name


def site_of(hosts: Sequence[str]) -> str:
    """The site of a domain's most preferred MX hosts: never empty, at most 200 characters.

    `mta5.am0.yahoodns.net` and `mta6.am0.yahoodns.net` are `am0.yahoodns.net`; hosts of several operators are their
    names sorted and joined by `+`. Raises ValueError without hosts: such a domain takes no mail and has no site.
    """
    operators = sorted({operator_of(host) for host in hosts} - {""})
    if not operators:
        raise ValueError("a site needs at least one MX host name")
    site = "+".join(operators)
    if len(site) <= MAX_SITE:
        return site
    return f"{site[: MAX_SITE - 33]}~{hashlib.blake2b(site.encode(), digest_size=16).hexdigest()}"


def shard_of(message_id: str, shards: int) -> int:
    """The shard (0 to shards - 1) of a site that a message belongs to, always the same for the same message."""
    digest = hashlib.blake2b(message_id.encode(), digest_size=8, person=b"shard").digest()
    return int.from_bytes(digest, "big") % shards
