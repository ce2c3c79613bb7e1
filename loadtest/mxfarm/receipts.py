"""What the farm took, on disk before the sender reads 250: the log that receivers write and its reader.

FOLDER/spool.bin holds the raw messages one after the other, FOLDER/receipts.jsonl one line per recipient with the place
in the spool. Both are written, without fsync, before the reply: they survive kill -9 of the farm, not a power cut.
"""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loadtest.mxfarm.signatures import DkimResult

INDEX = "receipts.jsonl"
SPOOL = "spool.bin"
TXT = "txt.json"

_MESSAGE_ID = re.compile(rb"^message-id:[ \t]*(?:\r\n[ \t]+)?([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_to_json = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps makes a new encoder at each call


@dataclass(frozen=True, slots=True)
class Receipt:
    """One message to one recipient that a site took.

    time: ms UTC. answered: 250 was sent; without it the sender cannot know that the message was taken. message_id: the
    header's value, "" where there is none. offset, size: bytes in the spool. source, helo: the egress source as seen.
    """

    recipient: str
    site: str
    mail_from: str
    time: int
    message_id: str
    sha256: str
    offset: int
    size: int
    answered: bool
    tls: bool
    source: str
    helo: str


class ReceiptLog:
    """Appends to a folder's receipts; continues behind what an earlier farm left there."""

    def __init__(self, folder: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        self._spool = os.open(folder / SPOOL, flags, 0o644)
        self._index = os.open(folder / INDEX, flags, 0o644)
        self._spool_end = os.fstat(self._spool).st_size
        self._index_end = _end_of_last_line(self._index)
        os.ftruncate(self._index, self._index_end)  # kill -9 may have torn a line, which was not answered then

    def append(
        self,
        *,
        recipients: Sequence[str],
        site: str,
        mail_from: str,
        time: int,
        raw: bytes,
        answered: bool,
        tls: bool,
        source: str,
        helo: str,
    ) -> str:
        """Store one message; returns its place in the spool as a queue name. OSError (disk full) leaves no trace."""
        offset, size = self._spool_end, len(raw)
        header_end = raw.find(b"\r\n\r\n")
        found = _MESSAGE_ID.search(raw, 0, size if header_end < 0 else header_end)
        fields: dict[str, str | int | bool] = {
            "recipient": "",
            "site": site,
            "mail_from": mail_from,
            "time": time,
            "message_id": found[1].strip().decode(errors="replace") if found else "",
            "sha256": hashlib.sha256(raw).hexdigest(),
            "offset": offset,
            "size": size,
            "answered": answered,
            "tls": tls,
            "source": source,
            "helo": helo,
        }
        lines = []
        for recipient in recipients:
            fields["recipient"] = recipient
            lines.append(_to_json(fields) + "\n")
        index = "".join(lines).encode()
        try:
            _write(self._spool, raw)
            _write(self._index, index)
        except OSError:
            os.ftruncate(self._spool, self._spool_end)
            os.ftruncate(self._index, self._index_end)
            raise
        self._spool_end += size
        self._index_end += len(index)
        return f"{offset:x}"

    def close(self) -> None:
        os.close(self._spool)
        os.close(self._index)


class Receipts:
    """Reads the receipts of a folder, also while the farm writes them; every call sees what is there by then.

    Counts and `answered()` leave out messages that were taken without a reply; iteration gives all.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._read = 0
        self._receipts: list[Receipt] = []

    def __iter__(self) -> Iterator[Receipt]:
        return iter(self._refresh())

    def __len__(self) -> int:
        return len(self._refresh())

    def answered(self) -> list[Receipt]:
        return [receipt for receipt in self._refresh() if receipt.answered]

    def count(self) -> Counter[str]:
        """Receipts by recipient, as spelled in RCPT TO."""
        return Counter(receipt.recipient for receipt in self.answered())

    def by_site(self) -> Counter[str]:
        """Receipts by the site's name in sites.py."""
        return Counter(receipt.site for receipt in self.answered())

    def raw(self, receipt: Receipt) -> bytes:
        """The message as it was on the wire, dots unstuffed. ValueError where the spool does not match its sha256."""
        with open(self.folder / SPOOL, "rb") as spool:
            spool.seek(receipt.offset)
            raw = spool.read(receipt.size)
        if hashlib.sha256(raw).hexdigest() != receipt.sha256:
            raise ValueError(f"spool of {self.folder} is damaged at byte {receipt.offset}")
        return raw

    def verify_signatures(self, txt: Mapping[str, str] | None = None) -> list[tuple[Receipt, list["DkimResult"]]]:
        """Each receipt with the result of each of its DKIM signatures, topmost first.

        txt: key records, {name: text}; without it those of FOLDER/txt.json.
        """
        from loadtest.mxfarm.signatures import Verifier  # dkimpy takes 0.1 s to import, which the farm need not pay

        verifier = Verifier(json.loads((self.folder / TXT).read_text()) if txt is None else txt)
        results: dict[tuple[int, int], list[DkimResult]] = {}
        pairs = []
        for receipt in self._refresh():
            place = receipt.offset, receipt.size  # one message may have several recipients
            if place not in results:
                results[place] = verifier.verify(self.raw(receipt))
            pairs.append((receipt, results[place]))
        return pairs

    def _refresh(self) -> list[Receipt]:
        try:
            with open(self.folder / INDEX, "rb") as index:
                index.seek(self._read)
                data = index.read()
        except FileNotFoundError:
            return self._receipts
        data = data[: data.rfind(b"\n") + 1]
        self._read += len(data)
        self._receipts += [Receipt(**json.loads(line)) for line in data.splitlines()]
        return self._receipts


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _end_of_last_line(file: int) -> int:
    end = os.fstat(file).st_size
    while end:
        start = max(0, end - 65_536)
        newline = os.pread(file, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
