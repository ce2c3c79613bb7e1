"""Dead letters as operators work with them: read, chosen, put back where they came from, noted.

mail.dead-letters holds under one id the letter (more than once where a stage was done again, or where two stages read the
topic) and, when somebody has dealt with it, its resolution: the same record without key, value and headers.

A replay writes 1. the record, with its history in headers, 2. the resolution; each is confirmed before the next begins.

| it dies | then |
|---|---|
| before 1 is confirmed | the letter is open; the record may be back |
| between 1 and 2 | the letter is open, its record is back; a second replay puts it there twice |
| after 2 | done |

So nothing is noted that was not put back. A record that is there twice is what every stage is made for, since delivery is at
least once: a second submission is a repeat (table dedupe); a message passes suppress once a round (seen), is tried once a
round (deliveries), waits once (waiting) and ends once (ended); a second event has the id of the first.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Collection
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from avro.records import DeadLetter, Resolution
from topics import unreadable
from topics.catalogue import ALL, DEAD_LETTERS, Topic
from topics.client import Client, Place
from topics.codec import DecodeError
from topics.installation import Installation
from topics.outputs import TOO_LARGE

# Headers of a record that was put back. The first two are there once for every replay, the count once.
LETTER, ERROR, REPLAYS = "postroad-dead-letter", "postroad-error", "postroad-replays"

UNREADABLE = unreadable.Unreadable.__name__  # the error of a letter whose value is a piece of a Kafka batch
_CUT = re.compile(r"cut from (\d{1,12}) bytes of key, (\d{1,12}) of value, (\d{1,12}) headers: ")


class LetterError(Exception):
    """This letter cannot be dealt with so; the text says why and what can be done."""


@dataclass(frozen=True)
class Letter:
    """What is known of one dead letter. `letter`: as it came last, without key, value and headers (`whole` reads them);
    `stages`: all that could not process it, without those whose letters were dealt with before it was open again; `size`: bytes
    of its value; `times`: how often the record has failed, which is once, and once more for each replay that its headers tell
    of."""

    id: str
    letter: DeadLetter
    stages: tuple[str, ...]
    size: int
    times: int
    resolution: Resolution | None = None

    @property
    def state(self) -> str:
        """open, replayed or discarded."""
        return self.resolution["action"] if self.resolution else "open"


@dataclass(frozen=True)
class Chosen:
    """Which letters: an empty text takes all. `error`: class; `topic`: full name; `since`, `until` (ms): when they came,
    since is within, until is not."""

    stage: str = ""
    error: str = ""
    topic: str = ""
    since: int | None = None
    until: int | None = None
    state: str = "open"

    def takes(self, letter: Letter) -> bool:
        """Whether it is one of them."""
        record = letter.letter
        return (
            (not self.stage or self.stage in letter.stages)
            and self.error in ("", record["error"])
            and self.topic in ("", record["topic"])
            and self.state in ("", letter.state)
            and (self.since is None or record["at"] >= self.since)
            and (self.until is None or record["at"] < self.until)
        )


async def read(client: Client) -> tuple[dict[str, Letter], int]:
    """Every letter by its id, in the order in which they came; and how many records of the topic are none.

    A resolution is for the letters before it. One of the same stage that comes again (its stage was done again) stays resolved;
    one of another stage, that reads the same topic and came later to the record, is open.
    """
    letters: dict[str, Letter] = {}
    resolved: dict[str, tuple[Resolution, set[str]]] = {}  # the last one, and the stages that have had one
    strange = 0

    def pass_over(record: Any, error: DecodeError) -> None:
        nonlocal strange
        strange += 1

    unreadable.install()  # a batch that cannot be unpacked does not hide the letters behind it
    async for _, value in client.read(DEAD_LETTERS, broken=pass_over):
        if value is None:
            strange += 1
            continue
        id = DEAD_LETTERS.key(value)
        if value["resolution"] is not None:
            _, done = resolved.get(id, (None, set()))
            if (known := letters.get(id)) is not None:
                done.update(known.stages)
                letters[id] = replace(known, resolution=value["resolution"])
            resolved[id] = value["resolution"], done | {value["stage"]}
            continue
        before, (resolution, done) = letters.get(id), resolved.get(id, (None, set()))
        if value["stage"] not in done:
            resolution = None
        elif before is not None and before.resolution is None:  # open for another stage: this one's is dealt with
            continue
        stages = () if before is None or (before.resolution and not resolution) else before.stages
        letters[id] = Letter(
            id, _bare(value), tuple(dict.fromkeys((*stages, value["stage"]))), len(value["value"] or b""), 1 + _replays(value), resolution
        )  # fmt: skip
    return letters, strange


async def whole(client: Client, ids: Collection[str]) -> AsyncIterator[tuple[str, DeadLetter]]:
    """The letters of these ids as they were written, each once, one at a time: one may have 8 MiB."""
    left = set(ids)
    unreadable.install()
    async with aclosing(client.read(DEAD_LETTERS, broken=lambda record, error: None)) as records:
        async for _, value in records:
            if not left:
                return
            if value is not None and value["resolution"] is None and (id := DEAD_LETTERS.key(value)) in left:
                left.remove(id)
                yield id, value


def topic_of(installation: Installation, letter: DeadLetter) -> Topic[Any]:
    """The topic that it came from. Raises LetterError where that is none of this installation's."""
    name = letter["topic"]
    for topic in ALL:
        if name == installation.name(topic):
            return topic
    if any(name.endswith(topic.name) for topic in ALL):
        raise LetterError(
            f"{name!r} is a topic of an installation with another prefix than {installation.prefix!r}: "
            "set POSTROAD_TOPIC_PREFIX to that one's, or discard the letter with --no-end"
        )
    raise LetterError(f"the catalogue has no topic {name!r} (any more): discard the letter with --no-end")


def is_cut(letter: DeadLetter) -> bool:
    """Whether the dead letters could not take the record whole."""
    if (said := _CUT.match(letter["text"])) is None:
        return False
    key, value, headers = map(int, said.groups())
    return len(letter["key"] or b"") < key or len(letter["value"] or b"") < value or len(letter["headers"]) < headers


def replayable(installation: Installation, letter: DeadLetter) -> Topic[Any]:
    """Where a replay puts it. Raises LetterError where there is no record to put back, or no place for it."""
    topic = topic_of(installation, letter)
    place = f"{letter['topic']}[{letter['partition']}]@{letter['offset']}"
    if letter["error"] == UNREADABLE:
        raise LetterError(
            "it is a piece of a Kafka batch that could not be unpacked, no record: let its producer send it again, in a "
            "compression and with header names that can be read, then discard the letter"
        )
    if is_cut(letter):
        raise LetterError(
            f"the dead letters hold only a part of it: the whole record is at {place} as long as the topic keeps it "
            f"({topic.retention_ms // 86_400_000} days). Let its producer send it again in a smaller form, or set the stage's "
            "offset back to it once the stage can process it; then discard the letter"
        )
    if letter["value"] is None:
        raise LetterError("the record has no value, and no stage can do anything with that: discard the letter")
    if topic.compacted or topic is DEAD_LETTERS:
        raise LetterError(f"{topic.name} takes no replays: it would put an old value over a newer one; write it anew")
    if not 0 <= letter["partition"] < installation.partitions_of(topic):
        raise LetterError(f"{topic.name} has no partition {letter['partition']}: discard the letter")
    return topic


async def replay(client: Client, id: str, letter: DeadLetter, by: str, why: str, now: int) -> Place:
    """Put the record back into the partition that it came from, or was to go to, then note that at `now` (ms).

    Raises LetterError; then nothing was noted.
    """
    topic = replayable(client.installation, letter)
    headers = [(header["name"], header["value"]) for header in letter["headers"] if header["name"] != REPLAYS]
    headers += [(LETTER, id.encode()), (ERROR, letter["error"].encode()), (REPLAYS, b"%d" % (_replays(letter) + 1))]
    try:
        place = await client.send_raw(topic, letter["key"], letter["value"], headers, letter["partition"])
    except TOO_LARGE:
        raise LetterError(
            f"{letter['topic']} refuses the record: with its history it has more bytes than the topic's max.message.bytes "
            f"(the catalogue says {topic.max_bytes:,}). Raise that for the topic and replay again, or discard the letter"
        ) from None
    resolution: Resolution = {
        "action": "replayed", "by": by, "why": why, "at": now, "place": f"{letter['topic']}[{place.partition}]@{place.offset}",
    }  # fmt: skip
    await note(client, letter, resolution)
    return place


async def note(client: Client, letter: DeadLetter, resolution: Resolution) -> None:
    """Write what was done with a letter."""
    await client.send(DEAD_LETTERS.send({**_bare(letter), "resolution": resolution}))


def _bare(letter: DeadLetter) -> DeadLetter:
    return {**letter, "key": None, "value": None, "headers": []}


def _replays(letter: DeadLetter) -> int:
    """How often the record was put back before, as its headers say; a producer may have written anything there."""
    counts = [header["value"] for header in letter["headers"] if header["name"] == REPLAYS]
    return int(counts[-1]) if counts and re.fullmatch(rb"[0-9]{1,6}", counts[-1]) else 0
