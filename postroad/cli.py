"""The command `postroad`.

Commands import agents, topics, analytics and deploy inside their functions: this package knows no Kafka (architecture.md),
its command line alone starts what does, and `--help` answers without loading any of it.
"""

from __future__ import annotations

import asyncio
import getpass
import json
import logging
import sys
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from avro.records import DecisionAction, MessageStream, Submission, Tenant
from postroad import addresses, checks, ids, settings, tenants
from postroad.commands import analytics as analytics_commands
from postroad.commands import bounces as bounces_commands
from postroad.commands import dead_letters, domains, gateway, region, reputation, shaping, suppressions
from postroad.commands import keys as keys_commands
from postroad.commands import orders as orders_commands
from postroad.commands import webhooks as webhooks_commands
from postroad.commands.audit import audit
from postroad.commands.demo_data import demo_data
from postroad.commands.explain import explain
from postroad.commands.plan import plan
from postroad.commands.printing import safe
from postroad.commands.query import query
from postroad.commands.queue import queue
from postroad.commands.report import report
from postroad.commands.status import status
from postroad.commands.warmup import warmup
from postroad.dkim import DkimError

if TYPE_CHECKING:
    from analytics.clickhouse import Warehouse
    from topics.catalogue import Output
    from topics.client import Client, Place

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Email as a stream of events.")
tenants_app = typer.Typer(no_args_is_help=True, help="Tenants: who may send, from which domains, how much.")
topics_app = typer.Typer(no_args_is_help=True, help="Kafka topics of the installation.")
held_app = typer.Typer(no_args_is_help=True, help="Messages that wait for an operator.")
app.add_typer(tenants_app, name="tenants")
app.add_typer(topics_app, name="topics")
app.add_typer(suppressions.app, name="suppressions")
app.add_typer(held_app, name="held")
app.command()(audit)
app.command()(demo_data)
app.command()(query)
app.command()(report)
app.command()(queue)
app.command()(explain)
app.command()(warmup)
app.command()(plan)
app.command()(status)
app.command("orders")(orders_commands.list_orders)
for order_command in (orders_commands.suspend, orders_commands.resume, orders_commands.flush, orders_commands.bounce):
    app.command()(order_command)
app.add_typer(bounces_commands.app, name="bounces")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(domains.app, name="domains")
app.add_typer(shaping.app, name="shaping")
app.add_typer(reputation.app, name="reputation")
app.add_typer(region.app, name="region")
app.add_typer(gateway.app, name="gateway")
app.add_typer(keys_commands.app, name="keys")
app.add_typer(webhooks_commands.app, name="webhooks")
app.add_typer(analytics_commands.app, name="analytics")
console = Console(width=None if sys.stdout.isatty() else 200)  # a file or a pipe has no width to keep to

ENDS = ("delivered", "bounced", "dropped", "rejected", "expired", "cancelled")
ENDED = f"""
SELECT message_id, any(recipient) AS recipient, countIf(kind IN {(*ENDS, "held")}) > 0 AS ended
FROM events WHERE tenant = {{tenant:String}} AND submission_id = {{submission:String}} AND ts >= toDateTime({{since:UInt32}})
GROUP BY message_id ORDER BY message_id
"""
HELD = f"""
SELECT message_id, any(tenant) AS tenant, any(recipient) AS recipient, max(ts) AS since,
       anyIf(reason, kind = 'held') AS why, anyIf(rule, kind = 'held') AS rules, anyIf(detail, kind = 'held') AS detail
FROM events WHERE ts > now() - 90 * 86400
GROUP BY message_id
HAVING countIf(kind = 'held') > 0 AND countIf(kind IN {ENDS}) = 0
   AND (countIf(kind = 'released') = 0 OR maxIf(round, kind = 'held') > maxIf(round, kind = 'released'))
ORDER BY since
"""


def main() -> None:
    """Entry point: what a user can put right is told in a line, exit status 1; all else is a traceback."""
    logging.getLogger("clickhouse_driver").setLevel(logging.CRITICAL)  # a traceback before the line that says the same
    try:
        app()
    except Exception as error:
        if not isinstance(error, _expected()):
            raise
        hint = " (is Kafka there? `postroad up` starts one)" if type(error).__name__ == "KafkaConnectionError" else ""
        logs = sys.modules.get("postroad.logs")
        if logs is not None and logs.is_set_up():  # a process with a log says its last word there
            logging.getLogger(__name__).critical("%s%s", error or type(error).__name__, hint)
        else:
            print(f"postroad: {error or type(error).__name__}{hint}", file=sys.stderr)
        sys.exit(1)


def _expected() -> tuple[type[BaseException], ...]:
    from aiokafka.errors import KafkaError

    from analytics.clickhouse import WarehouseError
    from deploy.local.kafka import BrokerUnavailable
    from deploy.local.stack import StackError
    from topics.admin import TopicMismatch
    from topics.codec import RegistryUnavailable

    ours = (settings.SettingsError, tenants.TenantsError, addresses.BadAddress, DkimError, CommandError)
    return *ours, KafkaError, WarehouseError, BrokerUnavailable, StackError, TopicMismatch, RegistryUnavailable, OSError


class CommandError(Exception):
    """The command cannot do what was asked; the text says why."""


def _now() -> int:
    return time.time_ns() // 1_000_000


def _client() -> Client:
    from topics.client import Client
    from topics.installation import Installation

    return Client(Installation(**settings.load().installation()))


def _write(outputs: list[Output]) -> list[Place]:
    async def write() -> list[Place]:
        async with _client() as client:
            return [await client.send(output) for output in outputs]

    return asyncio.run(write())


def _warehouse() -> Warehouse:
    from analytics.clickhouse import connect

    if not (url := settings.load().warehouse):
        raise CommandError(
            "no ClickHouse to ask: set POSTROAD_CLICKHOUSE, or POSTROAD_CLICKHOUSE_HTTP for a local stack"
        )
    return connect(url)


def _show(columns: list[str], rows: list[tuple[Any, ...]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(
            *(escape(safe(value.isoformat(" ") if isinstance(value, datetime) else str(value))) for value in row)
        )
    console.print(table)


@app.command("settings")
def show_settings() -> None:
    """List every setting: name, value, default, where the value comes from, what it is."""
    _show(["name", "value", "default", "source", "description"], list(settings.listing(settings.load())))


@app.command()
def up(
    worker: Annotated[
        list[str] | None, typer.Option(help="Stages of one worker process, with blanks between them; may be repeated.")
    ] = None,
    clickhouse_server: Annotated[
        bool, typer.Option("--clickhouse-server", help="A local clickhouse-server instead of chdb.")
    ] = False,
) -> None:
    """Run the whole road on this machine, in the foreground, until Ctrl-C."""
    from agents.worker import UnknownStage, chosen
    from deploy.local.stack import Stack

    workers = [stages.split() for stages in worker or ["all"]]
    try:
        for stages in workers:
            chosen(stages)  # now: a worker that ends for it is started again and again
    except UnknownStage as error:
        raise CommandError(f"--worker: {error}; with blanks between them") from None
    Stack(settings.load(), workers, clickhouse_server=clickhouse_server, console=console).run()


@app.command("worker")
def run_worker(
    stages: Annotated[list[str], typer.Argument(metavar="STAGE...", help="Names of stages, or: all")],
) -> None:
    """Run stages against the configured cluster, in the foreground."""
    from agents.worker import UnknownStage, run

    try:
        run(stages)
    except UnknownStage as error:
        raise CommandError(str(error)) from None


@topics_app.command("create")
def topics_create() -> None:
    """Create the topics that are missing, then check all."""
    from topics.admin import ensure
    from topics.installation import Installation

    created = asyncio.run(ensure(Installation(**settings.load().installation())))
    print(f"created: {', '.join(created) or 'none, all were there'}")


@topics_app.command("check")
def topics_check() -> None:
    """Compare the cluster's topics with the catalogue."""
    from topics.admin import check
    from topics.installation import Installation

    asyncio.run(check(Installation(**settings.load().installation())))
    print("all topics are as the catalogue says")


@topics_app.command("plan")
def topics_plan(as_json: Annotated[bool, typer.Option("--json", help="One list, for scripts.")] = False) -> None:
    """What the cluster's topics differ in from the catalogue. Exit status 2 where they do."""
    from topics.installation import Installation
    from topics.plan import plan

    found = asyncio.run(plan(Installation(**settings.load().installation())))
    _print_differences(found, as_json)
    if found:
        raise typer.Exit(2)


@topics_app.command("apply")
def topics_apply(as_json: Annotated[bool, typer.Option("--json", help="One list, for scripts.")] = False) -> None:
    """Create the topics that are missing and mend the settings of others. Exit status 2 where something is left that cannot be mended in
    place, such as a number of partitions; it is listed, with what to do."""
    from topics.installation import Installation
    from topics.plan import apply, plan

    async def run() -> tuple[list[Any], list[Any]]:
        installation = Installation(**settings.load().installation())
        differences = await plan(installation)
        return await apply(installation, differences), [one for one in differences if one.advice]

    done, left = asyncio.run(run())
    if not as_json:
        for one in done:
            print(f"{one.topic}: {one.what} is now {one.want}, was {one.have}")
    _print_differences(left, as_json)
    if left:
        raise typer.Exit(2)


def _print_differences(found: Sequence[Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps([one._asdict() for one in found], indent=2))
        return
    for one in found:
        print(f"{one.topic}: {one.what} is {one.have}, to be {one.want}" + (f"; {one.advice}" if one.advice else ""))
    if not found:
        print("all topics are as the catalogue says")


@tenants_app.command("apply")
def tenants_apply(file: Annotated[Path, typer.Argument(help="YAML, see postroad/tenants.py")]) -> None:
    """Write the tenants of a file; those that it does not name stay as they are."""
    from topics.catalogue import TENANTS

    loaded = tenants.load_tenants(file)
    in_force = domains.in_force()
    loaded = [tenants.keep_keys(tenant, in_force.get(tenant["tenant"])) for tenant in loaded]
    _write([TENANTS.send(tenant) for tenant in loaded])
    print(f"applied: {', '.join(tenant['tenant'] for tenant in loaded)}")


@tenants_app.command("list")
def tenants_list() -> None:
    """Show the tenants that are in force."""
    from topics.catalogue import TENANTS

    async def read() -> dict[bytes, Tenant]:
        async with _client() as client:
            return {record.key: value async for record, value in client.read(TENANTS)}

    rows = [
        (t["tenant"], t.get("name"), "yes" if t.get("active") else "no", " ".join(d["domain"] for d in t.get("domains", ())),
         t.get("egress_pool"), t.get("quota_per_second") or "-", t.get("quota_per_day") or "-")
        for t in asyncio.run(read()).values() if t is not None
    ]  # fmt: skip
    _show(["tenant", "name", "active", "domains", "pool", "a second", "a day"], sorted(rows))


@app.command()
def send(
    file: Annotated[Path, typer.Argument(help="A message as RFC 5322 has it (.eml).")],
    to: Annotated[list[str], typer.Option(help="Recipient; may be repeated.")],
    tenant: Annotated[str, typer.Option(help="Who sends.")],
    stream: Annotated[MessageStream, typer.Option()] = "transactional",
    wait: Annotated[bool, typer.Option(help="Wait for the end of every message and print the timeline.")] = True,
    timeout_s: Annotated[float, typer.Option("--timeout", help="Longest wait, seconds.")] = 60.0,
) -> None:
    """Submit one mail and follow it to its end."""
    from topics.catalogue import BROADCASTS, SUBMISSIONS

    raw = file.read_bytes()
    if len(raw) + (64 << 10) > SUBMISSIONS.max_bytes:
        raise CommandError(
            f"{file} has {len(raw):,} bytes: a submission is one record of at most {SUBMISSIONS.max_bytes:,}; "
            "send its parts as text, html and attachments by reference (README, for producers)"
        )
    if (author := checks.author(raw)) is None:
        raise CommandError(f"{file} has no From header with an address: the sender must be known")
    submission: Submission = {
        "tenant": tenant,
        "submission_id": f"cli-{uuid.uuid4()}",
        "stream": stream,
        "sender": author,
        "recipients": [{"address": address} for address in dict.fromkeys(to)],
        "raw": raw,
    }
    (place,) = _write([(BROADCASTS if stream == "broadcast" else SUBMISSIONS).send(submission)])
    print(f"accepted as {submission['submission_id']} at partition {place.partition}, offset {place.offset}")
    if wait:
        _follow(submission, place.timestamp, timeout_s)


def _follow(submission: Submission, accepted_at: int, timeout_s: float) -> None:
    """Ask until every message has ended or is held; an error when that takes too long."""
    from analytics.clickhouse import WarehouseError

    deadline = time.monotonic() + timeout_s
    asked = {"tenant": submission["tenant"], "submission": submission["submission_id"], "since": accepted_at // 1000}
    warehouse = _warehouse()
    while True:
        try:
            messages = warehouse.query(ENDED, asked).rows
        except WarehouseError:  # a local one answers from the first events on
            if time.monotonic() > deadline:
                raise
            messages = []
        # Events come stage by stage: a message that ingest has not reported yet is missing here, not ended.
        complete = len(messages) >= len(submission["recipients"]) and all(ended for _, _, ended in messages)
        if complete or time.monotonic() > deadline:
            break
        time.sleep(0.25)
    for message_id, recipient, _ in messages:
        print(safe(f"{message_id} to {recipient}"))
        _print_timeline(warehouse, message_id)
    if not complete:
        raise CommandError(f"no end after {timeout_s:g} s; ask again later with `postroad timeline MESSAGE_ID`")


@app.command()
def timeline(message_id: str) -> None:
    """What happened to one message."""
    _print_timeline(_warehouse(), message_id)


def _print_timeline(warehouse: Warehouse, message_id: str) -> None:
    from analytics import queries

    try:
        accepted_at = ids.accepted_at(message_id)
    except ValueError as error:
        raise CommandError(str(error)) from None
    events = queries.run(warehouse, "timeline", message=message_id).dicts()
    if not events:
        raise CommandError(f"no events of message {message_id}")
    for event in events:
        at = event["at"].replace(tzinfo=UTC).timestamp() + event["ms"] / 1000
        reply = " ".join(str(event[part]) for part in ("reply_code", "enhanced_code", "reply") if event[part])
        said = [event["reason"], event["site"], event["mx_host"], reply, event["detail"]]
        said += ["possible duplicate"] if event["possible_duplicate"] else []
        print(safe(f"  {at - accepted_at / 1000:9.3f} s  {event['kind']:<10} {', '.join(filter(None, said))}"))


@held_app.command("list")
def held_list() -> None:
    """Show the messages that wait for a decision."""
    found = _warehouse().query(HELD)
    _show(found.columns, found.rows)


def _decide(message_ids: list[str], action: DecisionAction, reason: str) -> None:
    from topics.catalogue import DECISIONS

    warehouse, now = _warehouse(), _now()
    outputs = []
    held = {row["message_id"]: row["recipient"] for row in warehouse.query(HELD).dicts()}
    by = getpass.getuser()
    for message_id in message_ids:
        if message_id not in held:
            raise CommandError(
                f"message {message_id} is not held: nothing was decided; `postroad held list` shows those that are"
            )
        outputs.append(
            DECISIONS.send(
                {
                    "message_id": message_id,
                    "recipient": held[message_id],
                    "action": action,
                    "by": by,
                    "at": now,
                    "reason": reason,
                }
            )
        )
    _write(outputs)
    print(f"{action}: {', '.join(message_ids)}")


@held_app.command("release")
def held_release(message_ids: list[str], reason: str = "") -> None:
    """Let messages go on."""
    _decide(message_ids, "release", reason)


@held_app.command("drop")
def held_drop(message_ids: list[str], reason: str = "") -> None:
    """End messages as dropped."""
    _decide(message_ids, "drop", reason)
