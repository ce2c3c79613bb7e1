"""`postroad suppressions`: who gets no mail of a tenant, or of anybody: add, remove, list, import, export."""

from __future__ import annotations

import asyncio
import csv
import getpass
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import IO, Annotated

import typer

from avro.records import Suppression, SuppressionAction, SuppressionEntry, SuppressionReason
from postroad import addresses, suppression, suppression_csv
from postroad.commands.orders import _ms
from postroad.commands.printing import safe, time_of
from postroad.suppression_rows import Fault

BATCH = 1000  # records on their way to Kafka at once
TOLD_EVERY = 50_000  # entries

app = typer.Typer(no_args_is_help=True, help="Addresses that get no mail.")

Keep = Callable[[SuppressionEntry], bool]
Recipients = Annotated[list[str], typer.Argument(help="Addresses.")]
Detail = Annotated[str, typer.Option(help="Why, for the event and for the next who looks.")]
By = Annotated[str, typer.Option(help="Who; default: the user of this process.")]
Everybody = Annotated[bool, typer.Option("--global", help="The global list: mail of every tenant.")]
Of = Annotated[str, typer.Option("--tenant", help="Entries of this tenant's list.")]
Reason = Annotated[SuppressionReason | None, typer.Option(help="Entries with this reason.")]
Address = Annotated[str, typer.Option(help="This address, or with an @ in front a domain: @there.example")]
Since = Annotated[str, typer.Option(help="Of this time or later: ISO 8601 with zone, or a date (UTC).")]


@app.command()
def add(
    recipients: Recipients,
    tenant: Annotated[str, typer.Option(help="Whose mail; default: mail of every tenant.")] = "",
    everybody: Everybody = False,
    reason: Annotated[SuppressionReason, typer.Option(help="Why.")] = "manual",
    expires: Annotated[
        str, typer.Option(help="Until then: 30d, 12h, or ISO 8601 (UTC without a zone); default: for good.")
    ] = "",
    detail: Detail = "",
    by: By = "",
) -> None:
    """Stop mail to addresses: of one tenant, or of all."""
    now = _now()
    _say(recipients, _list_of(tenant, everybody), "add", reason, now, _until(expires, now), detail, by)


@app.command()
def remove(
    recipients: Recipients,
    tenant: Annotated[str, typer.Option(help="From whose list; default: from the global one.")] = "",
    everybody: Everybody = False,
    detail: Detail = "",
    by: By = "",
) -> None:
    """Let mail to addresses pass again. What is found later than now stops it again; what is known by now does not."""
    _say(recipients, _list_of(tenant, everybody), "remove", "manual", _now(), None, detail, by)


@app.command("list")
def list_entries(
    tenant: Of = "",
    everybody: Everybody = False,
    reason: Reason = None,
    address: Address = "",
    since: Since = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, with all evidence.")] = False,
) -> None:
    """Show who gets no mail now, and why."""
    from postroad.cli import _show

    found = asyncio.run(_read(_filter(tenant, everybody, reason, address, since)))
    if as_json:
        for entry in found:
            print(json.dumps(entry))
        return
    _show(["list", "address", "reason", "at", "expires", "source", "evidence", "detail"],
          [(entry["tenant"] or "(global)", entry["recipient"], " ".join(filter(None, (entry["reason"], entry["cause"]))),
            time_of(entry["at"]), time_of(entry["expires_at"]) if entry["expires_at"] is not None else "-",
            " ".join(filter(None, (entry["source"], entry["by"]))), len(entry["evidence"]), entry["detail"][:100])
           for entry in found])  # fmt: skip


@app.command("export")
def export_entries(
    file: Annotated[Path | None, typer.Argument(help="Where to; default: standard output.")] = None,
    tenant: Of = "",
    everybody: Everybody = False,
    reason: Reason = None,
    address: Address = "",
    since: Since = "",
) -> None:
    """Write the lists as CSV, as `postroad suppressions import` reads it."""
    found = asyncio.run(_read(_filter(tenant, everybody, reason, address, since)))
    with _opened(file) as out:
        writer = csv.writer(out)
        writer.writerow(suppression_csv.OWN)
        writer.writerows(suppression_csv.row(entry) for entry in found)
    print(f"exported: {len(found):,}", file=sys.stderr)


@app.command("import")
def import_entries(
    file: Annotated[Path, typer.Argument(help="CSV or JSON of SendGrid, SES, Postmark or ours; - for standard input.")],
    tenant: Annotated[str, typer.Option(help="Into this tenant's list.")] = "",
    everybody: Everybody = False,
    reason: Annotated[SuppressionReason | None, typer.Option(help="Of a file that is nothing but addresses.")] = None,
    by: By = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check only.")] = False,
) -> None:
    """Add what a file lists: known by its columns (postroad/suppression_csv.py has the table). A line that is wrong is told and
    passed over; the exit status is then 1. The same file again changes nothing."""
    from postroad.cli import CommandError

    listed = _list_of(tenant, everybody) if tenant or everybody else None
    faults = 0

    def good(found: Iterable[suppression_csv.Entry | Fault]) -> Iterator[Suppression]:
        nonlocal faults
        for each in found:
            if isinstance(each, Fault):
                faults += 1
                print(f"{file}:{each.line}: {safe(each.text)}", file=sys.stderr)
            else:
                yield each.entry

    try:
        with nullcontext(sys.stdin.buffer) if str(file) == "-" else file.open("rb") as source:
            read = suppression_csv.read(source, file.name, _now(), tenant=listed, reason=reason, by=_who(by))
            written = sum(1 for _ in good(read)) if dry_run else asyncio.run(_send_all(good(read)))
    except suppression_csv.FileRefused as error:
        raise CommandError(safe(str(error))) from None
    print(f"{'would add' if dry_run else 'added'}: {written:,}; lines that are wrong: {faults:,}")
    if faults:
        raise typer.Exit(1)


def _say(recipients: list[str], tenant: str, action: SuppressionAction, reason: SuppressionReason, now: int,
         expires_at: int | None, detail: str, by: str) -> None:  # fmt: skip
    from postroad.cli import CommandError, _write
    from topics.catalogue import SUPPRESSIONS

    who = _who(by)
    if len(detail) > suppression.DETAIL_MAX or not detail.isprintable():
        raise CommandError(f"--detail is one line of at most {suppression.DETAIL_MAX} characters")
    entries: list[Suppression] = [
        {"recipient": addresses.normalise(address).text, "tenant": tenant, "action": action, "reason": reason, "at": now,
         "evidence": f"{who} {now}", "detail": detail, "expires_at": expires_at, "source": "cli", "by": who}
        for address in recipients
    ]  # fmt: skip
    _write([SUPPRESSIONS.send(entry) for entry in entries])
    print(f"{action}: {', '.join(entry['recipient'] for entry in entries)} ({tenant or 'every tenant'})")


def _who(by: str) -> str:
    from postroad.cli import CommandError

    if len(by) > 100 or not by.isprintable():
        raise CommandError("--by is one line of at most 100 characters")
    return by or getpass.getuser()


def _list_of(tenant: str, everybody: bool) -> str:
    """Id of the tenant; empty for the global list."""
    from postroad.cli import CommandError

    if tenant and everybody:
        raise CommandError("--tenant and --global are two lists: say one")
    if not suppression.TENANT.fullmatch(tenant):
        raise CommandError(f"{safe(tenant[:80])} is no tenant: 1 to 64 of a-z, 0-9 and hyphen")
    return tenant


def _filter(tenant: str, everybody: bool, reason: SuppressionReason | None, address: str, since: str) -> Keep:
    listed = _list_of(tenant, everybody) if tenant or everybody else None
    known = address and (f"@{addresses.ascii_domain(address[1:])}" if address[0] == "@" else addresses.key(address))
    now, first = _now(), _time(since) if since else 0

    def keep(entry: SuppressionEntry) -> bool:
        return (
            (listed is None or entry["tenant"] == listed)
            and (reason is None or entry["reason"] == reason)
            and (not known or (entry["recipient"].endswith(known) if known[0] == "@" else entry["recipient"] == known))
            and entry["at"] >= first
            and (entry["expires_at"] is None or entry["expires_at"] > now)
        )

    return keep


async def _read(keep: Keep) -> list[SuppressionEntry]:
    """What mail.suppressed has now, by list and address."""
    from postroad.cli import _client
    from topics.catalogue import IN_FORCE

    found: dict[bytes, SuppressionEntry] = {}
    async with _client() as client:
        async for record, value in client.read(IN_FORCE, broken=lambda record, error: None):
            if value is not None and keep(value):
                found[record.key] = value
            else:
                found.pop(record.key, None)
    return [found[key] for key in sorted(found)]


async def _send_all(entries: Iterator[Suppression]) -> int:
    """How many were written; each is confirmed by Kafka."""
    from postroad.cli import _client
    from topics.catalogue import SUPPRESSIONS

    written, told = 0, 0
    async with _client() as client:
        for first in entries:  # by itself: it starts the producer
            await client.send(SUPPRESSIONS.send(first))
            written += 1
            while batch := list(islice(entries, BATCH)):
                await asyncio.gather(*(client.send(SUPPRESSIONS.send(entry)) for entry in batch))
                written += len(batch)
                if written - told >= TOLD_EVERY:
                    told = written
                    print(f"{written:,} so far", file=sys.stderr)
    return written


@contextmanager
def _opened(file: Path | None) -> Iterator[IO[str]]:
    if file is None:
        yield sys.stdout
        return
    with file.open("w", encoding="utf-8", newline="") as out:
        yield out


def _until(text: str, now: int) -> int | None:
    from postroad.cli import CommandError

    if not text:
        return None
    at = now + _ms(text) if text[-1] in "smhd" else _time(text)
    if at <= now:
        raise CommandError(f"--expires {text[:40]!r} is over already")
    return at


def _time(text: str) -> int:
    from postroad.cli import CommandError

    try:
        given = datetime.fromisoformat(text)
        return int((given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise CommandError(f"{text[:40]!r} is no time: ISO 8601, such as 2026-01-31 or 2026-01-31T10:00Z") from None


def _now() -> int:
    return time.time_ns() // 1_000_000
