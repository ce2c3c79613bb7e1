"""Egress: the sources mail leaves from, and the choice of one for a message."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Source:
    """An IP address and the name it gives itself in EHLO; an empty address leaves the choice to the system."""

    name: str
    address: str
    ehlo: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Pool:
    """Sources that share work by weight. Raises ValueError where no source may be chosen."""

    name: str
    sources: tuple[Source, ...]

    def __post_init__(self) -> None:
        if any(source.weight < 0 for source in self.sources):
            raise ValueError(f"egress pool {self.name}: a weight below 0; use 0 to rest a source")
        if not sum(source.weight for source in self.sources) > 0:
            raise ValueError(f"egress pool {self.name}: no source with a weight above 0")


def choose(pool: Pool, message_id: str) -> Source:
    """The source of a message: by weight, and the same one each time the same message asks."""
    digest = hashlib.blake2b(message_id.encode(), digest_size=8, person=b"egress").digest()
    point = int.from_bytes(digest, "big") / 2**64 * sum(source.weight for source in pool.sources)
    usable = [source for source in pool.sources if source.weight > 0]
    for source in usable:
        point -= source.weight
        if point < 0:
            return source
    return usable[-1]  # rounding left a remainder at the very end of the range
