"""Vectors: what others have published about DKIM, and every mail of the corpora signed and verified. Must: no failure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dkim
from dkim.canonicalization import Relaxed

from deploy.local import ROOT
from loadtest.mxfarm.signatures import Verifier
from postroad.dkim import DkimError, SigningKey, generate, relaxed_body, sign, verify

CORPORA = ROOT.parent / "shared" / "corpora"
# RFC 8463 appendix A
RFC8463 = {
    "brisbane._domainkey.football.example.com": "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    "test._domainkey.football.example.com": "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6"
    "NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9P"
    "zoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB",
}
SIGNED = {"rfc8463-example.msg": 2, "rfc6376.signed.rsa.msg": 1}  # signatures that hold, by those keys


def run(folder: Path, short: bool) -> dict[str, Any]:
    """The figure `vectors_failed`; prints what failed, and what could not be tried."""
    if not CORPORA.exists():
        print(f"  skipped: no corpora in {CORPORA}")
        return {"vectors_failed": None}
    checks = [check for part in (_canonical(), _published(), _signed()) for check in part]
    failed = [name for name, holds in checks if not holds()]
    for name in failed:
        print(f"  FAILED {name}")
    print(f"  {len(checks):,} vectors, {len(failed)} failed")
    return {"vectors_failed": len(failed), "vectors": len(checks)}


Check = tuple[str, Callable[[], bool]]


def _crlf(data: bytes) -> bytes:
    return re.sub(rb"\r\n|\r|\n", b"\r\n", data)


def _canonical() -> Iterator[Check]:
    """Relaxed forms of header and body as the vectors have them."""

    def holds(email: Path, expected: Path) -> bool:
        headers, body = dkim.rfc822_parse(re.sub(rb"\r?\n", b"\r\n", email.read_bytes()))
        canonical = b"".join(name + b":" + value for name, value in Relaxed.canonicalize_headers(headers))
        return bool(canonical + b"\r\n" + relaxed_body(body) == expected.read_bytes())

    for expected in sorted((CORPORA / "dkim" / "flanker").glob("relaxed.expected.*")):
        email = expected.with_name(f"email{expected.suffix}")
        yield f"canonical form of {email.name}", partial(holds, email, expected)


def _published() -> Iterator[Check]:
    """Signed messages of the RFCs."""

    def holds(path: Path, count: int) -> bool:
        records = {name: text.encode() for name, text in RFC8463.items()}
        return verify(_crlf(path.read_bytes()), records.get) == [True] * count

    for path in sorted((CORPORA / "dkim").glob("*/*")):
        if path.name in SIGNED:
            yield f"signatures of {path.name}", partial(holds, path, SIGNED[path.name])


def _signed() -> Iterator[Check]:
    """Every mail of the corpora with both of our signatures, verified by dkimpy (Ed25519 by OpenSSL). What we refuse to sign, as
    nothing that a road carries looks like it, is no vector."""
    keys, records = [], {}
    for selector, algorithm in (("r1", "rsa"), ("e1", "ed25519")):
        pem, records[f"{selector}._domainkey.example.com"] = generate(algorithm)  # type: ignore[arg-type]
        keys.append(SigningKey.from_pem(selector, algorithm, pem))  # type: ignore[arg-type]
    verifier, refused = Verifier(records), Counter[str]()

    def holds(lines: bytes, message: bytes) -> bool:
        results = [one for one in verifier.verify(lines + message) if one.domain == "example.com"]
        return len(results) >= 2 and all(one.valid for one in results[:2])

    for path in sorted(path for part in ("dkim", "mime") for path in (CORPORA / part).rglob("*") if path.is_file()):
        if (
            path.suffix in (".txt", ".dns", ".pub", ".jsonl") and "cpython" not in path.parts
        ) or "expected" in path.name:
            continue
        message = _crlf(path.read_bytes())
        try:
            lines = sign(message, "example.com", keys)
        except DkimError as error:
            refused[
                ": ".join(str(error).split(": ")[:2])
                if "Unexpected" not in str(error)
                else "no header that can be parsed"
            ] += 1
            continue
        yield f"signed {path.relative_to(CORPORA)}", partial(holds, lines, message)
    for reason, count in refused.most_common():
        print(f"  {count} files are not signed: {reason}")


def broken(result: dict[str, Any]) -> list[str]:
    """The musts that do not hold."""
    failed = result["vectors_failed"]
    return [f"{failed} vectors failed"] if failed else []
