-- Deferrals: what sites put off, and why.
-- Parameters: tenant, since, until (when they were deferred).
-- Columns: site, reason, reply_code, deferrals, messages, example (text of one reply).
-- Example: run(warehouse, "deferrals", since="2026-01-31T00:00:00Z")
SELECT
    site, reason, reply_code,
    uniqExact(message_id, round, attempt) AS deferrals,
    uniqExact(message_id) AS messages,
    min(reply) AS example
FROM events
WHERE ts >= {since:DateTime} AND ts < {until:DateTime} AND ({tenant:String} = '' OR tenant = {tenant:String})
    AND kind = 'deferred'
GROUP BY site, reason, reply_code
ORDER BY deferrals DESC, site, reason, reply_code
