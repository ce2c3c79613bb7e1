-- Usage: what each tenant sent on each day (UTC).
-- Parameters: tenant, since, until (when it happened; whole hours).
-- Columns: day, tenant, accepted, delivered, bounced, attempts, bytes (of what was accepted, each recipient counted).
-- Example: run(warehouse, "tenant_usage", since="2026-01-01", until="2026-02-01")
SELECT
    toDate(hour) AS day,
    tenant,
    sumIf(messages, kind = 'accepted') AS accepted,
    sumIf(messages, kind = 'delivered') AS delivered,
    sumIf(messages, kind = 'bounced') AS bounced,
    sumIf(events, tried AND kind IN ('delivered', 'bounced', 'deferred')) AS attempts,
    sumIf(hours.bytes, kind = 'accepted') AS bytes
FROM hours FINAL
WHERE hour >= toStartOfHour({since:DateTime}) AND hour < {until:DateTime} AND ({tenant:String} = '' OR tenant = {tenant:String})
    AND kind IN ('accepted', 'delivered', 'bounced', 'deferred')
GROUP BY day, tenant
ORDER BY day, tenant
