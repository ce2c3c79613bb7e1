-- Worst domains: recipient domains by messages that bounced, with the share of all that ended there and the most frequent reason.
-- Parameters: tenant, since, until (when they ended).
-- Columns: domain, ended, bounced, expired, bounced_share (0 to 1), reason.
-- Example: run(warehouse, "worst_domains", tenant="shop")
SELECT
    recipient_domain AS domain,
    uniqExact(message_id) AS ended,
    uniqExactIf(message_id, kind = 'bounced') AS bounced,
    uniqExactIf(message_id, kind = 'expired') AS expired,
    round(bounced / ended, 4) AS bounced_share,
    arrayElement(topKIf(1)(reason, kind = 'bounced'), 1) AS reason
FROM events
WHERE ts >= {since:DateTime} AND ts < {until:DateTime} AND ({tenant:String} = '' OR tenant = {tenant:String})
    AND kind IN ('delivered', 'bounced', 'expired')
GROUP BY domain
HAVING bounced > 0
ORDER BY bounced DESC, ended DESC, domain
LIMIT 100
