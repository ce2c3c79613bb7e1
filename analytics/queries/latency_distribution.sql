-- How the time from accepted to delivered is distributed: deliveries by bins of the rollup, each at most a thirty-second part of where it
-- begins wide (1 ms below 32 ms). Bins without deliveries have no row.
-- Parameters: tenant, since, until (when they were delivered; whole hours).
-- Columns: from_ms, below_ms (the bin), deliveries.
-- Example: run(warehouse, "latency_distribution", tenant="shop")
SELECT
    if(bin < 32, toUInt64(bin), bitShiftLeft(toUInt64(32 + bitAnd(bin, 31)), toUInt8(intDiv(greatest(bin, 32), 32) - 1))) AS from_ms,
    from_ms + bitShiftLeft(toUInt64(1), toUInt8(intDiv(greatest(bin, 32), 32) - 1)) AS below_ms,
    sum(found) AS deliveries
FROM
(
    SELECT bin, found
    FROM
    (
        SELECT latency_bins, latency_counts
        FROM hours FINAL
        WHERE hour >= toStartOfHour({since:DateTime}) AND hour < {until:DateTime} AND ({tenant:String} = '' OR tenant = {tenant:String})
            AND kind = 'delivered'
    )
    ARRAY JOIN latency_bins AS bin, latency_counts AS found
)
GROUP BY bin
ORDER BY bin
