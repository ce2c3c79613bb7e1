-- How messages ended, by site of the recipient; site is empty for messages that ended before route.
-- Parameters: tenant, since, until (when they ended; whole hours).
-- Columns: site, ended, delivered, bounced, dropped, rejected, expired, cancelled (messages).
-- Example: run(warehouse, "ends_by_site", since="2026-01-31T00:00:00Z")
SELECT
    site,
    sum(messages) AS ended,
    sumIf(messages, kind = 'delivered') AS delivered,
    sumIf(messages, kind = 'bounced') AS bounced,
    sumIf(messages, kind = 'dropped') AS dropped,
    sumIf(messages, kind = 'rejected') AS rejected,
    sumIf(messages, kind = 'expired') AS expired,
    sumIf(messages, kind = 'cancelled') AS cancelled
FROM hours FINAL
WHERE hour >= toStartOfHour({since:DateTime}) AND hour < {until:DateTime} AND ({tenant:String} = '' OR tenant = {tenant:String})
    AND kind IN ('delivered', 'bounced', 'dropped', 'rejected', 'expired', 'cancelled')
GROUP BY site
ORDER BY ended DESC, site
