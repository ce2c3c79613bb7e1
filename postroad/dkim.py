"""DKIM signatures (RFC 6376): rsa-sha256 (RFC 8301: no sha1, keys from 2048 bit here) and ed25519-sha256 (RFC 8463).

OpenSSL makes the signatures, which dkimpy's own Python takes 9 ms for; the header's canonical form is ours, dkimpy's for `verify`.
"""

import base64
import binascii
import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import dkim
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from dkim.canonicalization import (
    CanonicalizationPolicy,
    compress_whitespace,
    correct_empty_body,
    strip_trailing_lines,
)
from dkim.util import InvalidTagValueList, parse_tag_value

from avro.records import DkimAlgorithm

RSA_BITS = 2048  # RFC 8301 3.2: 1024 is the least; 4096 does not fit one TXT string and few verifiers need it
LINE = 74  # characters of a folded line, its first blank and tag name not counted

# RFC 6376 5.4.1: what a reader sees or a client acts on; trace fields and what relays rewrite stay out. From is named
# once more than it occurs (8.15), so that no second one can be added above it.
SIGNED = frozenset(
    b"from sender reply-to to cc subject date message-id in-reply-to references mime-version content-type "
    b"content-transfer-encoding list-id list-help list-unsubscribe list-unsubscribe-post list-subscribe list-post "
    b"list-owner list-archive feedback-id x-postroad-id".split()
)
_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*")
_FIELD = re.compile(rb"([!-9;-~]+):")
_FOLD, _BLANKS = re.compile(rb"\r\n(?=[ \t])"), re.compile(rb"[ \t]+")


class DkimError(ValueError):
    """A message that cannot be signed or a key that cannot be used; says which and why."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key ready to sign, published under `selector`."""

    selector: str
    algorithm: DkimAlgorithm
    key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

    @staticmethod
    def from_pem(selector: str, algorithm: DkimAlgorithm, pem: str) -> "SigningKey":
        """Parse a PEM private key; remembered, since parsing checks an RSA key for milliseconds. Raises DkimError."""
        return _parse_key(selector, algorithm, pem)

    def sign(self, data: bytes) -> bytes:
        """The signature over the canonical header."""
        if isinstance(self.key, rsa.RSAPrivateKey):
            return self.key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        return self.key.sign(hashlib.sha256(data).digest())  # RFC 8463 3: PureEdDSA over the hash


@lru_cache(maxsize=4096)
def _parse_key(selector: str, algorithm: DkimAlgorithm, pem: str) -> SigningKey:
    try:
        key = serialization.load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise DkimError(f"DKIM key {selector}: not an unencrypted PEM private key ({error})") from None
    if algorithm == "rsa" and isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < 1024:
            raise DkimError(f"DKIM key {selector}: {key.key_size} bit; receivers ignore RSA keys below 1024 (RFC 8301)")
        return SigningKey(selector, algorithm, key)
    if algorithm == "ed25519" and isinstance(key, ed25519.Ed25519PrivateKey):
        return SigningKey(selector, algorithm, key)
    raise DkimError(f"DKIM key {selector}: the PEM does not hold an {algorithm} key")


def generate(algorithm: DkimAlgorithm) -> tuple[str, str]:
    """A new key: (private key as PEM, text of the TXT record at selector._domainkey.domain)."""
    key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
    if algorithm == "rsa":
        key = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    else:
        key = ed25519.Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return pem, _record(key)


def published(algorithm: DkimAlgorithm, pem: str) -> str:
    """The TXT record of a private key. Raises DkimError."""
    return _record(_parse_key("", algorithm, pem).key)


def _record(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> str:
    if isinstance(key, rsa.RSAPrivateKey):
        algorithm, form = "rsa", (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    else:  # RFC 8463 4: the bare 32 bytes
        algorithm, form = "ed25519", (serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    public = base64.b64encode(key.public_key().public_bytes(*form)).decode()
    return f"v=DKIM1; k={algorithm}; p={public}"


def relaxed_body(body: bytes) -> bytes:
    """A CRLF body in relaxed form (RFC 6376 3.4.4), as dkimpy has it but in linear time and fast for plain text."""
    if b"\t" in body or b"  " in body:
        body = compress_whitespace(body)
    return bytes(correct_empty_body(strip_trailing_lines(body.replace(b" \r\n", b"\r\n"))))


def body_hash(message: bytes) -> bytes:
    """The bh= value of a message's body."""
    _, _, body = message.partition(b"\r\n\r\n")
    return base64.b64encode(hashlib.sha256(relaxed_body(body)).digest())


class BodyHashes:
    """Body hashes of the latest contents by content hash: computed once per content, not once per recipient."""

    def __init__(self, size: int = 10_000) -> None:
        self._size = size
        self._known: OrderedDict[str, bytes] = OrderedDict()

    def get(self, content_hash: str, content: bytes) -> bytes:
        """The bh= value of the content that has this hash."""
        known = self._known.get(content_hash)
        if known is None:
            known = self._known[content_hash] = body_hash(content)
            if len(self._known) > self._size:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(content_hash)
        return known


def sign(
    message: bytes,
    domain: str,
    keys: Sequence[SigningKey],
    *,
    now_ms: int | None = None,
    bh: bytes | None = None,
) -> bytes:
    """One DKIM-Signature header field per key, CRLF at each end, to put above the message.

    `message` has CRLF line ends; `domain` is an A-label name; `now_ms` becomes t=; `bh` is the message's `body_hash`
    where known. No l= (RFC 6376 8.2: text could be added below it) and no x= (3.5: no defence against replay, and mail that
    waited for days would arrive with an invalid signature). Raises DkimError for a message without From, or whose header
    `canonical_fields` refuses, and for a name that does not fit a tag.
    """
    if not keys:
        return b""
    for name in (domain, *(key.selector for key in keys)):
        if not _NAME.fullmatch(name):
            raise DkimError(f"{name[:100]!r} is no domain name or selector to sign with")
    head, _, _ = message.partition(b"\r\n\r\n")
    # Bottom up, as verifiers pick repeated fields (RFC 6376 5.4.2)
    fields = [field for field in canonical_fields(head) if field[0] in SIGNED][::-1]
    names = tuple(name for name, _ in fields)
    if b"from" not in names:
        raise DkimError("a message without From cannot be signed (RFC 6376 5.4)")
    signed = b"".join(line for _, line in fields)
    bh = bh or body_hash(message)
    stamp = b"" if now_ms is None else b" t=%d;" % (now_ms // 1000)
    lines = []
    for key in keys:
        tags = b"v=1; a=%s-sha256; c=relaxed/relaxed; d=%s;\r\n s=%s;%s\r\n %s;\r\n bh=%s;\r\n b=" % (
            key.algorithm.encode(),
            domain.encode(),
            key.selector.encode(),
            stamp,
            _folded_names(names),
            bh,
        )
        canonical = b"dkim-signature:" + tags.replace(b"\r\n", b"")  # its blanks are single ones
        signature = base64.b64encode(key.sign(signed + canonical))
        folded = b"\r\n ".join(signature[at : at + LINE] for at in range(0, len(signature), LINE))
        lines.append(b"DKIM-Signature: " + tags + folded + b"\r\n")
    return b"".join(lines)


def canonical_fields(head: bytes) -> list[tuple[bytes, bytes]]:
    """Every field of a header without its last line end: its name in lower case, and its line in relaxed form (RFC 6376 3.4.2).

    What dkimpy's `rfc822_parse` and `Relaxed` give, at a quarter of their time. Raises DkimError where a line is no field or has
    a bare CR or LF (relays mend those, each in its way).
    """
    ends = head.count(b"\r\n")
    if head.count(b"\n") != ends or head.count(b"\r") != ends:
        raise DkimError("a header with a bare CR or LF is not signed")
    if head[:1] in (b" ", b"\t"):
        raise DkimError("header cannot be parsed, so not signed: it begins with a folded line")
    if head.startswith(b"\r\n"):
        return []
    fields = []
    for line in _BLANKS.sub(b" ", _FOLD.sub(b"", head)).split(b"\r\n"):
        if found := _FIELD.match(line):
            name = found[1].lower()
            fields.append((name, name + b":" + line[found.end() :].strip() + b"\r\n"))
        elif line and not line.startswith(b"From "):  # of a mailbox file
            raise DkimError(f"header cannot be parsed, so not signed: {line[:100]!r} is no field")
    return fields


@lru_cache(maxsize=1024)
def _folded_names(names: tuple[bytes, ...]) -> bytes:
    """The h= tag in lines of at most LINE characters; it may be folded at its colons (RFC 6376 3.5). From once more."""
    lines, line = [], b"h=" + names[0]
    for name in (*names[1:], b"from"):
        if len(line) + 2 + len(name) > LINE:
            lines.append(line + b":")
            line = name
        else:
            line += b":" + name
    return b"\r\n ".join([*lines, line])


def verify(message: bytes, dns_txt: Callable[[str], bytes | None]) -> list[bool]:
    """Whether each DKIM-Signature of a message holds, topmost first; `dns_txt` gives the TXT record of a name.

    Checks sha256 signatures by RSA and Ed25519; time stamps and expiry are not looked at.
    """
    try:
        headers, body = dkim.rfc822_parse(message)
    except (dkim.MessageFormatError, IndexError):
        return []
    return [_holds(field, headers, body, dns_txt) for field in headers if field[0].lower() == b"dkim-signature"]


def _holds(
    field: Sequence[bytes], headers: list[list[bytes]], body: bytes, dns_txt: Callable[[str], bytes | None]
) -> bool:
    try:
        tags = parse_tag_value(field[1])
        policy = CanonicalizationPolicy.from_c_value(tags.get(b"c", b"simple/simple"))
        record = dns_txt(f"{tags[b's'].decode()}._domainkey.{tags[b'd'].decode()}")
        if record is None or tags.get(b"v") != b"1":
            return False
        canonical = policy.canonicalize_body(body)
        if b"l" in tags:
            canonical = canonical[: int(tags[b"l"])]
        if hashlib.sha256(canonical).digest() != _unfolded(tags[b"bh"]):
            return False
        names = [name.strip().lower() for name in tags[b"h"].split(b":")]
        digest = hashlib.sha256()
        dkim.hash_headers(digest, policy, policy.canonicalize_headers(headers), names, field, tags)
        published = parse_tag_value(record)
        public = _unfolded(published[b"p"])
        if tags[b"a"] == b"ed25519-sha256" and published.get(b"k") == b"ed25519":
            ed25519.Ed25519PublicKey.from_public_bytes(public).verify(_unfolded(tags[b"b"]), digest.digest())
            return b"from" in names
        if tags[b"a"] == b"rsa-sha256" and published.get(b"k", b"rsa") == b"rsa":
            key = serialization.load_der_public_key(public)
            if isinstance(key, rsa.RSAPublicKey):
                known = Prehashed(hashes.SHA256())
                key.verify(_unfolded(tags[b"b"]), digest.digest(), padding.PKCS1v15(), known)
                return b"from" in names
    except (KeyError, ValueError, InvalidSignature, InvalidTagValueList, dkim.DKIMException, binascii.Error):
        return False
    return False


def _unfolded(value: bytes) -> bytes:
    return base64.b64decode(re.sub(rb"\s+", b"", value))
