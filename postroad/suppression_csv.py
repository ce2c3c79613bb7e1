"""Suppression lists as files: our own CSV, and what SendGrid, Amazon SES and Postmark export.

Whose file it is, its columns say:

| columns | from | is |
|---|---|---|
| tenant, recipient, reason, at, expires_at, source, by, cause, evidence, detail | `postroad suppressions export` | as it says |
| status, reason, email, created | SendGrid, bounces | hard_bounce |
| reason, email, created | SendGrid, invalid emails | hard_bounce |
| email, created, ip | SendGrid, spam reports | complaint |
| email, created | SendGrid, global unsubscribes | unsubscribe |
| EmailAddress, Reason, LastUpdateTime | SES, ListSuppressedDestinations | BOUNCE: hard_bounce, COMPLAINT: complaint |
| EmailAddress, SuppressionReason, Origin, CreatedAt | Postmark | HardBounce, SpamComplaint; ManualSuppression: unsubscribe of a recipient, else manual |
| email, email_address, address or recipient alone | anybody | `reason` of the caller |

SendGrid's blocks have the columns of its bounces. They are refusals of one mail, and stop none: a file with "block" in its name is
refused. Times: ISO 8601, UTC where it has no zone, or Unix time; empty: now.

Evidence of a row is whose list it is, why, and its time: the same file again adds nothing, and what was removed since stays so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from datetime import UTC, datetime
from typing import BinaryIO, NamedTuple, cast, get_args

from avro.records import Suppression, SuppressionEntry, SuppressionReason
from postroad import suppression
from postroad.spreadsheet import guarded, plain
from postroad.suppression_rows import Fault, rows

OWN = ("tenant", "recipient", "reason", "at", "expires_at", "source", "by", "cause", "evidence", "detail")
REASONS: tuple[SuppressionReason, ...] = get_args(SuppressionReason)

_SES: dict[str, SuppressionReason] = {"bounce": "hard_bounce", "complaint": "complaint"}
_POSTMARK: dict[str, SuppressionReason] = {
    "hardbounce": "hard_bounce", "spamcomplaint": "complaint", "manualsuppression": "manual",
}  # fmt: skip


class _Form(NamedTuple):
    """Whose file it is, the columns by which it is known, and where its values stand. `reason`: what all of it is."""

    name: str
    known_by: frozenset[str]
    address: str
    at: str = ""
    reason: SuppressionReason | None = None
    exactly: bool = False


_FORMS = (
    _Form("postroad", frozenset(("tenant", "recipient", "reason")), "recipient", "at"),
    _Form("Postmark", frozenset(("emailaddress", "suppressionreason")), "emailaddress", "createdat"),
    _Form("SES", frozenset(("emailaddress", "reason")), "emailaddress", "lastupdatetime"),
    _Form("SendGrid bounces", frozenset(("status", "reason", "email", "created")), "email", "created", "hard_bounce"),
    _Form("SendGrid invalid emails", frozenset(("reason", "email", "created")), "email", "created", "hard_bounce"),
    _Form("SendGrid spam reports", frozenset(("email", "created", "ip")), "email", "created", "complaint"),
    _Form("SendGrid unsubscribes", frozenset(("email", "created")), "email", "created", "unsubscribe", exactly=True),
    *(_Form("list", frozenset((name,)), name, exactly=True)
      for name in ("email", "email_address", "emailaddress", "address", "recipient")),
)  # fmt: skip
_NUMBER = re.compile(r"[0-9]{1,14}(\.[0-9]{1,9})?")
_MS_FROM = 1e11  # a Unix time in ms; in seconds that is the year 5138
LAST_MS = 253_402_300_799_000  # the end of the year 9999
AHEAD_MS = 86_400_000  # the clock of whoever exported it


class FileRefused(ValueError):
    """The file as a whole is no list that can be imported; the text says why."""


class Entry(NamedTuple):
    """What a line adds to a list."""

    line: int
    entry: Suppression


def read(
    file: BinaryIO,
    name: str,
    now: int,
    *,
    tenant: str | None = None,
    reason: SuppressionReason | None = None,
    by: str = "",
) -> Iterator[Entry | Fault]:
    """What a file adds, line by line, in memory that does not grow with it. `now`: ms; `tenant`: whose list, "" for the global one;
    None: as each row says, in our own form. `reason`: of a file that has none. Raises FileRefused at the first row."""
    form = None
    try:
        for row in rows(file):
            if isinstance(row, Fault):
                yield row
                continue
            try:
                form = _form(name, row.values.keys(), reason, tenant)
                entry = _entry(row.values, form, now, tenant, reason, by)
                entry["recipient"] = suppression.check(entry)
            except ValueError as error:
                if form is None:
                    raise
                yield Fault(row.line, str(error))
            else:
                yield Entry(row.line, entry)
    except ValueError as error:
        raise FileRefused(f"{name}: {error}") from None


def _form(name: str, columns: Set[str], reason: SuppressionReason | None, tenant: str | None) -> _Form:
    form = next((f for f in _FORMS if (columns == f.known_by if f.exactly else columns >= f.known_by)), None)
    if form is None:
        known = "; ".join(dict.fromkeys(", ".join(sorted(each.known_by)) for each in _FORMS))
        raise ValueError(
            f"columns {', '.join(sorted(columns))[:200]!r} are of no list that is known; known are: {known}"
        )
    if form.name.startswith("SendGrid") and "block" in name.lower():
        raise ValueError(
            "SendGrid's blocks are refusals of one mail (its content, the sender's reputation) and no suppressions: SendGrid itself"
            " goes on sending to these addresses. Import its bounces, spam reports and unsubscribes; if this file is one of them,"
            " rename it (by REST ?name=)"
        )
    if form.name == "list" and reason is None:
        raise ValueError("the file has addresses and no reasons: say why with --reason (by REST ?reason=)")
    if form.name != "postroad" and tenant is None:
        raise ValueError("the file does not say whose list it is: say --tenant TENANT, or --global")
    return form


def _entry(
    values: dict[str, str], form: _Form, now: int, tenant: str | None, reason: SuppressionReason | None, by: str
) -> Suppression:
    """Raises ValueError."""
    if form.name == "postroad":
        values = {name: plain(value) for name, value in values.items()}
    at = _time(values.get(form.at, ""), now)
    why = _reason(values, form) if form.name != "list" else cast(SuppressionReason, reason)
    said = values.get("evidence") or f"{form.name} {why} {_iso(at) if values.get(form.at) else 'undated'}"
    end = values.get("expires_at") or ""
    detail = (
        " ".join(filter(None, (values.get("status"), values.get("reason"))))
        if form.reason
        else values.get("detail", "")
    )
    return {
        "recipient": values[form.address].strip(), "tenant": values.get("tenant", "") if tenant is None else tenant,
        "action": "add", "reason": why, "at": at, "evidence": said, "detail": detail[: suppression.DETAIL_MAX],
        "expires_at": _time(end, now, ahead=True) if end else None, "source": "csv", "by": by,
        "cause": values.get("cause", ""), "message_id": "",
    }  # fmt: skip


def _reason(values: dict[str, str], form: _Form) -> SuppressionReason:
    if form.reason is not None:
        return form.reason
    column = "suppressionreason" if form.name == "Postmark" else "reason"
    said = values[column].strip().lower()
    names = {"Postmark": _POSTMARK, "SES": _SES}.get(form.name) or {name: name for name in REASONS}
    if (found := names.get(said)) is None:
        raise ValueError(f"{column} {said[:40]!r}: known are {', '.join(names)}")
    of_recipient = form.name == "Postmark" and values.get("origin", "").strip().lower() == "recipient"
    return "unsubscribe" if found == "manual" and of_recipient else found


def _time(text: str, now: int, ahead: bool = False) -> int:
    """Milliseconds. Raises ValueError."""
    text = re.sub(r" +(?=[+-][0-9:]+$)", "", text.strip().removesuffix(" UTC"))  # "2026-01-31 10:00:00 +0000 UTC"
    if not text:
        return now
    try:
        if _NUMBER.fullmatch(text):
            number = float(text)
            at = int(number if number >= _MS_FROM else number * 1000)
        else:
            given = datetime.fromisoformat(text)
            at = int((given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise ValueError(f"time {text[:40]!r}: ISO 8601 or Unix time is wanted") from None
    if at < 0 or (not ahead and at > now + AHEAD_MS):
        raise ValueError(f"time {text[:40]!r} is not of the past")
    return min(at, now) if not ahead else at


def _iso(ms: int) -> str:
    return (
        datetime.fromtimestamp(min(ms, LAST_MS) / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


# -- export ------------------------------------------------------------------------------------------------------------


def row(entry: SuppressionEntry) -> list[str]:
    """The cells of an entry, in the order of OWN; those that a spreadsheet would compute are guarded, which `read` takes away again."""
    of = entry["reason"], entry["at"]
    last = next((each["evidence"] for each in entry["evidence"] if (each["reason"], each["at"]) == of), "")
    expires = entry.get("expires_at")
    cells = [
        entry["tenant"], entry["recipient"], entry["reason"], _iso(entry["at"]), "" if expires is None else _iso(expires),
        entry["source"], entry["by"], entry["cause"], last, entry["detail"],
    ]  # fmt: skip
    return [guarded(cell) for cell in cells]
