-- Share of messages that the site took, of those that were delivered to it, bounced or expired; by site and hour.
-- Parameters: tenant, since, until (when they ended; whole hours).
-- Columns: hour, site, delivered, bounced, expired, delivered_share (0 to 1).
-- Example: run(warehouse, "deliverability_by_site", tenant="shop")
SELECT
    hour,
    site,
    sumIf(messages, kind = 'delivered') AS delivered,
    sumIf(messages, kind = 'bounced') AS bounced,
    sumIf(messages, kind = 'expired') AS expired,
    round(delivered / (delivered + bounced + expired), 4) AS delivered_share
FROM hours FINAL
WHERE hour >= toStartOfHour({since:DateTime}) AND hour < {until:DateTime} AND ({tenant:String} = '' OR tenant = {tenant:String})
    AND kind IN ('delivered', 'bounced', 'expired')
GROUP BY hour, site
ORDER BY hour, site
