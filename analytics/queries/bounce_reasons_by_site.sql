-- Why messages bounced, by site, with one reply as it came.
-- Parameters: tenant, since, until (when they bounced).
-- Columns: site, reason, enhanced_code, messages, example (text of one reply).
-- Example: run(warehouse, "bounce_reasons_by_site", tenant="shop")
SELECT site, reason, enhanced_code, uniqExact(message_id) AS messages, min(reply) AS example
FROM events
WHERE ts >= {since:DateTime} AND ts < {until:DateTime} AND ({tenant:String} = '' OR tenant = {tenant:String})
    AND kind = 'bounced'
GROUP BY site, reason, enhanced_code
ORDER BY messages DESC, site, reason, enhanced_code
