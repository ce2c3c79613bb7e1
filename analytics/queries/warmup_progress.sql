-- Warm-up: what each source sent to each site on each day (UTC), and since when it sends at all in this window.
-- Parameters: tenant, since, until (when it was answered).
-- Columns: source, site, day, day_of_source (1: its first), sent (messages answered with an end or a deferral), delivered, bounced, deferred.
-- Example: run(warehouse, "warmup_progress", since="2026-01-01")
SELECT source, site, day, toUInt32(day - first_day) + 1 AS day_of_source, sent, delivered, bounced, deferred
FROM
(
    SELECT
        source, site, toDate(ts) AS day,
        uniqExact(message_id) AS sent,
        uniqExactIf(message_id, kind = 'delivered') AS delivered,
        uniqExactIf(message_id, kind = 'bounced') AS bounced,
        uniqExactIf(message_id, kind = 'deferred') AS deferred
    FROM events
    WHERE ts >= {since:DateTime} AND ts < {until:DateTime} AND ({tenant:String} = '' OR tenant = {tenant:String})
        AND kind IN ('delivered', 'bounced', 'deferred') AND source != ''
    GROUP BY source, site, day
) AS days
ALL INNER JOIN
(
    SELECT source, toDate(min(ts)) AS first_day
    FROM events
    WHERE ts >= {since:DateTime} AND ts < {until:DateTime} AND kind IN ('delivered', 'bounced', 'deferred') AND source != ''
    GROUP BY source
) AS begun
USING source
ORDER BY source, site, day
