-- Deferral storms: ten minutes in which a site put off at least a fifth of the attempts that it answered, and at least ten of them.
-- Parameters: tenant, since, until (when they were answered).
-- Columns: since, site, attempts, deferrals, share (0 to 1), sources (how many were met), reason (the most frequent), example (a reply).
-- Example: run(warehouse, "deferral_storms", since="2026-01-31")
SELECT
    toDateTime(intDiv(toUInt32(ts), 600) * 600, 'UTC') AS since,
    site,
    uniqExact(message_id, round, attempt) AS attempts,
    uniqExactIf((message_id, round, attempt), kind = 'deferred') AS deferrals,
    round(deferrals / attempts, 4) AS share,
    uniqExactIf(source, kind = 'deferred') AS sources,
    arrayElement(topKIf(1)(reason, kind = 'deferred'), 1) AS reason,
    maxIf(reply, kind = 'deferred') AS example
FROM events
WHERE ts >= {since:DateTime} AND ts < {until:DateTime} AND ({tenant:String} = '' OR tenant = {tenant:String})
    AND kind IN ('deferred', 'delivered', 'bounced') AND attempt > 0
GROUP BY since, site
HAVING deferrals >= 10 AND deferrals * 5 >= attempts
ORDER BY since, site
