-- How sites answer each source, and what came back for it: shares of what it sent there.
-- Parameters: tenant, since, until (when it was answered).
-- Columns: source, site, delivered, bounced, deferred (messages), complained, bounced_share, complained_share (0 to 1; of those delivered).
-- Example: run(warehouse, "source_reputation", since="2026-01-31")
SELECT
    source,
    site,
    uniqExactIf(message_id, kind = 'delivered') AS delivered,
    uniqExactIf(message_id, kind = 'bounced') AS bounced,
    uniqExactIf(message_id, kind = 'deferred') AS deferred,
    uniqExactIf(message_id, kind = 'complained') AS complained,
    round(bounced / greatest(delivered + bounced, 1), 4) AS bounced_share,
    round(complained / greatest(delivered, 1), 5) AS complained_share
FROM events
WHERE ts >= {since:DateTime} AND ts < {until:DateTime} AND ({tenant:String} = '' OR tenant = {tenant:String})
    AND kind IN ('delivered', 'bounced', 'deferred', 'complained') AND source != ''
GROUP BY source, site
ORDER BY source, delivered + bounced DESC, site
