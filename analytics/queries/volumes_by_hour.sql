-- Volumes: how many messages were accepted, put off and ended in each hour, by end; and what came back. Hours without mail have no row.
-- Parameters: tenant, since, until (when it happened; whole hours).
-- Columns: hour, accepted, deferred (messages that were put off in it), delivered, bounced, dropped, rejected, expired, cancelled, complained,
--   late_bounced.
-- Example: run(warehouse, "volumes_by_hour", tenant="shop")
SELECT
    hour,
    sumIf(messages, kind = 'accepted') AS accepted,
    sumIf(messages, kind = 'deferred') AS deferred,
    sumIf(messages, kind = 'delivered') AS delivered,
    sumIf(messages, kind = 'bounced') AS bounced,
    sumIf(messages, kind = 'dropped') AS dropped,
    sumIf(messages, kind = 'rejected') AS rejected,
    sumIf(messages, kind = 'expired') AS expired,
    sumIf(messages, kind = 'cancelled') AS cancelled,
    sumIf(messages, kind = 'complained') AS complained,
    sumIf(messages, kind = 'late_bounce') AS late_bounced
FROM hours FINAL
WHERE hour >= toStartOfHour({since:DateTime}) AND hour < {until:DateTime} AND ({tenant:String} = '' OR tenant = {tenant:String})
    AND kind IN ('accepted', 'deferred', 'delivered', 'bounced', 'dropped', 'rejected', 'expired', 'cancelled', 'complained', 'late_bounce')
GROUP BY hour
ORDER BY hour
