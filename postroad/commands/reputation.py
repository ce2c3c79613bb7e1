"""postroad reputation show, pin, unpin: how mail fares by tenant, sender domain and source, and which step follows."""

from __future__ import annotations

import asyncio
import getpass
import time
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from avro.records import Grade, GradeLevel
from postroad import reputation, settings
from postroad.commands.printing import time_of

app = typer.Typer(
    no_args_is_help=True, help="How mail of tenants, domains and sources fares, and what follows from it."
)

Subject = Annotated[str, typer.Argument(help="tenant:NAME, domain:NAME, source:NAME or source-site:SOURCE@SITE.")]
Reason = Annotated[str, typer.Option(help="Why, for the events and for the next who looks.")]
By = Annotated[str, typer.Option(help="Who; default: the user of this process.")]


@app.command()
def show(
    subject: Annotated[str, typer.Argument(help="A subject, or the beginning of some; default: all.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show the step and the decayed counts of each subject; of one alone its hours and days as well."""
    import json

    from postroad.cli import CommandError, _show

    now, limits = _now(), settings.load().thresholds()
    parts, standings = asyncio.run(_read())
    wanted = {each: found for each, found in parts.items() if each.startswith(subject)}
    pins = {key: grade for key, grade in standings.items() if grade["subject"].startswith(subject)}
    rows = list(reputation.overview(wanted, pins, limits.half_life_ms, now))
    if subject and not rows:
        raise CommandError(f"nothing is known of {subject[:80]!r}: `postroad reputation show` lists what is")
    if as_json:
        for row in rows:
            print(json.dumps({"subject": row.subject, "level": row.level, **row.counts._asdict(),
                              "today": row.day._asdict(), "pin": row.pin}))  # fmt: skip
        return
    _show(["subject", "step", "sent", "deferred", "hard", "soft", "bounced at least", "complained", "at least", "today", "pinned"],
          [_line(row) for row in rows])  # fmt: skip
    if len(rows) == 1:
        history = reputation.merged(parts.get(rows[0].subject, []), now)
        _show(["from", "hours", *reputation.WHATS],
              [(time_of(b["at"]), b["hours"], *(b[what] for what in reputation.WHATS)) for b in reputation.to_buckets(history)])  # fmt: skip


@app.command()
def pin(
    subject: Subject,
    level: Annotated[GradeLevel, typer.Argument(help="The step that holds whatever the counts say.")],
    until: Annotated[
        str, typer.Option(help="2026-12-24T18:00 (UTC), or for so long: 30m, 2h, 7d; default: until `unpin`.")
    ] = "",
    reason: Reason = "",
    by: By = "",
) -> None:
    """Hold a subject on a step, whatever its counts say."""
    from postroad.cli import _write
    from topics.catalogue import EVENTS, STANDINGS

    now = _now()
    grade: Grade = {
        "subject": _named(subject), "level": level, "since": now, "pinned": True, "until": _until(until, now),
        "by": _line_of(by or getpass.getuser()), "reason": _line_of(reason),
    }  # fmt: skip
    _write([EVENTS.send(_event(grade, f"pinned to {level}", now)), STANDINGS.send(grade)])
    print(
        f"pinned: {subject} to {level} until {time_of(grade['until']) if grade['until'] else '`postroad reputation unpin`'}"
    )


@app.command()
def unpin(subject: Subject, reason: Reason = "", by: By = "") -> None:
    """Take a pin back: the counts decide again."""
    from postroad.cli import CommandError, _write
    from topics.catalogue import EVENTS, STANDINGS

    now = _now()
    known = asyncio.run(_read())[1].get(reputation.pin_key(_named(subject)))
    if known is None:
        raise CommandError(f"{subject} is not pinned: nothing was done; `postroad reputation show` lists what is")
    grade: Grade = {**known, "by": _line_of(by or getpass.getuser()), "reason": _line_of(reason)}
    _write([EVENTS.send(_event(grade, "not pinned any more", now)), STANDINGS.send(grade)._replace(value=None)])
    print(f"unpinned: {subject}; its counts decide again")


def _line(row: reputation.Shown) -> tuple[Any, ...]:
    kind, counts, pin = row.subject.partition(":")[0], row.counts, row.pin
    bounced = reputation.at_least(counts.bounced(kind), counts.sent)
    complained = reputation.at_least(counts.complained, counts.delivered)
    told = (
        ""
        if pin is None
        else f"{pin['level']} by {pin['by']}" + (f" until {time_of(pin['until'])}" if pin["until"] else "")
    )
    return (row.subject, row.level, f"{counts.sent:.0f}", f"{counts.deferred:.0f}", f"{counts.hard:.0f}", f"{counts.soft:.0f}",
            f"{bounced:.2%}", f"{counts.complained:.0f}", f"{complained:.3%}", f"{row.day.sent:.0f}", told)  # fmt: skip


def _event(grade: Grade, what: str, now: int) -> Any:
    from postroad.events import noted

    kind, _, name = grade["subject"].partition(":")
    detail = ": ".join(filter(None, (f"{what} by {grade['by']}", grade["reason"])))
    return noted(name if kind == "tenant" else "", now, "cli", f"reputation-pin:{grade['subject']}:{now}", reason="reputation-pin",
                 rule=grade["subject"], detail=detail)  # fmt: skip


def _named(subject: str) -> str:
    from postroad.cli import CommandError

    try:
        return reputation.named(subject)
    except ValueError as error:
        raise CommandError(str(error)) from None


def _line_of(text: str) -> str:
    from postroad.cli import CommandError

    if len(text) > 500 or not text.isprintable():
        raise CommandError("who and why are one line of at most 500 characters each")
    return text


def _until(text: str, now: int) -> int | None:
    from postroad.cli import CommandError
    from postroad.commands.orders import _ms

    if not text:
        return None
    if "-" not in text:
        return now + _ms(text)
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise CommandError(f"{text[:40]!r} is no time: write 2026-12-24T18:00, or 30m, 2h, 7d") from None
    at = round((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000)
    if at <= now:
        raise CommandError(f"{text[:40]!r} is over: give a time that is to come, in UTC")
    return at


async def _read() -> tuple[dict[str, list[reputation.History]], dict[str, Grade]]:
    """Histories of every subject, one a partition; and what control.standings has, by key."""
    from postroad.cli import _client
    from topics.catalogue import REPUTATION, STANDINGS

    latest: dict[bytes | None, Any] = {}
    grades: dict[str, Grade] = {}
    async with _client() as client:
        async for record, value in client.read(REPUTATION, broken=lambda record, error: None):
            latest[record.key] = value
        async for record, grade in client.read(STANDINGS, broken=lambda record, error: None):
            key = (record.key or b"").decode(errors="replace")
            if grade is None:
                grades.pop(key, None)
            else:
                grades[key] = grade
    parts: dict[str, list[reputation.History]] = {}
    for value in latest.values():
        if value is not None:
            parts.setdefault(value["subject"], []).append(reputation.from_buckets(value["buckets"]))
    return parts, grades


def _now() -> int:
    return time.time_ns() // 1_000_000
