"""The farm inside an event loop: name server, receivers, and the files that change them while it runs.

FOLDER/control.json is read again when it changes: `{"sites": {"accept": {"mode": "refuse"}}, "dns": {"answer": false}}`.
It names every deviation from sites.py, by the fields of Behaviour; what it does not name is as in sites.py. What was made
of it stands in FOLDER/control.state.json. FOLDER/txt.json holds TXT records, `{name: text}`, read again likewise.
"""

import asyncio
import dataclasses
import datetime
import ipaddress
import json
import os
import ssl
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from loadtest.mxfarm.connections import ConnectionLog
from loadtest.mxfarm.receipts import TXT, ReceiptLog
from loadtest.mxfarm.receiver import Receiver, open_receivers
from loadtest.mxfarm.sites import SITES, Behaviour, Site
from loadtest.mxfarm.zone import NameServer, ZoneData

READY = "farm.json"
CONTROL = "control.json"
CONTROL_STATE = "control.state.json"
LOOK_EVERY = 0.1  # seconds between looks at the files' times
DNS_ADDRESS = "127.0.0.1"


class FarmServer:
    """All servers of the farm; `async with FarmServer(folder) as farm`. OSError where a given port is taken."""

    def __init__(
        self,
        folder: Path | str,
        *,
        dns_port: int = 0,
        smtp_port: int = 0,
        txt: Path | str | None = None,
        sites: Iterable[Site] = SITES,
    ) -> None:
        self.folder = Path(folder)
        self.smtp_port = smtp_port
        self.dns_port = dns_port
        self._sites = {site.name: site for site in sites}
        self._txt = _Watched(Path(txt) if txt else self.folder / TXT)
        self._control = _Watched(self.folder / CONTROL)

    @property
    def dns(self) -> str:
        return f"{DNS_ADDRESS}:{self.dns_port}"

    async def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / CONTROL_STATE).unlink(missing_ok=True)
        self._log, self._connections = ReceiptLog(self.folder), ConnectionLog(self.folder)
        tls = _tls_context(self.folder, [host.name for site in self._sites.values() for host in site.hosts])
        self._receivers = [
            Receiver(site, self.smtp_port, self._log, self._connections, tls) for site in self._sites.values()
        ]
        self._names = NameServer(ZoneData(self._sites.values(), {}))
        self._load_txt()
        self.smtp_port = await open_receivers(self._receivers, self.smtp_port)
        try:
            self.dns_port = await self._names.open(DNS_ADDRESS, self.dns_port)
        except OSError:
            for receiver in self._receivers:
                receiver.close()
            raise
        await self._load_control()
        self._watcher = asyncio.create_task(self._watch())
        _replace(self.folder / READY, self._description())

    async def stop(self) -> None:
        self._watcher.cancel()
        for receiver in self._receivers:
            receiver.close()
        await self._names.close()
        await asyncio.sleep(0)  # aborted sessions learn of it
        self._log.close()
        self._connections.close()
        (self.folder / READY).unlink(missing_ok=True)

    async def __aenter__(self) -> "FarmServer":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _description(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "dns": self.dns,
            "smtp_port": self.smtp_port,
            "sites": {
                site.name: {"hosts": {host.name: host.address for host in site.hosts}, "domains": list(site.domains)}
                for site in self._sites.values()
            },
        }

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            self._load_txt()
            await self._load_control()

    def _load_txt(self) -> None:
        if not self._txt.changed():
            return
        try:
            self._names.zone = ZoneData(self._sites.values(), self._txt.read())
        except Exception as error:  # whatever is wrong in the file, the farm keeps the records it has
            print(f"{self._txt.path}: {error!r}; the records stay as they were", file=sys.stderr, flush=True)

    async def _load_control(self) -> None:
        if not self._control.changed():
            return
        problem = None
        try:
            await self._apply(self._control.read())
        except Exception as error:  # whatever is wrong in the file, the farm goes on as it was and says why
            problem = str(error) or repr(error)
            print(f"{self._control.path}: {problem}; nothing was changed", file=sys.stderr, flush=True)
        _replace(self.folder / CONTROL_STATE, {"stamp": self._control.stamp, "error": problem})

    async def _apply(self, control: dict[str, Any]) -> None:
        if unknown := control.keys() - {"sites", "dns"}:
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}; known are sites, dns")
        dns, changes = control.get("dns", {}), control.get("sites", {})
        if unknown := changes.keys() - self._sites.keys():
            raise ValueError(f"no such site: {', '.join(sorted(unknown))}; there are {', '.join(self._sites)}")
        if dns.keys() - {"answer"} or not isinstance(dns.get("answer", True), bool):
            raise ValueError('dns takes {"answer": true or false}')
        wanted: dict[str, Behaviour] = {  # all are checked before one is changed
            name: dataclasses.replace(site.behaviour, **changes.get(name, {})) for name, site in self._sites.items()
        }
        self._names.answering = dns.get("answer", True)
        for receiver in self._receivers:
            await receiver.behave(wanted[receiver.site.name])


class _Watched:
    """A JSON file that may change, appear and go at any time; one that is not there is `{}`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stamp: list[int] = []

    def changed(self) -> bool:
        before, self.stamp = self.stamp, stamp_of(self.path)
        return before != self.stamp

    def read(self) -> dict[str, Any]:
        try:
            content = json.loads(self.path.read_text())
        except FileNotFoundError:
            return {}
        if not isinstance(content, dict):
            raise ValueError("must be a JSON object")
        return content


def stamp_of(path: Path) -> list[int]:
    """What tells one version of a file from the next; empty where there is none."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return []
    return [stat.st_mtime_ns, stat.st_ino, stat.st_size]


def _replace(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file so that no reader sees half of it."""
    draft = path.with_name(path.name + ".new")
    draft.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n")
    draft.replace(path)


def _tls_context(folder: Path, names: list[str]) -> ssl.SSLContext:
    """A server context with a new self-signed certificate for these hosts; the files stay in the folder."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mxfarm")])
    now = datetime.datetime.now(datetime.UTC)
    alternatives = [*map(x509.DNSName, names), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "tls.pem"
    with open(os.open(pem, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        file.write(certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context
