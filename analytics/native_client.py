"""clickhouse-driver with inserts that are packed by native.py: a third of the CPU time, and columns may be arrays."""

from __future__ import annotations

from typing import Any

import clickhouse_driver
from clickhouse_driver import defines
from clickhouse_driver.block import BlockInfo, ColumnOrientedBlock
from clickhouse_driver.protocol import ClientPacketTypes
from clickhouse_driver.varint import write_varint
from clickhouse_driver.writer import write_binary_str

from analytics import native


class Client(clickhouse_driver.Client):  # type: ignore[misc]  # it has no types
    """`execute("INSERT INTO t (a, b) VALUES", [columns])`, columns by name; all else as it is there. No compression."""

    def send_data(self, sample_block: Any, data: Any, types_check: bool = False, columnar: bool = False) -> int:
        (columns,) = data
        connection = self.connection
        revision = connection.server_info.used_revision
        after_type = b"\0" if revision >= defines.DBMS_MIN_REVISION_WITH_CUSTOM_SERIALIZATION else b""
        packed = native.block(columns, dict(sample_block.columns_with_types), after_type)
        write_varint(ClientPacketTypes.DATA, connection.fout)
        write_binary_str("", connection.fout)
        BlockInfo().write(connection.fout)
        connection.fout.write(packed)
        connection.fout.flush()
        self.receive_profile_events()
        connection.send_data(ColumnOrientedBlock())  # the end
        self.receive_profile_events()
        return len(next(iter(columns.values())))
