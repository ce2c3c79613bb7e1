"""/v1/suppressions: the tenant's list, one by one and as files. Never the global one."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator
from datetime import datetime
from itertools import islice
from typing import Annotated

import msgspec

from avro.records import Suppression, SuppressionAction, SuppressionEntry, SuppressionReason
from gateway.api import audit, bodies
from gateway.api.messages import Moment, ms
from gateway.api.problems import Problem, not_found, of_field
from gateway.api.routes import PAGE, PAGE_MAX, Answer, Call, Routes
from gateway.api.status import moment
from gateway.suppressed import Suppressed
from postroad import addresses, suppression_csv
from postroad.suppression import DETAIL_MAX
from postroad.suppression_rows import Fault
from topics.catalogue import SUPPRESSIONS

FILE_MAX = 1 << 30  # bytes
BATCH = 200  # records on their way to Kafka at once
FAULTS_MAX = 1_000  # told; all are counted

routes = Routes()


class NewSuppression(msgspec.Struct, forbid_unknown_fields=True):
    """Addresses to stop mail to. Without expires_at for good."""

    recipients: Annotated[list[str], msgspec.Meta(min_length=1, max_length=1_000)]
    reason: SuppressionReason = "manual"
    expires_at: Moment | None = None
    detail: Annotated[str, msgspec.Meta(max_length=DETAIL_MAX)] = ""


class Taken(msgspec.Struct):
    """What was written; it is in force within seconds."""

    recipients: list[str]


class Entry(msgspec.Struct):
    """An address that gets no mail of the tenant."""

    recipient: str
    reason: str
    at: datetime
    since: datetime
    expires_at: datetime | None
    source: str
    cause: str
    detail: str


class Entries(msgspec.Struct):
    """In the order of addresses. `next`: the cursor of the next page, null at the end."""

    suppressions: list[Entry]
    next: str | None


class Query(msgspec.Struct, forbid_unknown_fields=True):
    """Which entries, from where on."""

    reason: SuppressionReason | None = None
    cursor: Annotated[str, msgspec.Meta(max_length=400)] = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=PAGE_MAX)] = PAGE


class File(msgspec.Struct, forbid_unknown_fields=True):
    """Of a file that has addresses alone: why they are on the list. `name`: of the file, since SendGrid's blocks look like its bounces."""

    reason: SuppressionReason | None = None
    name: Annotated[str, msgspec.Meta(max_length=255)] = "upload"


class LineFault(msgspec.Struct):
    """A line that was passed over."""

    line: int
    text: str


class Imported(msgspec.Struct):
    """What a file has added."""

    added: int
    wrong: int
    faults: list[LineFault]


@routes.add("POST", "/v1/suppressions", "manage", body=NewSuppression, status=202, answer=Taken)
async def add_suppressions(call: Call) -> Answer:
    """Stop mail to addresses."""
    asked: NewSuppression = call.body
    if not asked.detail.isprintable():
        raise of_field("/detail", "one line of printable characters")
    expires_at = ms(asked.expires_at, "/expires_at") if asked.expires_at else None
    entries = [
        _entry(call, address, "add", asked.reason, expires_at, asked.detail, f"/recipients/{n}")
        for n, address in enumerate(asked.recipients)
    ]
    await _write(call, entries)
    await audit.tell(call, "suppressions-added", f"{len(entries)} addresses", asked.reason)
    return Answer(Taken([entry["recipient"] for entry in entries]), 202)


@routes.add("DELETE", "/v1/suppressions/{recipient:path}", "manage", status=202, answer=Taken, problems=(422,))
async def remove_suppression(call: Call) -> Answer:
    """Let mail to an address pass again."""
    entry = _entry(call, call.params["recipient"], "remove", "manual", None, "", "/recipient")
    await _write(call, [entry])
    await audit.tell(call, "suppressions-removed", "1 address")
    return Answer(Taken([entry["recipient"]]), 202)


@routes.add("GET", "/v1/suppressions.csv", "read", answer_media="text/csv")
async def export_suppressions(call: Call) -> Answer:
    """The list as CSV, as POST takes it. What a spreadsheet would compute is quoted."""
    lists = _lists(call)
    return Answer(
        _rows(call, lists), 200, {"Content-Disposition": 'attachment; filename="suppressions.csv"'}, "text/csv"
    )


@routes.add(
    "POST", "/v1/suppressions.csv", "manage", query=File, answer=Imported, media={"text/csv": None, "application/json": None}, problems=(422,),
)  # fmt: skip
async def import_suppressions(call: Call) -> Answer:
    """Add what a file lists: our own CSV, or an export of SendGrid, SES or Postmark, or a list of addresses with its `reason`. A line
    that is wrong is told and passed over."""
    door, added, wrong, faults = call.door, 0, 0, list[LineFault]()
    with bodies.spooled(door.spool) as file:
        async for chunk in bodies.chunks(call.request, FILE_MAX, door.settings.api_timeout_s):
            file.write(chunk)
        file.seek(0)
        asked: File = call.query
        read = suppression_csv.read(
            file, asked.name, door.now(), tenant=call.tenant, reason=asked.reason, by=f"key {call.key['key_id']}",  # type: ignore[arg-type]
        )  # fmt: skip
        try:
            while batch := await asyncio.to_thread(lambda: list(islice(read, BATCH))):
                good = [one.entry for one in batch if not isinstance(one, Fault)]
                told = [LineFault(one.line, one.text) for one in batch if isinstance(one, Fault)]
                await _write(call, [{**entry, "tenant": call.tenant, "source": "rest"} for entry in good])
                added, wrong = added + len(good), wrong + len(told)
                faults += told[: FAULTS_MAX - len(faults)]
        except suppression_csv.FileRefused as error:
            raise Problem(422, "not-a-list", str(error)) from None
    await audit.tell(call, "suppressions-imported", f"{added} addresses")
    return Answer(Imported(added, wrong, faults))


@routes.add("GET", "/v1/suppressions/{recipient:path}", "read", answer=Entry, problems=(404,))
async def get_suppression(call: Call) -> Answer:
    """The entry of an address."""
    found = _lists(call).get(call.tenant, addresses.key(call.params["recipient"]), call.door.now())
    if found is None:
        raise not_found("suppression")
    return Answer(_shown(found))


@routes.add("GET", "/v1/suppressions", "read", query=Query, answer=Entries)
async def list_suppressions(call: Call) -> Answer:
    """Who gets no mail of the tenant, and why."""
    query: Query = call.query
    found = _lists(call).page(call.tenant, query.cursor, query.reason or "", query.limit + 1, call.door.now())
    listed = found[: query.limit]
    return Answer(
        Entries([_shown(one) for one in listed], listed[-1]["recipient"] if len(found) > query.limit else None)
    )


def _entry(
    call: Call, address: str, action: SuppressionAction, reason: SuppressionReason, expires_at: int | None, detail: str, pointer: str
) -> Suppression:  # fmt: skip
    now, by = call.door.now(), f"key {call.key['key_id']}"
    try:
        recipient = addresses.normalise(address).text
    except addresses.BadAddress as error:
        raise of_field(pointer, f"{address[:80]!r}: {error.text}") from None
    return {
        "recipient": recipient, "tenant": call.tenant, "action": action, "reason": reason, "at": now, "evidence": f"{by} {now}",
        "detail": detail, "expires_at": expires_at, "source": "rest", "by": by,
    }  # fmt: skip


async def _write(call: Call, entries: list[Suppression]) -> None:
    await asyncio.gather(*(call.door.producer.send(SUPPRESSIONS, entry) for entry in entries))


def _lists(call: Call) -> Suppressed:
    lists: Suppressed = call.door.suppressions
    if not lists.ready:
        raise Problem(503, "unavailable", "the lists are being read; try again later", headers={"Retry-After": "5"})
    return lists


async def _rows(call: Call, lists: Suppressed) -> AsyncIterator[bytes]:
    yield (",".join(suppression_csv.OWN) + "\r\n").encode()
    after = ""
    while page := lists.page(call.tenant, after, "", PAGE_MAX, call.door.now()):
        text = io.StringIO(newline="")
        csv.writer(text).writerows(suppression_csv.row(entry) for entry in page)
        after = page[-1]["recipient"]
        yield text.getvalue().encode()


def _shown(entry: SuppressionEntry) -> Entry:
    until = entry.get("expires_at")
    return Entry(
        entry["recipient"], entry["reason"], moment(entry["at"]), moment(entry["since"]), moment(until) if until is not None else None,
        entry.get("source", ""), entry.get("cause", ""), entry.get("detail", ""),
    )  # fmt: skip
