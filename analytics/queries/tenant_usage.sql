-- Usage: what each tenant sent on each day (UTC).
-- Parameters: tenant, since, until (when it happened).
-- Columns: day, tenant, accepted, delivered, bounced, attempts, bytes (of what was accepted, each recipient counted).
-- Example: run(warehouse, "tenant_usage", since="2026-01-01", until="2026-02-01")
SELECT
    toDate(first_at) AS day,
    tenant,
    uniqExactIf(message_id, kind = 'accepted') AS accepted,
    uniqExactIf(message_id, kind = 'delivered') AS delivered,
    uniqExactIf(message_id, kind = 'bounced') AS bounced,
    uniqExactIf((message_id, round, attempt), attempt > 0 AND kind IN ('delivered', 'bounced', 'deferred')) AS attempts,
    sum(bytes) AS bytes
FROM
(
    SELECT tenant, message_id, kind, round, attempt, min(ts) AS first_at, if(kind = 'accepted', max(size), 0) AS bytes
    FROM events
    WHERE ts >= {since:DateTime} AND ts < {until:DateTime} AND ({tenant:String} = '' OR tenant = {tenant:String})
        AND kind IN ('accepted', 'delivered', 'bounced', 'deferred')
    GROUP BY tenant, message_id, kind, round, attempt
)
GROUP BY day, tenant
ORDER BY day, tenant
