-- Anomalies: hours in which what happened at a site is far from the mean of the same hour in the four weeks before: at least 20 messages
-- more or less, and more than twice or less than half. The hour that goes on is left out, and so are hours before which there is no
-- week of data; where there are fewer than four, it is the mean of those.
-- Parameters: tenant, since, until (the hours that are judged; four weeks before them are read too).
-- Columns: hour, site, kind (delivered, bounced, deferred, complained), messages, usual (that mean), ratio (messages / usual; 0: usual is 0),
--   weeks (before the hour that there are, up to 4).
-- Example: run(warehouse, "anomalies", since="2026-01-31")
SELECT toDateTime(moved, 'UTC') AS hour, site, kind, sum(found * (week = 0)) AS messages, sum(found * (week > 0)) / weeks AS usual,
    if(usual = 0, 0, round(messages / usual, 2)) AS ratio,
    least(4, intDiv(moved - (
        SELECT toUInt32(min(hours.hour)) FROM hours WHERE hours.hour >= toDateTime(toUInt32({since:DateTime}) - 2419200)
    ), 604800)) AS weeks
FROM
(
    SELECT toUInt32(own_hour) + week * 604800 AS moved, site, kind, week, found
    FROM
    (
        SELECT hours.hour AS own_hour, site, toString(kind) AS kind, sum(hours.messages) AS found
        FROM hours FINAL
        WHERE hours.hour >= toStartOfHour(toDateTime(toUInt32({since:DateTime}) - 2419200)) AND hours.hour < {until:DateTime}
            AND ({tenant:String} = '' OR tenant = {tenant:String})
            AND kind IN ('delivered', 'bounced', 'deferred', 'complained') AND site != ''
        GROUP BY own_hour, site, kind
    )
    ARRAY JOIN [0, 1, 2, 3, 4] AS week
)
WHERE moved >= toUInt32({since:DateTime}) AND moved < toUInt32({until:DateTime}) AND moved + 3600 <= toUInt32(now())
GROUP BY moved, site, kind
HAVING weeks > 0 AND abs(messages - usual) >= 20 AND (messages > 2 * usual OR messages * 2 < usual)
ORDER BY hour, site, kind
