"""When connections and MAIL commands reached the farm: what caps of sites are checked against.

FOLDER/connections.jsonl has a line per thing that happened: ["open", number, time, site, source address, host],
["mail", number, time], ["end", number, time]. Times are seconds of the monotonic clock, at which the kernel took the packet:
a farm that is busy reads later, and in one go, what had come in good order. A connection ends for its site with QUIT or FIN.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CONNECTIONS = "connections.jsonl"
# linux/tcp.h, struct tcp_info: tcpi_last_data_recv and tcpi_last_ack_recv, ms ago, counted in jiffies
_LAST_DATA, _LAST_ACK, _INFO_BYTES = 52, 56, 60


@dataclass(slots=True)
class Connection:
    """One connection as the farm saw it; seconds, monotonic. `ended`: None while it is open."""

    site: str
    source: str
    host: str
    opened: float
    mails: list[float] = field(default_factory=list)
    ended: float | None = None


class ConnectionLog:
    """Appends to a folder's connections. Every method takes the socket, whose kernel knows when its last packet came."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / CONNECTIONS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._number = time.time_ns()  # beyond those of an earlier farm in this folder

    def opened(self, sock: socket.socket | None, site: str, source: str, host: str) -> int:
        """A connection was made; returns its number."""
        self._number += 1
        self._write("open", self._number, _arrived(sock, _LAST_ACK), site, source, host)
        return self._number

    def mail(self, sock: socket.socket | None, number: int) -> None:
        """MAIL came."""
        self._write("mail", number, _arrived(sock, _LAST_DATA))

    def ended(self, sock: socket.socket | None, number: int) -> None:
        """QUIT or FIN came, or we have closed it."""
        self._write("end", number, _arrived(sock, _LAST_ACK))

    def close(self) -> None:
        os.close(self._file)

    def _write(self, *fields: Any) -> None:
        os.write(self._file, (json.dumps(fields) + "\n").encode())


def read(folder: Path) -> list[Connection]:
    """All connections of a folder so far, in the order in which they were opened."""
    connections: dict[int, Connection] = {}
    for kind, number, at, *rest in _lines(folder / CONNECTIONS):
        if kind == "open":
            site, source, host = rest
            connections[number] = Connection(site, source, host, at)
        elif (connection := connections.get(number)) is None:
            raise ValueError(f"{folder / CONNECTIONS}: {kind} of a connection that was never opened, {number}")
        elif kind == "mail":
            connection.mails.append(at)
        else:
            connection.ended = at
    return sorted(connections.values(), key=lambda connection: connection.opened)


def _lines(path: Path) -> Iterator[list[Any]]:
    data = path.read_bytes() if path.exists() else b""
    for line in data[: data.rfind(b"\n") + 1].splitlines():
        yield json.loads(line)


def _arrived(sock: socket.socket | None, place: int) -> float:
    """When the kernel took the last packet (with data, or any) of a connection; now, where it does not say."""
    now = time.monotonic()
    if sock is None:
        return now
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    except (OSError, AttributeError):  # closed meanwhile; TCP_INFO is Linux's
        return now
    return now if len(info) < _INFO_BYTES else now - struct.unpack_from("=I", info, place)[0] / 1000
