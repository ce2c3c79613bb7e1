-- Cohorts: what became of mail by the hour of the day (UTC) at which it was accepted.
-- Parameters: tenant, since, until (when it ended).
-- Columns: hour (0 to 23), ended, delivered, bounced, complained, delivered_share (0 to 1), p50_ms, p95_ms (accepted to delivered).
-- Example: run(warehouse, "cohort_by_hour", tenant="shop", since="2026-01-01")
SELECT
    hour,
    countIf(is_ended) AS ended,
    countIf(is_delivered) AS delivered,
    countIf(is_bounced) AS bounced,
    countIf(is_complained) AS complained,
    round(delivered / greatest(ended, 1), 4) AS delivered_share,
    if(delivered = 0, 0, quantileExactIf(0.5)(latency, is_delivered)) AS p50_ms,
    if(delivered = 0, 0, quantileExactIf(0.95)(latency, is_delivered)) AS p95_ms
FROM
(
    SELECT
        toHour(any(accepted_at)) AS hour,
        max(kind NOT IN ('complained')) AS is_ended,
        max(kind = 'delivered') AS is_delivered,
        max(kind = 'bounced') AS is_bounced,
        max(kind = 'complained') AS is_complained,
        minIf(latency_ms, kind = 'delivered') AS latency
    FROM events
    WHERE ts >= {since:DateTime} AND ts < {until:DateTime} AND ({tenant:String} = '' OR tenant = {tenant:String})
        AND kind IN ('delivered', 'bounced', 'expired', 'dropped', 'rejected', 'cancelled', 'complained') AND message_id != ''
    GROUP BY message_id
)
GROUP BY hour
ORDER BY hour
