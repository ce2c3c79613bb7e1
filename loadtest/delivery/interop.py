"""Interop: mail servers that others wrote, at the end of the whole road. Musts: each takes every message over TLS with both DKIM
signatures valid by an independent verifier, and what postgrey puts off arrives after a retry."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from avro.records import Submission
from loadtest.delivery import mailservers
from loadtest.delivery.debian import Unavailable
from loadtest.delivery.mailservers import GREY_DELAY_S, GREY_DOMAIN, SERVERS, Server
from loadtest.delivery.rig import DOMAIN, KEYS, TENANT, Rig, RigError, caps_toml
from loadtest.delivery.rspamd import Rspamd
from loadtest.mxfarm import Host, Site
from loadtest.mxfarm.receipts import TXT
from loadtest.mxfarm.signatures import Verifier
from topics.catalogue import SUBMISSIONS

MESSAGES, SHORT_MESSAGES = 1_000, 20
GREY, SHORT_GREY = 50, 5
ADDRESS = "127.0.90.{}"
DELIVERED_S, SHORT_DELIVERED_S = 600.0, 90.0
Verify = Callable[[bytes], set[tuple[str, str]]]
SIGNATURES = {(DOMAIN, selector) for selector in KEYS}


def run(folder: Path, short: bool) -> dict[str, Any]:
    """The figure `interop_failed`: messages that did not arrive, came in clear, or lack a valid signature; `interop_skipped`: what
    could not be had here, in words."""
    messages, grey = (SHORT_MESSAGES, SHORT_GREY) if short else (MESSAGES, GREY)
    skipped: list[str] = []
    with ExitStack() as stack:
        tls = {f"{name}": {"tls": "required", "new_connections_per_minute": 1000} for name in SERVERS}
        tls["opensmtpd"]["tls"] = "opportunistic"
        rig = stack.enter_context(Rig(
            folder, _sites(), shaping=caps_toml(tls),
            settings={"greylist_s": [GREY_DELAY_S + 1.0, GREY_DELAY_S + 1.0], "retry_delays_s": [5.0]},
        ))  # fmt: skip
        servers = list(_started(folder, rig.farm.smtp_port, skipped, stack))
        clear = [one.name for one in servers if not mailservers.can_tls(one, rig.farm.smtp_port)]
        skipped += [f"TLS with {name}: its own handshake fails here, with anybody" for name in clear]
        wanted = {server.name: {f"r{n}@{server.name}.test" for n in range(messages)} for server in servers}
        if "postfix" in wanted and len(servers[0].processes) > 1:
            wanted["postfix"] |= {f"g{n}@{GREY_DOMAIN}" for n in range(grey)}
        elif "postfix" in wanted:
            skipped.append("postgrey")
        rig.write(SUBMISSIONS.send(_submission(to)) for name in wanted for to in sorted(wanted[name]))
        total = sum(map(len, wanted.values()))
        rig.sleep(
            SHORT_DELIVERED_S if short else DELIVERED_S,
            until=lambda: sum(sum(1 for _ in one.messages()) for one in servers) >= total,
        )
        failed = _check(folder, rig, servers, wanted, clear, skipped)
    for one in skipped:
        print(f"  SKIPPED {one}")
    return {"interop_failed": failed, "interop_messages": total, "interop_skipped": skipped}


def _sites() -> list[Site]:
    """The zone of the servers, which are not the farm's."""
    sites = []
    for number, name in enumerate(SERVERS, 1):
        host = Host(f"mx.{name}.test", ADDRESS.format(number), listens=False)
        sites.append(Site(name, (host,), (f"{name}.test", *([GREY_DOMAIN] if name == "postfix" else []))))
    return sites


def _started(folder: Path, port: int, skipped: list[str], stack: ExitStack) -> Iterator[Server]:
    tls = mailservers.certificate(folder / "tls.pem")
    for number, (name, start) in enumerate(SERVERS.items(), 1):
        try:
            server = start(folder, ADDRESS.format(number), port, tls)
            stack.callback(server.stop)
            mailservers.wait_ready(server, port)
            yield server
        except Unavailable as error:
            skipped.append(f"{name}: {error}")


def _check(
    folder: Path, rig: Rig, servers: list[Server], wanted: dict[str, set[str]], clear: list[str], skipped: list[str]
) -> int:
    """How many messages are wrong. Without rspamd, dkimpy verifies, and it is said."""
    failed = 0
    with ExitStack() as stack:
        try:
            valid: Verify = stack.enter_context(Rspamd(folder, rig.farm.dns, rig.farm.smtp_port + 2)).valid
        except Unavailable as error:
            skipped.append(f"rspamd ({error}): dkimpy has verified, with Ed25519 by OpenSSL")
            valid = _dkimpy(rig)
        for server in servers:
            due, in_clear, unsigned, twice, at_once = set(wanted[server.name]), 0, 0, 0, 0
            if (one := next(server.messages(), None)) and valid(one + b"changed\r\n"):
                raise RigError(f"the verifier takes a message that was changed on its way: {server.name}")
            for message in server.messages():
                header = message.partition(b"\r\n\r\n")[0]
                to = next(line[4:].strip(b" <>").decode() for line in header.split(b"\r\n") if line[:4] == b"To: ")
                twice += to not in due
                due.discard(to)
                in_clear += server.tls_mark not in header and server.name not in clear
                unsigned += not valid(message) >= SIGNATURES
                at_once += to.endswith(f"@{GREY_DOMAIN}") and b"X-Greylist: delayed" not in header
            wrong = len(due) + in_clear + unsigned + twice + at_once
            print(f"  {server.name:10} {len(wanted[server.name]) - len(due):5,} of {len(wanted[server.name]):,} messages, "
                  f"{in_clear} in clear, {unsigned} without both signatures, {twice} that nobody waits for")  # fmt: skip
            failed += wrong
    return failed


def _dkimpy(rig: Rig) -> Verify:
    verifier = Verifier(json.loads((rig.farm.folder / TXT).read_text()))
    return lambda message: {(one.domain, one.selector) for one in verifier.verify(message) if one.valid}


def _submission(to: str) -> Submission:
    return {
        "tenant": TENANT, "submission_id": to, "sender": {"address": f"news@{DOMAIN}", "name": "The Lantern"},
        "recipients": [{"address": to}], "subject": "Grüße, and a dot on a line of its own",
        "text": "Dear reader,\n\n.\n..two\nüber alles\n\n   \nBye\n\n\n" * 20,
    }  # fmt: skip


def broken(result: dict[str, Any]) -> list[str]:
    """The musts that do not hold."""
    found = [f"{result['interop_failed']} messages to other mail servers failed"] if result["interop_failed"] else []
    return found if result["interop_messages"] else [*found, "no other mail server could be had"]
