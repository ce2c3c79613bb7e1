"""ingest: how far each tenant has used its quotas. Key: tenant. Kept while the tenant sends; one entry a tenant."""

from __future__ import annotations

import struct

from postroad.intake import Use
from topics.state import Table

_use = struct.Struct(">dqq")

TENANT_QUOTA: Table[Use] = Table(2, "tenant_quota", lambda use: _use.pack(*use), lambda raw: Use(*_use.unpack(raw)))
