-- How many attempts a delivery took.
-- Parameters: tenant, since, until (when they were delivered).
-- Columns: attempts, messages.
-- Example: run(warehouse, "attempts_per_delivery")
SELECT attempt AS attempts, uniqExact(message_id) AS messages
FROM events
WHERE ts >= {since:DateTime} AND ts < {until:DateTime} AND ({tenant:String} = '' OR tenant = {tenant:String})
    AND kind = 'delivered'
GROUP BY attempts
ORDER BY attempts
