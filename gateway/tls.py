"""The certificate of a door that speaks SMTP: the one of the settings, or one that it makes for itself. RFC 3207, 7435: hosts that send to
an MX encrypt where they can and check no name, unless its domain asks for that (MTA-STS, DANE); programs that submit mail check it."""

from __future__ import annotations

import datetime
import logging
import os
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

log = logging.getLogger(__name__)
DAYS = 3650


def context(
    certificate: Path | None, key: Path | None, folder: Path, host: str, door: str = "inbound"
) -> ssl.SSLContext:
    """For a server. `folder`: where a self-signed certificate for `host` is made and kept if there is no other; `door`: whose it is, as
    settings have it. Raises OSError, ssl.SSLError."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate is None:
        certificate = folder / f"{door}-tls.pem"
        if not certificate.exists():
            _make(certificate, host)
        log.warning("%s shows a self-signed certificate (%s): set %s_certificate", door, certificate, door)
    made.load_cert_chain(certificate, key)
    return made


def _make(path: Path, host: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    draft = path.with_name(path.name + f".{os.getpid()}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(private + certificate.public_bytes(serialization.Encoding.PEM))
    draft.replace(path)
