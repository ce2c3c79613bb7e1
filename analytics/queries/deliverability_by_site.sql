-- Share of messages that the site took, of those that were delivered to it, bounced or expired; by site and hour.
-- Parameters: tenant, since, until (when they ended).
-- Columns: hour, site, delivered, bounced, expired, delivered_share (0 to 1).
-- Example: run(warehouse, "deliverability_by_site", tenant="shop")
SELECT
    toStartOfHour(ts) AS hour,
    site,
    uniqExactIf(message_id, kind = 'delivered') AS delivered,
    uniqExactIf(message_id, kind = 'bounced') AS bounced,
    uniqExactIf(message_id, kind = 'expired') AS expired,
    round(delivered / (delivered + bounced + expired), 4) AS delivered_share
FROM events
WHERE ts >= {since:DateTime} AND ts < {until:DateTime} AND ({tenant:String} = '' OR tenant = {tenant:String})
    AND kind IN ('delivered', 'bounced', 'expired')
GROUP BY hour, site
ORDER BY hour, site
