"""Egress: the sources mail leaves from, and the order in which a message would use them."""

import hashlib
import math
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


def ranked(pool: Pool, message_id: str) -> list[Source]:
    """The sources with a weight above 0 in the order in which a message would use them, always the same for the same message.

    Weighted rendezvous hashing (Thaler and Ravishankar 1998; logarithmic scores): each source has its share of the first
    places by weight, and one that is added or rested moves no message but those that it takes or gives up.
    """
    return sorted((source for source in pool.sources if source.weight > 0), key=lambda each: _score(each, message_id))


def choose(pool: Pool, message_id: str) -> Source:
    """The source of a message where all are usable: the first of `ranked`."""
    return min((source for source in pool.sources if source.weight > 0), key=lambda each: _score(each, message_id))


def _score(source: Source, message_id: str) -> float:
    """The lowest wins: exponential times with the weights as rates, of which the first falls to each by its share."""
    text = f"{source.name}\0{message_id}".encode(errors="surrogatepass")
    digest = hashlib.blake2b(text, digest_size=8, person=b"egress").digest()
    uniform = ((int.from_bytes(digest, "big") >> 11) + 0.5) * 2.0**-53  # inside (0, 1), so the logarithm is finite
    return -math.log(uniform) / source.weight
