"""SMTP submission with clients that others wrote: Python's smtplib, swaks, Go's net/smtp, nodemailer (npm), Jakarta Mail (Maven), and Debian's
Postfix as a relay that signs in. Each checks the door's certificate. What each has sent must be in Kafka, whole and once.

`run(short)`: smtp_interop_failed, of all mails; a client that cannot be had here is told, not counted.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import smtplib
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any, NamedTuple

from deploy.local import STATE
from deploy.local.kafka import free_port
from loadtest.delivery.debian import Jail, Unavailable, unpack
from loadtest.doors.rig import Rig, rig
from topics.catalogue import SUBMISSIONS
from topics.client import Client

HOST, FROM, HIDDEN = "mail.acme.test", "shop@acme.test", "hidden@there.test"
MAILS, SHORT_MAILS = 50, 6
CLIENTS = Path(__file__).parent / "clients"
FETCHED = STATE / "doors"
NODEMAILER = "nodemailer@7.0.10"
JAKARTA = ("org.eclipse.angus", "jakarta.mail", "2.0.3")
RELAYED_S = 60.0
TIMEOUT_S = 300.0


class Door(NamedTuple):
    """Where a client finds the door, and what it needs."""

    starttls: int
    tls: int
    pem: Path  # its certificate, which is its own authority
    key: str
    folder: Path


def run(short: bool = False) -> dict[str, float]:
    """See the module."""
    mails = SHORT_MAILS if short else MAILS
    with rig() as made:
        door = Door(free_port(), free_port(), made.folder / "door.pem", made.secret, made.folder)
        made.start(
            door.tls, door="smtp", POSTROAD_SUBMISSION=f"127.0.0.1:{door.starttls}", POSTROAD_SUBMISSION_HOST=HOST
        )
        shown = (made.folder / "data/submission-tls.pem").read_text("ascii")  # its own, with its key
        door.pem.write_text(shown[shown.index("-----BEGIN CERTIFICATE") :], "ascii")
        used = []
        for name, client in USERS.items():
            try:
                client(door, f"{name}@there.test", mails)
                used.append(name)
            except Unavailable as error:
                print(f"  SKIPPED {name}: {error}")
        return {"smtp_interop_failed": asyncio.run(_failed(made, used, mails)), "smtp_interop_clients": len(used)}


async def _failed(made: Rig, names: list[str], mails: int) -> int:
    """Of the mails that should be there those that are not, or twice, or changed."""
    seen, failed = Counter[str](), 0
    async with Client(made.installation) as client:
        async for _, value in client.read(SUBMISSIONS):
            to = [one["address"] for one in value["recipients"]]
            raw = value.get("raw") or b""
            name = to[0].partition("@")[0]
            parsed = message_from_bytes(raw, policy=policy.default)
            body = parsed.get_body(("plain",))
            text = body.get_content() if body is not None else ""
            whole = (
                text.replace("\r\n", "\n").split("\n")[:2] in ([".", ".."], [".a line with a dot", "."])
                and "end" in text
            )
            if name in ("node", "jakarta"):
                whole = (
                    whole and HIDDEN in to and b"hidden@" not in raw.lower() and str(parsed["subject"]).endswith("é")
                )
            if not whole:
                print(f"  CHANGED {name}: {raw[:300]!r}")
            failed += not whole
            seen[name] += 1
    for name in names:
        print(f"  {name:9} {seen[name]} of {mails} mails")
    return failed + sum(abs(mails - seen[name]) for name in names)


def _run(command: list[str], what: str, **more: Any) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, **more)
    if done.returncode:
        raise AssertionError(f"{what} failed: {(done.stderr or done.stdout)[-2000:]}")


def _mail(to: str, number: int) -> bytes:
    return f"From: {FROM}\r\nTo: {to}\r\nSubject: {number}\r\n\r\n.\r\n..\r\nend\r\n".encode()


def _smtplib(door: Door, to: str, mails: int) -> None:
    trust = ssl.create_default_context(cafile=str(door.pem))
    trust.check_hostname = False  # the address is that of loopback
    for tls in (True, False):
        client = (
            smtplib.SMTP_SSL("127.0.0.1", door.tls, context=trust) if tls else smtplib.SMTP("127.0.0.1", door.starttls)
        )
        with client:
            if not tls:
                client.starttls(context=trust)
            client.login("apikey", door.key)
            for number in range(mails // 2):
                client.sendmail(FROM, [to], _mail(to, number))


def _swaks(door: Door, to: str, mails: int) -> None:
    packages = unpack("swaks")
    folders = [packages / "usr/share/perl5", *packages.glob("usr/lib/*/perl5/*"), *packages.glob("usr/lib/*/perl5")]
    environment = {**os.environ, "PERL5LIB": ":".join(map(str, folders))}
    if shutil.which("perl") is None:
        raise Unavailable("no perl here")
    data = door.folder / "swaks.eml"
    for number in range(mails):
        data.write_bytes(_mail(to, number).replace(b"\r\n", b"\n"))
        port = ["--port", str(door.starttls), "--tls"] if number % 2 else ["--port", str(door.tls), "--tls-on-connect"]
        mechanism = ("PLAIN", "LOGIN")[number // 2 % 2]
        _run(
            ["perl", str(packages / "usr/bin/swaks"), "--server", "127.0.0.1", *port, "--tls-verify", "--tls-ca-path", str(door.pem),
             "--auth", mechanism, "--auth-user", "apikey", "--auth-password", door.key, "--from", FROM, "--to", to, "--data", f"@{data}",
             "--hide-all"], "swaks", env=environment,
        )  # fmt: skip


def _go(door: Door, to: str, mails: int) -> None:
    if shutil.which("go") is None:
        raise Unavailable("no Go here")
    command = [
        "go",
        "run",
        str(CLIENTS / "client.go"),
        HOST,
        str(door.starttls),
        str(door.pem),
        door.key,
        FROM,
        to,
        str(mails),
    ]
    _run(command, "Go's net/smtp", env={**os.environ, "GO111MODULE": "off", "GOFLAGS": ""})


def _node(door: Door, to: str, mails: int) -> None:
    if shutil.which("npm") is None:
        raise Unavailable("no Node.js with npm here")
    modules = FETCHED / "node_modules"
    if not (modules / "nodemailer").exists():
        FETCHED.mkdir(parents=True, exist_ok=True)
        _fetch(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(FETCHED), NODEMAILER])
    _run(
        ["node", str(CLIENTS / "client.js"), HOST, str(door.tls), str(door.starttls), str(door.pem), door.key, FROM, to, str(mails)],
        "nodemailer", env={**os.environ, "NODE_PATH": str(modules)},
    )  # fmt: skip


def _jakarta(door: Door, to: str, mails: int) -> None:
    if shutil.which("mvn") is None or shutil.which("keytool") is None:
        raise Unavailable("no Maven with a JDK here")
    libs = FETCHED / "jakarta"
    if not list(libs.glob("*.jar")):
        FETCHED.mkdir(parents=True, exist_ok=True)
        group, artifact, version = JAKARTA
        needed = f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
        pom = FETCHED / "pom.xml"
        pom.write_text(
            "<project><modelVersion>4.0.0</modelVersion><groupId>postroad</groupId><artifactId>clients</artifactId><version>1</version>"
            f"<dependencies>{needed}</dependencies></project>", "utf-8",
        )  # fmt: skip
        _fetch(["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={libs}"])
    store = door.folder / "trust.p12"
    _run(["keytool", "-importcert", "-noprompt", "-alias", "door", "-file", str(door.pem), "-keystore", str(store), "-storetype", "PKCS12",
          "-storepass", "postroad"], "keytool")  # fmt: skip
    classes = ":".join(str(jar) for jar in sorted(libs.glob("*.jar")))
    _run(["java", "-cp", classes, str(CLIENTS / "Client.java"), HOST, str(door.starttls), str(store), door.key, FROM, to, str(mails)],
         "Jakarta Mail")  # fmt: skip


def _postfix(door: Door, to: str, mails: int) -> None:
    """Takes mail without sign-in on loopback, and hands it over with one."""
    jail = Jail(door.folder / "relay", unpack("relay"), users=("postfix",), groups=("postdrop",))
    jail.folder_for("var/log")
    jail.write("etc/postfix/door.pem", door.pem.read_text("ascii"))
    port, next_hop = free_port(), f"[127.0.0.1]:{door.starttls}"
    settings = {
        "compatibility_level": "3.6", "queue_directory": "/var/spool/postfix", "data_directory": "/var/lib/postfix", "command_directory": "/usr/sbin",
        "daemon_directory": "/usr/lib/postfix/sbin", "mail_owner": "postfix", "setgid_group": "postdrop", "inet_interfaces": "all",
        "inet_protocols": "ipv4", "myhostname": "relay.acme.test", "mydestination": "", "mynetworks": "127.0.0.0/8", "alias_maps": "",
        "local_recipient_maps": "", "relayhost": next_hop, "smtp_sasl_auth_enable": "yes", "smtp_sasl_password_maps": f"static:apikey:{door.key}",
        "smtp_sasl_security_options": "noanonymous", "smtp_tls_security_level": "verify", "smtp_tls_CAfile": "/etc/postfix/door.pem",
        "smtp_tls_verify_cert_match": HOST, "smtpd_peername_lookup": "no", "disable_dns_lookups": "yes", "maillog_file": "/var/log/postfix.log",
    }  # fmt: skip
    jail.write("etc/postfix/main.cf", "".join(f"{name} = {value}\n" for name, value in settings.items()))
    services = [f"127.0.0.1:{port} inet n - n - - smtpd", "postlog unix-dgram n - n - 1 postlogd"]
    services += ["pickup unix n - n 60 1 pickup", "cleanup unix n - n - 0 cleanup", "qmgr unix n - n 300 1 qmgr"]
    services += [f"{name} unix - - n - 0 bounce" for name in ("bounce", "defer", "trace")]
    services += [f"{name} unix - - n - 1 {name}" for name in ("verify", "anvil", "scache")]
    services += [
        "tlsmgr unix - - n 1000? 1 tlsmgr",
        "rewrite unix - - n - - trivial-rewrite",
        "proxymap unix - - n - - proxymap",
    ]
    services += [
        "flush unix n - n 1000? 0 flush",
        "error unix - - n - - error",
        "smtp unix - - n - - smtp",
        "retry unix - - n - - error",
    ]
    jail.write("etc/postfix/master.cf", "\n".join(services) + "\n")
    made = "mkdir -p /var/spool/postfix /var/lib/postfix && chown postfix /var/lib/postfix"
    process = jail.run("postfix start-fg", door.folder / "relay.log", before=made)
    try:
        _until(lambda: _answers(port), "Postfix answers")
        with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
            for number in range(mails):
                client.sendmail(FROM, [to], _mail(to, number))
        log = door.folder / "relay/var/log/postfix.log"
        _until(lambda: log.exists() and log.read_text("utf-8", "replace").count("status=sent (250 2.0.0 accepted") >= mails,
               "Postfix has handed over what it took", log)  # fmt: skip
    finally:
        process.kill()
        process.wait()


def _fetch(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{shlex.join(command[:2])} does not end within {TIMEOUT_S:g} s") from None
    if done.returncode:
        raise Unavailable(f"{shlex.join(command[:2])}: {(done.stderr or done.stdout).strip()[-300:]}")


def _answers(port: int) -> bool:
    try:
        with smtplib.SMTP("127.0.0.1", port, timeout=5) as client:
            return client.noop()[0] == 250
    except (OSError, smtplib.SMTPException):
        return False


def _until(true: Callable[[], bool], what: str, log: Path | None = None) -> None:
    deadline = time.monotonic() + RELAYED_S
    while not true():
        if time.monotonic() > deadline:
            said = log.read_text("utf-8", "replace")[-1500:] if log is not None and log.exists() else ""
            raise AssertionError(f"not within {RELAYED_S:g} s: {what}. {said}")
        time.sleep(0.2)


USERS: dict[str, Callable[[Door, str, int], None]] = {
    "smtplib": _smtplib, "swaks": _swaks, "go": _go, "node": _node, "jakarta": _jakarta, "postfix": _postfix,
}  # fmt: skip
