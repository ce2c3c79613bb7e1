-- Time from accepted to delivered, by site; the first row, site '(all)', is over all of them.
-- Parameters: tenant, since, until (when they were delivered).
-- Columns: site, messages, p50_ms, p95_ms, p99_ms, max_ms (exact, milliseconds).
-- Example: run(warehouse, "latency", tenant="shop")
SELECT
    each_site AS site,
    count() AS messages,
    quantileExact(0.5)(latency) AS p50_ms,
    quantileExact(0.95)(latency) AS p95_ms,
    quantileExact(0.99)(latency) AS p99_ms,
    max(latency) AS max_ms
FROM
(
    SELECT arrayJoin(['(all)', site_of_message]) AS each_site, latency
    FROM
    (
        SELECT message_id, any(site) AS site_of_message, min(latency_ms) AS latency
        FROM events
        WHERE ts >= {since:DateTime} AND ts < {until:DateTime} AND ({tenant:String} = '' OR tenant = {tenant:String})
            AND kind = 'delivered'
        GROUP BY message_id
    )
)
GROUP BY each_site
ORDER BY each_site != '(all)', messages DESC, site
