"""postroad dead-letters: what stages could not process, and what becomes of it. docs/runbooks/dead-letters.md says when to do what."""

from __future__ import annotations

import asyncio
import getpass
import json
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postroad.commands.printing import cut, dump, safe, time_of

if TYPE_CHECKING:
    from avro.records import DeadLetter
    from topics.catalogue import Topic
    from topics.client import Client
    from topics.letters import Chosen, Letter

app = typer.Typer(no_args_is_help=True, help="Records that no stage could process.")

Stage = Annotated[str, typer.Option(help="Of this stage alone.")]
Error = Annotated[str, typer.Option(help="Of this class of error alone, as `list` shows it.")]
TopicName = Annotated[str, typer.Option(help="From this topic alone, with or without the installation's prefix.")]
Since = Annotated[str, typer.Option(help="ISO 8601, or a date (UTC).")]
Until = Annotated[str, typer.Option(help="ISO 8601, or a date (UTC).")]
Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="As `list` shows them.")]
OldToo = Annotated[bool, typer.Option("--old-too", help="Also letters older than classify remembers ends.")]
By = Annotated[str, typer.Option(help="Who; default: the user of this process.")]

TEXT_SHOWN = 100  # characters of an error in the list
HEADERS_SHOWN = 20


@app.command("list")
def list_letters(
    stage: Stage = "",
    error: Error = "",
    topic: TopicName = "",
    since: Since = "",
    until: Until = "",
    all: Annotated[bool, typer.Option("--all", help="Also those that were replayed or discarded.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show the open letters; `times` is how often the record has failed, replays included."""
    from postroad.cli import _show

    async def work() -> tuple[list[Letter], int]:
        async with _client() as client:
            return await _chosen(client, _filter(client, stage, error, topic, since, until, "" if all else "open"))

    letters, strange = asyncio.run(work())
    if as_json:
        for letter in letters:
            print(json.dumps(_row(letter)))
    else:
        columns = ["id", "at", "stage", "topic", "error", "text", "size", "state", "times"]
        rows = [tuple(safe(str(value)) for value in _row(letter).values()) for letter in letters]
        _show(columns, [(*row[:5], row[5][:TEXT_SHOWN], *row[6:9]) for row in rows])
    if strange:
        print(f"{strange} records of the topic are no dead letters and were passed over", file=sys.stderr)


@app.command()
def show(id: Annotated[str, typer.Argument(help="As `list` shows it.")]) -> None:
    """Everything about one letter: the error, the headers, the record as JSON, or its bytes where it does not decode."""

    async def work() -> None:
        from topics.letters import LetterError, topic_of, whole

        async with _client() as client:
            known = (await _known(client, [id]))[id]
            async for _, letter in whole(client, [id]):
                for line in _headline(known, letter):
                    print(safe(line))
                try:
                    value, why = await _decoded(client, topic_of(client.installation, letter), letter)
                except LetterError as error:
                    value, why = None, str(error)
                if why:
                    print(safe(f"the record does not decode: {why}"))
                    print("\n".join(dump(letter["value"] or b"")))
                else:
                    text = json.dumps(cut(value), indent=2, ensure_ascii=False)
                    print("\n".join(map(safe, text.split("\n"))))

    asyncio.run(work())


@app.command()
def replay(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="As `list` shows them.")] = None,
    all: Annotated[bool, typer.Option("--all", help="All open ones that the filters take, instead of ids.")] = False,
    stage: Stage = "",
    error: Error = "",
    topic: TopicName = "",
    since: Since = "",
    until: Until = "",
    why: Annotated[str, typer.Option(help="What was mended, for the next who looks.")] = "",
    by: By = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    old_too: OldToo = False,
) -> None:
    """Put records back to the topics that they came from, with their history in headers."""
    from postroad.cli import CommandError

    filtered = any((stage, error, topic, since, until))
    if all == bool(ids) or (filtered and not all):
        raise CommandError("name the ids of letters, or --all with or without filters")

    async def choose() -> list[str]:
        async with _client() as client:
            if ids:
                return _open(await _known(client, ids))
            letters, _ = await _chosen(client, _filter(client, stage, error, topic, since, until, "open"))
            return [letter.id for letter in letters]

    async def put_back(chosen: list[str]) -> tuple[int, int]:
        from topics import letters

        done = failed = 0
        async with _client() as client:
            async for id, letter in letters.whole(client, chosen):
                try:
                    _refuse_old(letter, old_too)
                    place = await letters.replay(client, id, letter, by or getpass.getuser(), why, _now())
                except letters.LetterError as error:
                    failed += 1
                    print(safe(f"{id}: not replayed: {error}"), file=sys.stderr)
                else:
                    done += 1
                    print(safe(f"{id}: put back at {letter['topic']}[{place.partition}]@{place.offset}"))
        return done, failed

    chosen = asyncio.run(choose())
    if all and not yes:
        typer.confirm(f"Replay {len(chosen)} dead letters?", abort=True)
    done, failed = asyncio.run(put_back(chosen))
    print(f"replayed: {done}")
    if failed:
        raise CommandError(f"{failed} of {len(chosen)} dead letters were not replayed")


@app.command()
def discard(
    ids: Ids,
    why: Annotated[str, typer.Option(help="Why, in words: it stands in the ledger.")],
    by: By = "",
    no_end: Annotated[
        bool,
        typer.Option("--no-end", help="End no message: the record is forged, or a copy of one that went on."),
    ] = False,
    old_too: OldToo = False,
) -> None:
    """Give records up: the messages that they name end as dropped, dead-letter, with who and why."""
    from postroad.cli import CommandError

    if not why.strip():
        raise CommandError("--why is empty: say why, whoever reads the ledger has nothing else")

    async def work() -> int:
        from topics import letters

        failed = 0
        async with _client() as client:
            known = await _known(client, ids)
            async for id, letter in letters.whole(client, _open(known)):
                try:
                    told = await _discard(client, letter, known[id], by or getpass.getuser(), why, no_end, old_too)
                except letters.LetterError as error:
                    failed += 1
                    print(safe(f"{id}: not discarded: {error}"), file=sys.stderr)
                else:
                    print(safe(f"{id}: discarded; {told}"))
        return failed

    if failed := asyncio.run(work()):
        raise CommandError(f"{failed} of {len(set(ids))} dead letters were not discarded")


async def _discard(
    client: Client, letter: DeadLetter, known: Letter, by: str, why: str, no_end: bool, old_too: bool
) -> str:
    """Write the ends, then the resolution: one that dies in between is discarded again, and classify passes over the second
    ends. Returns what it means."""
    from postroad import settings
    from postroad.commands.discard import Discard
    from topics import letters

    now, told = _now(), "nothing ends, as was asked"
    if not no_end:
        topic = letters.topic_of(client.installation, letter)
        value, undecoded = await _decoded(client, topic, letter)
        if undecoded:
            told = (
                f"no end: the record names no message ({undecoded}). If an accepted one was lost with it, `postroad audit` shows "
                "it as an orphan"
            )
        else:
            doing = Discard(by, why, now, round(settings.load().expires_hours * 3_600_000))
            outputs, told = doing.writes(topic, value, letter, known.stages)
            if outputs:
                _refuse_old(letter, old_too)
            for output in outputs:
                await client.send(output)
    await letters.note(client, letter, {"action": "discarded", "by": by, "why": why, "at": now})
    return told


def _refuse_old(letter: DeadLetter, old_too: bool) -> None:
    """Raises LetterError where the end that its message may have had meanwhile is forgotten, so that it could have a second."""
    from tables.ended import KEPT_MS
    from topics.letters import LetterError

    if not old_too and _now() - letter["at"] > KEPT_MS:
        raise LetterError(
            f"it is older than {KEPT_MS // 86_400_000} days, and ends are remembered for no longer: its message could have a second one. "
            "Look at `postroad timeline MESSAGE` first; if that shows no end, say --old-too (`discard --no-end` ends nothing)"
        )


async def _decoded(client: Client, topic: Topic[Any], letter: DeadLetter) -> tuple[Any, str]:
    """The record of a letter, or why there is none."""
    from topics.codec import DecodeError
    from topics.letters import UNREADABLE

    if letter["value"] is None:
        return None, "it has no value"
    if letter["error"] == UNREADABLE:
        return None, "a piece of a Kafka batch"
    try:
        return await client.decode(topic, letter["value"]), ""
    except DecodeError as error:
        return None, str(error)


def _client() -> Client:
    from postroad import cli

    return cli._client()


def _now() -> int:
    return time.time_ns() // 1_000_000


def _filter(client: Client, stage: str, error: str, topic: str, since: str, until: str, state: str) -> Chosen:
    from topics.letters import Chosen

    prefix = client.installation.prefix
    full = topic if not topic or topic.startswith(prefix) else prefix + topic
    return Chosen(stage, error, full, _moment(since), _moment(until), state)


async def _chosen(client: Client, chosen: Chosen) -> tuple[list[Letter], int]:
    from topics.letters import read

    letters, strange = await read(client)
    return [letter for letter in letters.values() if chosen.takes(letter)], strange


async def _known(client: Client, ids: list[str]) -> dict[str, Letter]:
    """The letters of these ids. Raises CommandError where there is one that nobody knows, before anything is done."""
    from postroad.cli import CommandError
    from topics.letters import read

    letters, _ = await read(client)
    for id in ids:
        if id not in letters:
            raise CommandError(
                safe(f"no dead letter {id!r}: nothing was done; `postroad dead-letters list --all` shows them")
            )
    return {id: letters[id] for id in ids}


def _open(known: dict[str, Letter]) -> list[str]:
    """Their ids. Raises CommandError where somebody has dealt with one."""
    from postroad.cli import CommandError

    for id, letter in known.items():
        if (done := letter.resolution) is not None:
            where = f" to {done['place']}: if it has failed again, that has an id of its own" if done["place"] else ""
            raise CommandError(
                safe(f"{id} was {done['action']} at {time_of(done['at'])} by {done['by']}{where}; nothing was done")
            )
    return list(known)


def _moment(text: str) -> int | None:
    """ms of a time as people write it, None for none."""
    from postroad.cli import CommandError

    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CommandError(f"{text!r} is not a time: write one as 2026-01-31T10:00:00Z") from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _row(letter: Letter) -> dict[str, Any]:
    record, done = letter.letter, letter.resolution
    row = {
        "id": letter.id, "at": time_of(record["at"]), "stage": " ".join(letter.stages), "topic": record["topic"],
        "error": record["error"], "text": record["text"], "size": letter.size, "state": letter.state, "times": letter.times,
    }  # fmt: skip
    return row | ({"by": done["by"], "why": done["why"], "place": done["place"]} if done else {})


def _headline(known: Letter, letter: DeadLetter) -> list[str]:
    lines = [f"{name:<9} {value}" for name, value in _row(known).items()]
    if letter["source"]:
        lines.append(f"source    {letter['source']}: it is an output of that record, which itself is finished")
    lines.append(f"timestamp {time_of(letter['timestamp'])}")
    lines.append(f"key       {cut(letter['key'])}")
    lines += [f"header    {header['name']}: {cut(header['value'])}" for header in letter["headers"][:HEADERS_SHOWN]]
    if (more := len(letter["headers"]) - HEADERS_SHOWN) > 0:
        lines.append(f"header    and {more} more")
    return lines
