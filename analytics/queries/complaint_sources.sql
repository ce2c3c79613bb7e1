-- Who complains: by site, kind of complaint and the feedback loop that told it; with the share of what the site took in the same time.
-- Parameters: tenant, since, until (when it came).
-- Columns: site, reason (abuse, fraud, opt-out...), loop (who reported, as it calls itself), complaints (messages), delivered (to the site, in whole hours), share (0 to 1).
-- Example: run(warehouse, "complaint_sources", tenant="shop")
SELECT site, reason, loop, complaints, delivered, if(delivered = 0, 0, round(complaints / delivered, 5)) AS share
FROM
(
    SELECT site, reason, detail AS loop, uniqExact(message_id) AS complaints
    FROM events
    WHERE ts >= {since:DateTime} AND ts < {until:DateTime} AND ({tenant:String} = '' OR tenant = {tenant:String})
        AND kind = 'complained'
    GROUP BY site, reason, loop
) AS told
ANY LEFT JOIN
(
    SELECT site, sum(messages) AS delivered
    FROM hours FINAL
    WHERE hour >= toStartOfHour({since:DateTime}) AND hour < {until:DateTime} AND ({tenant:String} = '' OR tenant = {tenant:String})
        AND kind = 'delivered'
    GROUP BY site
) AS taken
USING site
ORDER BY complaints DESC, site, reason, loop
