"""Verification of received DKIM signatures by dkimpy, RSA and Ed25519 by OpenSSL.

RFC 6376, RFC 8463 (Ed25519), RFC 8616 (IDN domains). Keys come from a mapping, nothing is asked of the DNS.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass

import dkim
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519

from loadtest.mxfarm.zone import absolute


@dataclass(frozen=True, slots=True)
class DkimResult:
    """One DKIM signature: its d=, s= and a= tags ("" where unreadable), whether it is valid, and why not."""

    domain: str
    selector: str
    algorithm: str
    valid: bool
    error: str


class Verifier:
    """Verifies messages with the keys of `txt`, {name: TXT record}; names in any spelling DNS takes for equal."""

    def __init__(self, txt: Mapping[str, str]) -> None:
        self._txt = {absolute(name.lower()): text.encode() for name, text in txt.items()}

    def verify(self, raw: bytes) -> list[DkimResult]:
        """The results of all signatures of one message, topmost first; none where it has none or is no message."""
        try:
            message = _Message(raw)
        except (dkim.MessageFormatError, IndexError):  # IndexError: dkimpy, where the first line is a continuation
            return []
        count = sum(name.lower() == b"dkim-signature" for name, _ in message.headers)
        return [self._verify_one(message, index) for index in range(count)]

    def _verify_one(self, message: "_Message", index: int) -> DkimResult:
        message.signature_fields = {}
        try:
            valid = message.verify(index, dnsfunc=self._look_up)
            error = "" if valid else "the signature does not match"
        except (dkim.DKIMException, binascii.Error) as problem:
            valid, error = False, str(problem)
        tags = message.signature_fields
        domain, selector, algorithm = (tags.get(tag, b"").decode(errors="replace") for tag in (b"d", b"s", b"a"))
        return DkimResult(domain, selector, algorithm, valid, error)

    def _look_up(self, name: bytes, timeout: int = 0) -> bytes:
        try:
            return self._txt[absolute(name.decode().lower())]
        except (KeyError, UnicodeError) as problem:
            raise dkim.ValidationError(f"no key at {name.decode(errors='replace')}") from problem


class _Message(dkim.DKIM):  # type: ignore[misc]  # dkimpy ships no types
    """dkimpy's verification; Ed25519 by `cryptography`, since dkimpy knows only PyNaCl."""

    def verify_sig(self, sig, include_headers, sig_header, dnsfunc):  # type: ignore[no-untyped-def]  # dkimpy's own
        if sig[b"a"] != b"ed25519-sha256":
            return super().verify_sig(sig, include_headers, sig_header, dnsfunc)
        record = dkim.parse_tag_value(dnsfunc(sig[b"s"] + b"._domainkey." + sig[b"d"] + b"."))
        try:
            self.pk = _Ed25519(base64.b64decode(re.sub(rb"\s", b"", record[b"p"])))
        except (KeyError, ValueError) as problem:
            raise dkim.KeyFormatError(f"no Ed25519 key in the TXT record: {problem}") from problem
        self.keysize, self.ktag, self.seqtlsrpt = 256, b"ed25519", False
        self.verify_sig_process(sig, include_headers, sig_header, dnsfunc)
        return self.pk.matched


class _Ed25519:
    """A key as PyNaCl's, but the outcome is kept: dkimpy's handler for a mismatch names PyNaCl, which is not there."""

    def __init__(self, raw: bytes) -> None:
        self._key = ed25519.Ed25519PublicKey.from_public_bytes(raw)
        self.matched = False

    def verify(self, digest: bytes, signature: bytes) -> None:
        try:
            self._key.verify(signature, digest)
            self.matched = True
        except InvalidSignature:
            self.matched = False
