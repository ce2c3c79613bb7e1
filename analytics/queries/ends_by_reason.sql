-- How messages ended, by end and reason.
-- Parameters: tenant, since, until (when they ended; whole hours).
-- Columns: kind, reason, messages.
-- Example: run(warehouse, "ends_by_reason", tenant="shop")
SELECT kind, reason, sum(hours.messages) AS messages
FROM hours FINAL
WHERE hour >= toStartOfHour({since:DateTime}) AND hour < {until:DateTime} AND ({tenant:String} = '' OR tenant = {tenant:String})
    AND kind IN ('delivered', 'bounced', 'dropped', 'rejected', 'expired', 'cancelled')
GROUP BY kind, reason
ORDER BY messages DESC, kind, reason
