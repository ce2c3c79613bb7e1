"""The demo's tenants: the file that `postroad tenants apply` reads, with DKIM keys made now, and their DNS records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from avro.records import DkimAlgorithm
from loadtest.mxfarm.receipts import TXT
from postroad.dkim import generate

BOOKS, WORKS, LETTER = "harbour-books", "stadtwerk", "lantern"
SENDER = {BOOKS: "orders@harbourbooks.example", WORKS: "dienst@stadtwerk-köln.example", LETTER: "news@lantern.example"}
QUOTA_PER_SECOND = 25.0
TENANTS: list[dict[str, Any]] = [
    {"tenant": BOOKS, "name": "Harbour Books", "domains": [{"domain": "harbourbooks.example"}]},
    {"tenant": WORKS, "name": "Stadtwerk Köln",
     "domains": [{"domain": "stadtwerk-köln.example", "return_path": "bounce.stadtwerk-köln.example"}]},
    {"tenant": LETTER, "name": "The Lantern, a newsletter", "domains": [{"domain": "lantern.example"}],
     "quota_per_second": QUOTA_PER_SECOND},
]  # fmt: skip
KEYS: dict[str, DkimAlgorithm] = {"r1": "rsa", "e1": "ed25519"}  # by selector


def write(folder: Path, zone: Path) -> Path:
    """Write FOLDER/tenants.yaml with its key files, and the public keys where the farm in `zone` reads them."""
    records: dict[str, str] = {}
    tenants = []
    for tenant in TENANTS:
        domains = [{**domain, "dkim": _keys(folder, domain["domain"], records)} for domain in tenant["domains"]]
        tenants.append({**tenant, "domains": domains})
    draft = zone / f"{TXT}.new"
    draft.write_text(json.dumps(records), "utf-8")
    draft.replace(zone / TXT)
    path = folder / "tenants.yaml"
    path.write_text(yaml.safe_dump(tenants, allow_unicode=True, sort_keys=False), "utf-8")
    return path


def _keys(folder: Path, domain: str, records: dict[str, str]) -> list[dict[str, str]]:
    keys = []
    for selector, algorithm in KEYS.items():
        private, records[f"{selector}._domainkey.{domain}"] = generate(algorithm)
        file = folder / f"{domain}.{selector}.pem"
        file.touch(0o600)
        file.write_text(private, "ascii")
        keys.append({"selector": selector, "algorithm": algorithm, "private_key_file": file.name})
    return keys
