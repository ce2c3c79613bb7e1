"""Mail of the operator to its tenants, sent by the road like any other."""

from __future__ import annotations

from avro.records import Submission, Tenant, Webhook
from postroad.settings import Settings

DISABLED = """The webhook {url} ({id}) is disabled: {why}.

What waited for it is kept for 30 days. When it answers again:

    postroad webhooks update {id} --enable      or PATCH /v1/webhooks/{id} with {{"enabled": true}}
    postroad webhooks redrive {id}              or POST /v1/webhooks/{id}/redrive
"""


def webhook_disabled(settings: Settings, tenant: Tenant | None, webhook: Webhook, why: str) -> Submission | None:
    """To the contact of the endpoint's tenant; None where there is none, or nobody to write as. Its id is the same however often it is
    made of one disabling, so ingest takes it once."""
    contact = tenant.get("contact") if tenant is not None else ""
    if not contact or not settings.notices_tenant:
        return None
    text = DISABLED.format(url=webhook["url"], id=webhook["webhook_id"], why=why)
    return {
        "tenant": settings.notices_tenant, "submission_id": f"webhook-disabled:{webhook['webhook_id']}:{webhook['updated_at']}",
        "sender": {"address": settings.notices_from}, "recipients": [{"address": contact}], "subject": "A webhook of yours is disabled",
        "text": text,
    }  # fmt: skip
