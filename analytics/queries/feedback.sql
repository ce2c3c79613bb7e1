-- What came back after the end, by site, kind and reason: bounces after the 250, complaints, other reports. Apart from the ends:
-- a delivered message that bounced late stays delivered in every other query.
-- Parameters: tenant, since, until (when it came).
-- Columns: site, kind, reason, bounce_class, reports, messages.
-- Example: run(warehouse, "feedback", tenant="shop")
SELECT site, kind, reason, bounce_class, uniqExact(message_id, evidence) AS reports, uniqExact(message_id) AS messages
FROM events
WHERE ts >= {since:DateTime} AND ts < {until:DateTime} AND ({tenant:String} = '' OR tenant = {tenant:String})
    AND kind IN ('late_bounce', 'complained', 'reported') AND evidence != ''
GROUP BY site, kind, reason, bounce_class
ORDER BY messages DESC, site, kind, reason, bounce_class
