-- How messages ended, by site of the recipient; site is empty for messages that ended before route.
-- Parameters: tenant, since, until (when they ended).
-- Columns: site, ended, delivered, bounced, dropped, rejected, expired, cancelled (messages).
-- Example: run(warehouse, "ends_by_site", since="2026-01-31T00:00:00Z")
SELECT
    site,
    uniqExact(message_id) AS ended,
    uniqExactIf(message_id, kind = 'delivered') AS delivered,
    uniqExactIf(message_id, kind = 'bounced') AS bounced,
    uniqExactIf(message_id, kind = 'dropped') AS dropped,
    uniqExactIf(message_id, kind = 'rejected') AS rejected,
    uniqExactIf(message_id, kind = 'expired') AS expired,
    uniqExactIf(message_id, kind = 'cancelled') AS cancelled
FROM events
WHERE ts >= {since:DateTime} AND ts < {until:DateTime} AND ({tenant:String} = '' OR tenant = {tenant:String})
    AND kind IN ('delivered', 'bounced', 'dropped', 'rejected', 'expired', 'cancelled')
GROUP BY site
ORDER BY ended DESC, site
