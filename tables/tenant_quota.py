"""ingest: how far each tenant has used its quotas. Key: tenant. Kept while the tenant sends; one entry a tenant."""

from __future__ import annotations

from postroad.intake import Use
from tables.values import packed
from topics.state import Table

TENANT_QUOTA: Table[Use] = Table(2, "tenant_quota", *packed(Use, ">dqq"))
