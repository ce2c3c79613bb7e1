"""DKIM over mail that nobody here wrote: each message of the corpora, signed by us, verifies by us and by dkimpy."""

import re
from pathlib import Path

import dkim as dkimpy
import pytest
from dkim.canonicalization import Relaxed

from loadtest.mxfarm.signatures import Verifier
from postroad.dkim import DkimError, SigningKey, generate, relaxed_body, sign, verify

CORPORA = Path(__file__).parents[3] / "shared" / "corpora"
pytestmark = pytest.mark.skipif(not CORPORA.exists(), reason="the corpora are not here")

RSA_PEM, RSA_TXT = generate("rsa")
ED_PEM, ED_TXT = generate("ed25519")
RECORDS = {"r1._domainkey.example.com": RSA_TXT, "e1._domainkey.example.com": ED_TXT}
KEYS = [SigningKey.from_pem("r1", "rsa", RSA_PEM), SigningKey.from_pem("e1", "ed25519", ED_PEM)]
NO_MAIL = (".pub", ".json", ".jsonl", ".dns", ".html", ".gitattributes", "LICENSE", "LICENSE.MIT", "README")
VERIFIER = Verifier(RECORDS)


def messages(folder: str) -> list[tuple[Path, bytes]]:
    """Every file that may be a mail, with the line ends of SMTP."""
    files = (
        path for path in sorted((CORPORA / folder).rglob("*")) if path.is_file() and not path.name.endswith(NO_MAIL)
    )
    return [(path, re.sub(rb"\r\n|\r|\n", b"\r\n", path.read_bytes())) for path in files if "expected" not in path.name]


@pytest.mark.parametrize(("folder", "at_least"), [("dkim", 35), ("mime", 175)])
def test_each_message_verifies_or_says_why_it_cannot_be_signed(folder: str, at_least: int) -> None:
    failed, refused, held = [], [], 0
    for path, message in messages(folder):
        try:
            signed = sign(message, "example.com", KEYS, now_ms=1_790_000_000_000) + message
        except DkimError as error:
            refused.append((path.name, str(error)))
            continue
        ours = verify(signed, lambda name: RECORDS.get(name, "").encode() or None)[:2]
        independent = [(result.selector, result.valid) for result in VERIFIER.verify(signed)[:2]]
        if ours != [True, True] or independent != [("r1", True), ("e1", True)]:
            failed.append((path.name, ours, independent))
        held += 1
    print(f"{folder}: {held} signed and verified, {len(refused)} refused: {refused}")
    assert not failed
    assert held >= at_least
    assert all("From" in why or "header" in why for _, why in refused)


def test_canonical_forms_of_flanker() -> None:
    numbers = sorted(path.name.rpartition(".")[2] for path in (CORPORA / "dkim" / "flanker").glob("relaxed.expected.*"))
    differ = []
    for number in numbers:
        message = re.sub(rb"\r?\n", b"\r\n", (CORPORA / "dkim" / "flanker" / f"email.{number}").read_bytes())
        headers, body = dkimpy.rfc822_parse(message)
        canonical = b"".join(name + b":" + value for name, value in Relaxed.canonicalize_headers(headers))
        wanted = (CORPORA / "dkim" / "flanker" / f"relaxed.expected.{number}").read_bytes()
        if canonical + b"\r\n" + relaxed_body(body) != wanted:
            differ.append(number)
    print(f"{len(numbers)} vectors")
    assert len(numbers) >= 21 and not differ
