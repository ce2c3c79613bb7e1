"""The tenants' suppression lists as they are in force, to be asked and listed: mail.suppressed in a SQLite file without a name.

suppress alone decides (agents/suppress.py); this is what it has told, a moment later.
"""

from __future__ import annotations

import secrets
import sqlite3
from pathlib import Path
from typing import Any

import msgspec

from avro.records import SuppressionEntry


class Suppressed:
    """`hear` is called with every record of the topic, in its order."""

    def __init__(self, folder: Path | None = None) -> None:
        path = ":memory:"
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            path = str(folder / f"suppressed-{secrets.token_hex(8)}.sqlite")
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute(
            "CREATE TABLE listed (tenant TEXT, recipient TEXT, reason TEXT, entry BLOB, PRIMARY KEY (tenant, recipient)) WITHOUT ROWID"
        )
        if folder is not None:
            Path(path).unlink()  # gone with the process
        self.ready = False

    def hear(self, record: Any, entry: SuppressionEntry | None) -> None:
        """One entry, or the end of one."""
        tenant, _, recipient = (record.key or b"").decode("utf-8", "replace").partition("\0")
        if entry is None:
            self._db.execute("DELETE FROM listed WHERE tenant = ? AND recipient = ?", (tenant, recipient))
        else:
            row = tenant, recipient, entry["reason"], msgspec.json.encode(entry)
            self._db.execute("INSERT OR REPLACE INTO listed VALUES (?, ?, ?, ?)", row)

    def get(self, tenant: str, recipient: str, now: int) -> SuppressionEntry | None:
        """The entry of an address (as postroad.addresses.key has it), where it is in force at `now` (ms)."""
        found = self._db.execute(
            "SELECT entry FROM listed WHERE tenant = ? AND recipient = ?", (tenant, recipient)
        ).fetchone()
        entry: SuppressionEntry | None = msgspec.json.decode(found[0]) if found else None
        return entry if entry is not None and _holds(entry, now) else None

    def page(self, tenant: str, after: str, reason: str, limit: int, now: int) -> list[SuppressionEntry]:
        """The next entries in the order of their addresses."""
        found: list[SuppressionEntry] = []
        while len(found) < limit:
            rows = self._db.execute(
                "SELECT recipient, entry FROM listed WHERE tenant = ? AND recipient > ? AND (? = '' OR reason = ?) ORDER BY recipient LIMIT ?",
                (tenant, after, reason, reason, limit),
            ).fetchall()
            found += [entry for _, raw in rows if _holds(entry := msgspec.json.decode(raw), now)]
            if len(rows) < limit:
                break
            after = rows[-1][0]  # those that are over are not the end
        return found[:limit]


def _holds(entry: SuppressionEntry, now: int) -> bool:
    until = entry.get("expires_at")
    return until is None or until > now
