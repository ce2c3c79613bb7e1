"""The systems that are measured: ours, Postfix with and without OpenDKIM, Haraka, a plain relay. Each runs alone while it is measured.

A `System` is entered with how it signs ("none", "rsa", "both": RSA and Ed25519) and then offers `root`, the process of which all
others descend, and `source`, which brings it so many messages. Mail for capture.test goes to KEEPER, all else to SINK.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Self

from avro.records import DkimAlgorithm, DkimKey, Tenant
from deploy.local import ROOT, STATE, child
from deploy.local.kafka import free_port
from loadtest.delivery.debian import Jail, Unavailable, unpack
from loadtest.demo.road import Road
from loadtest.mxfarm import Farm, Host, Site
from loadtest.peers.sink import tool
from postroad.dkim import generate
from topics.catalogue import TENANTS as TENANT
from topics.catalogue import Output
from topics.client import Client

SINK, KEEPER, CAPTURE = "127.0.0.1", "127.0.0.2", "capture.test"
KEYS: dict[str, DkimAlgorithm] = {"r1": "rsa", "e1": "ed25519"}  # by selector
SIGNED = {"none": (), "rsa": ("r1",), "both": ("r1", "e1")}  # selectors
SESSIONS = 20  # of smtp-source at a time, each kept for all of its messages
TENANTS, SITES = 4, 40  # of ours: neither a tenant nor a site's rate (100 a second) must be what is measured
START_S, NPM_S = 60.0, 300.0
AT_ONCE = 500  # records that Kafka is given together
HARAKA = STATE / "bench" / "haraka"


@dataclass(frozen=True)
class Keys:
    """DKIM keys for all systems: private ones as files FOLDER/SELECTOR.pem, public records by selector."""

    folder: Path
    public: dict[str, str]

    @classmethod
    def make(cls, folder: Path) -> Keys:
        """New ones."""
        folder.mkdir(parents=True)
        folder.chmod(0o755)
        records = {}
        for selector, algorithm in KEYS.items():
            private, records[selector] = generate(algorithm)
            (folder / f"{selector}.pem").write_text(private, "ascii")
        return cls(folder, records)

    def records(self) -> dict[str, str]:
        """What DNS says of every domain that signs."""
        domains = ["sender.example", *(f"t{n}.example" for n in range(TENANTS))]
        return {f"{selector}._domainkey.{domain}": text for selector, text in self.public.items() for domain in domains}


class Source:
    """A process that brings messages in. `waits`: it prepares itself first, says `ready`, and begins when it is told."""

    def __init__(self, command: Sequence[str], log: Path, waits: bool, environment: Mapping[str, str] | None = None):
        self._command, self._log = command, log
        self._environment = {**os.environ, **(environment or {})}
        self._process = self._spawn() if waits else None
        if self._process and (self._process.stdout is None or self._process.stdout.readline() != b"ready\n"):
            raise RuntimeError(f"the source is not ready:\n{child.tail(log)}")

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as errors:
            return subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, cwd=ROOT,
                                    env=self._environment)  # fmt: skip

    def begin(self) -> None:
        """Go; returns at once."""
        if self._process is None:
            self._process = self._spawn()
        elif self._process.stdin is not None:
            self._process.stdin.write(b"go\n")
            self._process.stdin.flush()

    def end(self) -> bytes:
        """Wait for its end; returns what it says. Raises RuntimeError."""
        assert self._process is not None
        said, _ = self._process.communicate()
        if self._process.returncode:
            raise RuntimeError(
                f"{self._command[0]} ended with status {self._process.returncode}:\n{child.tail(self._log)}"
            )
        return said

    def run(self) -> bytes:
        """Both."""
        self.begin()
        return self.end()


class System:
    """One of them, by SMTP on `port` unless it says otherwise."""

    name = ""
    durability = ""  # what it has written, and how, when it says that it has a message
    signs: tuple[str, ...] = ("none", "rsa")

    def __init__(self, folder: Path, keys: Keys, sink_port: int, how: str):
        self.folder, self.keys, self.sink_port, self.how = folder.absolute(), keys, sink_port, how
        self.port = free_port()
        self.log = self.folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        try:
            self.start()
            self.wait_open()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait()

    def start(self) -> None:
        """Set `process`."""
        raise NotImplementedError

    @property
    def roots(self) -> list[int]:
        """All of its processes descend from these."""
        assert self.process is not None
        return [self.process.pid]

    def wait_open(self) -> None:
        """Return when it greets."""
        deadline = time.monotonic() + START_S
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 5.0) as connection:
                    if connection.recv(100).startswith(b"220"):
                        return
            except OSError:
                pass
            if time.monotonic() > deadline or (self.process is not None and self.process.poll() is not None):
                raise RuntimeError(f"{self.name} does not greet:\n{child.tail(self.log)}")
            time.sleep(0.1)

    def source(self, run: str, count: int, size: int, capture: bool = False) -> Source:
        """So many messages with `size` bytes of body, of smtp-source."""
        to = f"user@{CAPTURE if capture else 'dest.example'}"
        options = [
            "-s",
            str(min(SESSIONS, count)),
            "-m",
            str(count),
            "-l",
            str(size),
            "-N",
            "-d",
            "-f",
            "news@sender.example",
        ]
        command = [*tool("smtp-source"), *options, "-t", to, f"127.0.0.1:{self.port}"]
        return Source(command, self.folder / "source.log", waits=False)


class Ours(System):
    """Submissions in Kafka, all stages, Kafka, the events sink with chdb; default settings."""

    name = "postroad"
    durability = "acks=all, one broker, no fsync per message (Kafka's default)"
    signs = ("none", "rsa", "both")
    workers: tuple[str, ...] = ()  # as `postroad up --worker` takes them
    sites, tenants, recipients = SITES, TENANTS, 1  # recipients of each submission

    def start(self) -> None:
        """The name server of a farm without receivers, `postroad up` and its tenants."""
        hosts = {f"d{n}": SINK for n in range(self.sites)} | {"capture": KEEPER}
        sites = [
            Site(name, (Host(f"mx.{name}.test", address, listens=False),), (f"{name}.test",))
            for name, address in hosts.items()
        ]
        self.farm = Farm.start(self.folder / "farm", smtp_port=self.sink_port, sites=sites)
        self.road = Road(self.folder / "road", farm=self.farm, workers=self.workers)
        self.road.__enter__()
        asyncio.run(self.write(map(TENANT.send, self._tenants())))

    def _tenants(self) -> Iterator[Tenant]:
        keys: list[DkimKey] = [
            {
                "selector": selector,
                "algorithm": KEYS[selector],
                "private_key": (self.keys.folder / f"{selector}.pem").read_text("ascii"),
            }
            for selector in SIGNED[self.how]
        ]
        for n in range(self.tenants):
            yield {"tenant": f"t{n}", "name": f"Tenant {n}", "domains": [{"domain": f"t{n}.example", "dkim": keys}]}

    async def write(self, outputs: Iterable[Output]) -> None:
        """Records of other topics, in front of a measurement."""
        rest = iter(outputs)
        async with Client(self.road.installation) as client:
            while batch := list(islice(rest, AT_ONCE)):
                await asyncio.gather(*map(client.send, batch))

    def wait_open(self) -> None:
        """Road has waited."""

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "road"):
            self.road.stop()
        if hasattr(self, "farm"):
            self.farm.stop()

    @property
    def roots(self) -> list[int]:
        """`postroad up`: workers and broker are its children, chdb is in a worker."""
        return [self.road.pid]

    def source(self, run: str, count: int, size: int, capture: bool = False) -> Source:
        """Avro records, written as fast as Kafka takes them; `count` messages in as many submissions as it takes."""
        domains, sites = (CAPTURE, 1) if capture else ("d{}.test", self.sites)
        submissions, recipients = (count, 1) if capture else (count // self.recipients, self.recipients)
        command = [
            sys.executable,
            "-m",
            "loadtest.peers.source",
            self.road.installation.bootstrap,
            run,
            str(submissions),
            str(size),
        ]
        return Source([*command, str(self.tenants), str(sites), domains], self.folder / "source.log", waits=True,
                      environment={"RECIPIENTS": str(recipients)})  # fmt: skip


POSTFIX = """
compatibility_level = 3.6
queue_directory = /var/spool/postfix
data_directory = /var/lib/postfix
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = /var/log/postfix.log
myhostname = relay.sender.example
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
relayhost = [{sink}]:{port}
transport_maps = inline:{{ {{ {capture} = smtp:[{keeper}]:{port} }} }}
disable_dns_lookups = yes
smtp_host_lookup = native
alias_maps =
alias_database =
local_recipient_maps =
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_client_connection_rate_limit = 0
smtp_tls_security_level = none
smtpd_tls_security_level = none
"""  # apart from relaying on loopback, Postfix's own defaults
MILTER = """
smtpd_milters = {sockets}
milter_default_action = tempfail
"""
MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
pickup    unix n - n 60 1 pickup
cleanup   unix n - n - 0 cleanup
qmgr      unix n - n 300 1 qmgr
tlsmgr    unix - - n 1000? 1 tlsmgr
rewrite   unix - - n - - trivial-rewrite
bounce    unix - - n - 0 bounce
defer     unix - - n - 0 bounce
trace     unix - - n - 0 bounce
verify    unix - - n - 1 verify
flush     unix n - n 1000? 0 flush
proxymap  unix - - n - - proxymap
smtp      unix - - n - - smtp
relay     unix - - n - - smtp
error     unix - - n - - error
retry     unix - - n - - error
discard   unix - - n - - discard
anvil     unix - - n - 1 anvil
scache    unix - - n - 1 scache
postlog   unix-dgram n - n - 1 postlogd
"""
OPENDKIM = """
Mode s
Domain sender.example
Selector {selector}
KeyFile /etc/dkim/{selector}.pem
RequireSafeKeys no
Canonicalization relaxed/relaxed
SignatureAlgorithm {algorithm}-sha256
Socket local:/run/{selector}.sock
UMask 000
InternalHosts 127.0.0.0/8
Syslog no
"""


class Postfix(System):
    """Debian's Postfix with its defaults; where it signs, Debian's OpenDKIM as a milter on a unix socket, one for each key."""

    name = "postfix"
    durability = "fsync per message (Postfix's default)"
    signs = ("none", "rsa", "both")

    def start(self) -> None:
        """In name spaces of its own."""
        jail = Jail(self.folder / "jail", unpack("peers", "peers"), users=("postfix", "opendkim"), groups=("postdrop",))
        jail.folder_for("var/log")
        selectors = SIGNED[self.how]
        text = POSTFIX.format(sink=SINK, keeper=KEEPER, port=self.sink_port, capture=CAPTURE)
        if selectors:
            text += MILTER.format(sockets=", ".join(f"unix:/run/{selector}.sock" for selector in selectors))
        jail.write("etc/postfix/main.cf", text)
        jail.write("etc/postfix/master.cf", MASTER.format(port=self.port))
        before = "mkdir -p /var/spool/postfix /var/lib/postfix && chown postfix /var/lib/postfix"
        for selector in selectors:
            jail.write(f"etc/dkim/{selector}.pem", (self.keys.folder / f"{selector}.pem").read_text("ascii"))
            jail.write(f"etc/{selector}.conf", OPENDKIM.format(selector=selector, algorithm=KEYS[selector]))
            before += (
                f"\nopendkim -f -x /etc/{selector}.conf &\nwhile ! [ -S /run/{selector}.sock ]; do sleep 0.1; done"
            )
        self.process = jail.run("postfix start-fg", self.log, before=before)


class Haraka(System):
    """Haraka from npm, a worker for each core, its queue on disk; signs by its own plugin, which has RSA alone."""

    name = "haraka"
    durability = "fsync per message (Haraka's default)"

    def start(self) -> None:
        """node, with a configuration of its own."""
        if shutil.which("node") is None:
            raise Unavailable("Haraka needs Node.js")
        modules = _npm()
        server = self.folder / "server"
        for part in ("config", "plugins", "queue"):
            (server / part).mkdir(parents=True)
        (server / "node_modules").symlink_to(modules)
        shutil.copy(modules / "Haraka" / "config" / "connection.ini", server / "config")  # or 3.3 fails at each connect
        files = {
            "smtp.ini": f"listen=127.0.0.1:{self.port}\nnodes=cpus\n", "log.ini": "level=warn\n", "tls.ini": "[main]\n[redis]\n",
            "outbound.ini": "enable_tls=false\nconcurrency_max=100\nalways_split=true\n", "me": "relay.sender.example\n",
            "relay.ini": "[relay]\nacl=true\n", "relay_acl_allow": "127.0.0.1/32\n",
            "plugins": "relay\n" + ("dkim\n" if self.how == "rsa" else "") + "to_sink\n",
        }  # fmt: skip
        if self.how == "rsa":
            files["dkim/sender.example/private"] = (self.keys.folder / "r1.pem").read_text("ascii")
            files["dkim/sender.example/selector"] = "r1\n"
            files["dkim.ini"] = (
                "[sign]\nenabled=true\nselector=r1\ndomain=sender.example\nheaders=From, To, Date, Message-ID, Subject\n"
                "[canon]\nbody=relaxed\n[verify]\nenabled=false\n"
            )
        for name, text in files.items():
            path = server / "config" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "ascii")
        (server / "plugins" / "to_sink.js").write_text(
            "exports.hook_lookup_rdns = function (next) { next(OK, 'localhost') }\n"
            "exports.hook_get_mx = function (next, hmail, domain) {\n"
            f"  const exchange = domain === {json.dumps(CAPTURE)} ? {json.dumps(KEEPER)} : {json.dumps(SINK)}\n"
            f"  next(OK, [{{ priority: 0, exchange, port: {self.sink_port} }}])\n}}\n",
            "ascii",
        )
        self.process = child.spawn(["node", str(modules / "Haraka" / "bin" / "haraka"), "-c", str(server)], self.log)


class Relay(System):
    """aiosmtpd, dkimpy and aiosmtplib in one process (relay.py)."""

    name = "relay"
    durability = "no spool: 250 after the next hop's"

    def start(self) -> None:
        """One process of Python."""
        command = [sys.executable, "-m", "loadtest.peers.relay", str(self.port), str(self.sink_port)]
        key = [str(self.keys.folder / "r1.pem")] if self.how == "rsa" else []
        self.process = child.spawn([*command, *key], self.log)


SYSTEMS: dict[str, type[System]] = {one.name: one for one in (Ours, Postfix, Haraka, Relay)}


def _npm() -> Path:
    """The modules of Haraka, by the committed lock. Raises Unavailable."""
    if shutil.which("npm") is None:
        raise Unavailable("Haraka needs Node.js with npm")
    here = Path(__file__).parent / "haraka"
    names = ("package.json", "package-lock.json")
    stale = any(not (HARAKA / n).exists() or (HARAKA / n).read_bytes() != (here / n).read_bytes() for n in names)
    if stale or not (HARAKA / "node_modules" / ".package-lock.json").exists():
        HARAKA.mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copy(here / name, HARAKA)
        command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(HARAKA)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=NPM_S)
        if done.returncode:
            raise Unavailable(f"npm brings no Haraka: {done.stderr.strip()[-300:]}")
    return HARAKA / "node_modules"
