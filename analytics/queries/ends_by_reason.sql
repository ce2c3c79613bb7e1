-- How messages ended, by end and reason.
-- Parameters: tenant, since, until (when they ended).
-- Columns: kind, reason, messages.
-- Example: run(warehouse, "ends_by_reason", tenant="shop")
SELECT kind, reason, uniqExact(message_id) AS messages
FROM events
WHERE ts >= {since:DateTime} AND ts < {until:DateTime} AND ({tenant:String} = '' OR tenant = {tenant:String})
    AND kind IN ('delivered', 'bounced', 'dropped', 'rejected', 'expired', 'cancelled')
GROUP BY kind, reason
ORDER BY messages DESC, kind, reason
