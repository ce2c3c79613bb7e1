"""Mail servers that others wrote, as receivers: Postfix, Exim, OpenSMTPD (Debian), Haraka (npm), and postgrey before Postfix.

Each listens on an address of its own, takes mail for its domain over TLS alone (it refuses MAIL or RCPT without), and keeps
what it takes in a folder, one file a message.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from deploy.local import STATE, child
from loadtest.delivery.debian import Jail, Unavailable, unpack

START_S = 30.0
GREY_DOMAIN = "grey.test"  # taken by Postfix too, after postgrey
GREY_DELAY_S = 3
HARAKA = STATE / "delivery" / "haraka"
HARAKA_VERSION = "3.1.1"  # runs on Node 18 and later
NPM_TIMEOUT_S = 300.0


@dataclass
class Server:
    """A running server. `mail`: its folder of what it took; `tls_mark`: in the Received field that it puts on top, where the mail
    came over TLS."""

    name: str
    address: str
    processes: list[subprocess.Popen[bytes]]
    mail: Path
    tls_mark: bytes
    log: Path

    def messages(self) -> Iterator[bytes]:
        """What it has taken, with CRLF."""
        for folder, _, files in os.walk(self.mail):
            if folder.rpartition("/")[2] not in ("tmp", "cur"):
                for file in files:
                    raw = (Path(folder) / file).read_bytes()
                    yield raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")

    def stop(self) -> None:
        """End it with all of its processes."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # Haraka has openssl make parameters for a minute
            process.wait()


Starter = Callable[[Path, str, int, Path], Server]


def postfix(folder: Path, address: str, port: int, tls: Path) -> Server:
    """Postfix, with postgrey for GREY_DOMAIN where it can be had."""
    jail = Jail(folder / "postfix", unpack("postfix"), users=("postfix",), groups=("postdrop",))
    log, mail = folder / "postfix.log", jail.folder_for("var/mail/kept")
    jail.folder_for("var/log")
    jail.write("etc/postfix/tls.pem", tls.read_text("ascii"), 0o600)
    settings = {
        "compatibility_level": "3.6", "queue_directory": "/var/spool/postfix", "data_directory": "/var/lib/postfix",
        "command_directory": "/usr/sbin", "daemon_directory": "/usr/lib/postfix/sbin", "mail_owner": "postfix",
        "setgid_group": "postdrop", "inet_interfaces": "all", "inet_protocols": "ipv4",
        "myhostname": "mx.postfix.test", "mydestination": "", "mynetworks": "", "local_header_rewrite_clients": "", "local_recipient_maps": "",
        "alias_maps": "", "virtual_mailbox_domains": f"postfix.test, {GREY_DOMAIN}",
        "virtual_mailbox_base": "/var/mail/kept", "virtual_mailbox_maps": "static:all/", "virtual_minimum_uid": "1",
        "virtual_uid_maps": "static:8", "virtual_gid_maps": "static:8", "smtpd_tls_security_level": "encrypt",
        "smtpd_tls_chain_files": "/etc/postfix/tls.pem", "smtpd_tls_received_header": "yes", "disable_dns_lookups": "yes",
        "smtpd_peername_lookup": "no", "smtpd_client_connection_count_limit": "0", "maillog_file": "/var/log/postfix.log",
        "smtpd_restriction_classes": "greylist", "greylist": f"check_policy_service inet:{address}:{port + 1}",
        "smtpd_relay_restrictions": "reject_unauth_destination",
        "smtpd_recipient_restrictions": f"check_recipient_access inline:{{{GREY_DOMAIN}=greylist}}",
    }  # fmt: skip
    jail.write("etc/postfix/main.cf", "".join(f"{name} = {value}\n" for name, value in settings.items()))
    services = [f"{address}:{port} inet n - n - - smtpd", "postlog unix-dgram n - n - 1 postlogd"]
    services += ["pickup unix n - n 60 1 pickup", "cleanup unix n - n - 0 cleanup", "qmgr unix n - n 300 1 qmgr"]
    services += [f"{name} unix - - n - 0 bounce" for name in ("bounce", "defer", "trace")]
    services += [f"{name} unix - - n - 1 {name}" for name in ("verify", "anvil", "scache")]
    services += ["tlsmgr unix - - n 1000? 1 tlsmgr", "rewrite unix - - n - - trivial-rewrite"]
    services += ["proxymap unix - - n - - proxymap", "virtual unix - n n - - virtual", "flush unix n - n 1000? 0 flush"]
    services += [f"{name} unix - - n - - {name}" for name in ("error", "smtp", "lmtp")] + ["retry unix - - n - - error"]
    jail.write("etc/postfix/master.cf", "\n".join(services) + "\n")
    made = "mkdir -p /var/spool/postfix /var/lib/postfix && chown postfix /var/lib/postfix && chown 8:8 /var/mail/kept"
    processes = [jail.run("postfix start-fg", log, before=made)]
    try:
        processes.append(_postgrey(folder, address, port + 1))
    except Unavailable:
        pass  # mail for GREY_DOMAIN is refused for the time being then, and interop.py tells it
    return Server("postfix", address, processes, mail, b"(using TLS", log)


def _postgrey(folder: Path, address: str, port: int) -> subprocess.Popen[bytes]:
    jail = Jail(folder / "postgrey", unpack("postgrey"), users=("postgrey",))
    jail.folder_for("var/lib/postgrey")
    return jail.run(
        f"postgrey --inet={address}:{port} --delay={GREY_DELAY_S} --user=postgrey --group=postgrey "
        "--auto-whitelist-clients=0 --dbdir=/var/lib/postgrey",
        folder / "postgrey.log",
    )


def exim(folder: Path, address: str, port: int, tls: Path) -> Server:
    """Exim, the daemon without the heavy lookups."""
    jail = Jail(folder / "exim", unpack("exim"), users=("Debian-exim",))
    log, mail = folder / "exim.log", jail.folder_for("var/mail/kept")
    for part in ("var/spool/exim4", "var/log/exim4"):
        jail.folder_for(part)
    jail.write("etc/exim.pem", tls.read_text("ascii"))
    jail.write(
        "etc/exim4/exim4.conf",
        f"""primary_hostname = mx.exim.test
domainlist kept = exim.test
local_interfaces = {address}.{port}
spool_directory = /var/spool/exim4
log_file_path = /var/log/exim4/%slog
tls_advertise_hosts = *
tls_certificate = /etc/exim.pem
tls_privatekey = /etc/exim.pem
acl_smtp_rcpt = check
dkim_verify_signers =
host_lookup =
rfc1413_hosts =
never_users =
smtp_accept_max = 100
smtp_accept_queue_per_connection = 0
begin acl
check:
  deny !encrypted = *
       message = TLS is needed here
  accept domains = +kept
  deny message = relay not permitted
begin routers
kept:
  driver = accept
  domains = +kept
  transport = maildir
begin transports
maildir:
  driver = appendfile
  directory = /var/mail/kept
  maildir_format
  user = mail
  group = mail
""",
    )
    return Server("exim", address, [jail.run("exim4 -bdf", log)], mail, b"(TLS", log)


def opensmtpd(folder: Path, address: str, port: int, tls: Path) -> Server:
    """OpenSMTPD. TLS is offered and not asked for: 6.8.0p2 of Debian 12 fails in every handshake under OpenSSL 3 (its issues 1171,
    1239), which a sender then gets round without TLS. `can_tls` tells whether this one works."""
    jail = Jail(folder / "opensmtpd", unpack("opensmtpd"), users=("opensmtpd", "opensmtpq"))
    log, mail = folder / "opensmtpd.log", jail.folder_for("var/mail/kept")
    jail.write("etc/smtpd.pem", tls.read_text("ascii"), 0o600)
    jail.write("etc/mailname", "mx.opensmtpd.test\n")
    jail.write(
        "etc/smtpd.conf",
        f"""pki mx.opensmtpd.test cert "/etc/smtpd.pem"
pki mx.opensmtpd.test key "/etc/smtpd.pem"
table everybody {{ "@" = "mail" }}
listen on {address} port {port} tls pki mx.opensmtpd.test hostname mx.opensmtpd.test
action "keep" maildir "/var/mail/kept" virtual <everybody>
match from any for domain "opensmtpd.test" action "keep"
""",
    )
    made = (
        "mkdir -p /var/lib/opensmtpd/empty && chmod 755 /var/lib/opensmtpd/empty && chown root /var/lib/opensmtpd/empty"
    )
    process = jail.run("smtpd -d -f /etc/smtpd.conf", log, before=made)
    return Server("opensmtpd", address, [process], mail, b"(TLS", log)


KEEP_JS = """'use strict';
// Takes what came over TLS and keeps it as a file.
const fs = require('fs'), path = require('path');
let kept = 0;
exports.hook_mail = (next, connection) =>
  connection.tls && connection.tls.enabled ? next() : next(DENY, 'TLS is needed here');
exports.hook_queue = (next, connection) => {
  const file = fs.createWriteStream(path.join(process.env.KEEP, `${process.pid}.${kept++}`));
  file.on('error', () => next(DENYSOFT)).on('close', () => next(OK, 'kept'));
  connection.transaction.message_stream.pipe(file);
};
"""


def haraka(folder: Path, address: str, port: int, tls: Path) -> Server:
    """Haraka, with a queue plugin of our own."""
    _npm()
    base, mail, log = folder / "haraka", folder / "haraka" / "kept", folder / "haraka.log"
    shutil.rmtree(base, ignore_errors=True)
    for part in (base / "config", base / "plugins", mail):
        part.mkdir(parents=True)
    for name, text in {
        "me": "mx.haraka.test\n", "host_list": "haraka.test\n", "plugins": "tls\nrcpt_to.in_host_list\nkeep\n",
        "smtp.ini": f"listen={address}:{port}\nnodes=0\n[headers]\nadd_received=true\n", "loglevel": "WARN\n",
        "tls_key.pem": tls.read_text("ascii"), "tls_cert.pem": tls.read_text("ascii"),
    }.items():  # fmt: skip
        (base / "config" / name).write_text(text, "ascii")
    shutil.copy(HARAKA / "node_modules" / "Haraka" / "config" / "connection.ini", base / "config")
    (base / "plugins" / "keep.js").write_text(KEEP_JS, "ascii")
    node = shutil.which("node") or "node"
    script = HARAKA / "node_modules" / "Haraka" / "bin" / "haraka"
    process = child.spawn([node, str(script), "-c", str(base)], log, env={**os.environ, "KEEP": str(mail)})
    return Server("haraka", address, [process], mail, b"ESMTPS", log)


def _npm() -> None:
    if (HARAKA / "node_modules" / "Haraka").exists():
        return
    if shutil.which("npm") is None:
        raise Unavailable("Haraka needs Node.js with npm")
    HARAKA.mkdir(parents=True, exist_ok=True)
    command = [
        "npm",
        "install",
        "--no-audit",
        "--no-fund",
        "--omit=optional",
        "--ignore-scripts",
        "--prefix",
        str(HARAKA),
    ]
    try:
        done = subprocess.run(
            [*command, f"Haraka@{HARAKA_VERSION}"], capture_output=True, text=True, timeout=NPM_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"npm brings no Haraka within {NPM_TIMEOUT_S:g} s") from None
    if done.returncode:
        raise Unavailable(f"npm brings no Haraka: {done.stderr.strip()[-300:]}")


SERVERS: dict[str, Starter] = {"postfix": postfix, "exim": exim, "opensmtpd": opensmtpd, "haraka": haraka}


def can_tls(server: Server, port: int) -> bool:
    """Whether a handshake of Python's ssl succeeds."""
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    try:
        with smtplib.SMTP(server.address, port, timeout=5) as connection:
            connection.starttls(context=anybody)
            return True
    except (OSError, smtplib.SMTPException):
        return False


def wait_ready(server: Server, port: int) -> None:
    """Return when it greets. Raises Unavailable with the end of its log."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.processes[0].poll() is None:
        try:
            with socket.create_connection((server.address, port), 1.0) as connection:
                connection.settimeout(3.0)
                if connection.recv(100).startswith(b"220"):
                    connection.sendall(b"QUIT\r\n")
                    return
        except OSError:
            pass  # not yet
        time.sleep(0.1)
    server.stop()
    raise Unavailable(f"{server.name} does not start: {child.tail(server.log, 5)}")


def certificate(path: Path) -> Path:
    """A self-signed certificate with its key: RSA, since OpenSMTPD's key process fails with an elliptic curve under OpenSSL 3."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "check-delivery")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(key.private_bytes(*form) + made.public_bytes(serialization.Encoding.PEM))
    return path
