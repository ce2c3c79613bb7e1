-- How suppression lists grow: entries added and removed on each day (UTC), by why.
-- Parameters: tenant, since, until (when they were).
-- Columns: day, tenant (empty: global entries), why (scope and reason, such as tenant:hard-bounce), added, removed.
-- Example: run(warehouse, "suppression_growth", tenant="shop", since="2026-01-01")
SELECT
    toDate(ts) AS day,
    tenant,
    rule AS why,
    uniqExactIf((recipient, evidence, ts, ts_ms), reason = 'suppression-added') AS added,
    uniqExactIf((recipient, evidence, ts, ts_ms), reason = 'suppression-removed') AS removed
FROM events
WHERE ts >= {since:DateTime} AND ts < {until:DateTime} AND ({tenant:String} = '' OR tenant = {tenant:String})
    AND kind = 'noted' AND reason IN ('suppression-added', 'suppression-removed')
GROUP BY day, tenant, why
ORDER BY day, tenant, why
