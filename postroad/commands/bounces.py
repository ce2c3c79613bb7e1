"""`postroad bounces`: what a report, or an SMTP reply, is taken for, and by which rule. Needs no Kafka.

    postroad bounces explain FILE... [--json]                # "-": standard input
    postroad bounces explain-reply "550 5.1.1 no such user" [--site S] [--phase P] [--json]

With --json one object per file and line: file, kind, recipients (address, class, reason, status, reply_code, action, rule,
confidence). A reply gives the same with `reply` in place of `file`, no address, and the outcome that the attempt would have.
"""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postroad.commands.printing import safe

if TYPE_CHECKING:
    from avro.records import SmtpPhase

app = typer.Typer(no_args_is_help=True, help="What bounces, complaints and replies are taken for.")

COLUMNS = ("address", "class", "reason", "status", "reply_code", "action", "rule", "confidence")
_CODE = re.compile(r"([2-5]\d\d)(?:[ -]|$)")

Json = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]


@app.command("explain")
def explain_files(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help='Mails as they came in; "-": standard input.')],
    as_json: Json = False,
) -> None:
    """Tell of each file what it is, whom it speaks of, and by which rule. Exit status 1 when a file cannot be read."""
    failed = False
    for file in files:
        try:
            raw = _bytes(file)
        except OSError as error:
            print(safe(f"postroad: {file}: {error.strerror or error}"), file=sys.stderr)
            failed = True
            continue
        found = explained(raw)
        if as_json:
            print(json.dumps({"file": file, **found}), flush=True)
        else:
            _show(file, found)
    if failed:
        raise typer.Exit(1)


@app.command("explain-reply")
def explain_replies(
    replies: Annotated[list[str], typer.Argument(metavar="REPLY...", help='As the host gave it: "550 5.1.1 ...".')],
    site: Annotated[str, typer.Option(help="Who runs the host, as in the timeline.")] = "",
    phase: Annotated[
        str, typer.Option(help="The command that it answers: mail, rcpt, data, body...; rcpt if not known.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Tell what an SMTP reply is taken for, and by which rule."""
    from typing import get_args

    from avro.records import SmtpPhase

    if phase and phase not in get_args(SmtpPhase):
        raise typer.BadParameter(f"{phase} is none of {', '.join(get_args(SmtpPhase))}", param_hint="--phase")
    for reply in replies:
        found = explained_reply(reply, site, phase)
        if as_json:
            print(json.dumps({"reply": reply, **found}), flush=True)
        else:
            _show(reply, found)


def explained(raw: bytes) -> dict[str, Any]:
    """`kind` and `recipients` of a mail; an mbox's "From " line before it is no part of it."""
    from postroad import feedback

    if raw.startswith(b"From "):
        raw = raw.partition(b"\n")[2]
    read = feedback.read(raw)
    people = [
        {"address": one.address, "class": one.judgement.bounce_class, "reason": one.judgement.reason, "status": one.status,
         "reply_code": one.reply_code, "action": one.action, "rule": one.judgement.rule,
         "confidence": round(one.judgement.confidence, 3)}
        for one in read.recipients
    ]  # fmt: skip
    return {"kind": read.kind, "recipients": people}


def explained_reply(text: str, site: str = "", phase: SmtpPhase | str = "") -> dict[str, Any]:
    """The same for one reply, code and enhanced code first; lines joined by newlines. `outcome`: of an attempt that ends so."""
    from postroad import bounces
    from postroad.reply import Reply

    lines = text.strip().splitlines() or [""]
    found = _CODE.match(lines[0])
    code = int(found[1]) if found else 0
    said = (
        [line[4:] if line.startswith(lines[0][:3]) and _CODE.match(line) else line for line in lines] if code else lines
    )
    reply = Reply.parse(code or 500, "\n".join(said))  # without a code the enhanced code is to be found all the same
    judged = bounces.judge(code, reply.enhanced, reply.text, phase=phase, site=site)  # type: ignore[arg-type]
    verdict = bounces.classify(Reply(code or 500, reply.enhanced, reply.text), phase or "rcpt", site)  # type: ignore[arg-type]
    if 200 <= code < 400:
        kind, action, outcome = "other", "delivered", "delivered"
    elif verdict.outcome == "deferral":
        kind, action, outcome = "delay", "delayed", "deferral"
    else:
        kind, action, outcome = "bounce", "failed", verdict.outcome
    person = {"address": "", "class": judged.bounce_class, "reason": judged.reason, "status": reply.enhanced, "reply_code": code,
              "action": action, "rule": judged.rule, "confidence": round(judged.confidence, 3)}  # fmt: skip
    if outcome == "delivered":
        person |= {"class": "undetermined", "reason": "delivered", "rule": "accepted", "confidence": 1.0}
    return {"kind": kind, "outcome": outcome, "recipients": [person]}


def _bytes(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    with open(file, "rb") as opened:
        return opened.read()


def _show(name: str, found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from postroad.bounces import REASONS

    outcome = f", outcome of the attempt: {found['outcome']}" if "outcome" in found else ""
    print(safe(f"{name}: {found['kind']}{outcome}"))
    if not (people := found["recipients"]):
        print("  names no recipient")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = [name for name in COLUMNS if any(person[name] for person in people)]
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for person in people:
        table.add_row(*(escape(safe(str(person[column] or ""))) for column in columns))
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    for reason in dict.fromkeys(person["reason"] for person in people):
        if known := REASONS.get(reason):
            print(f"  {reason}: {known.meaning}; {known.advice}")
