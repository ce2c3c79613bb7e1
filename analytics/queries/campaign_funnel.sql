-- The funnel of a campaign: how many messages of each tag came how far. A message with several tags counts for each.
-- Parameters: tenant, tag (default: all), since, until (when it happened).
-- Columns: tag, accepted, cleared, routed, delivered, bounced, expired, dropped, rejected, cancelled, complained, late_bounced.
-- Example: run(warehouse, "campaign_funnel", tenant="shop", tag="newsletter-07")
SELECT
    arrayJoin(tags) AS tag,
    uniqExactIf(message_id, kind = 'accepted') AS accepted,
    uniqExactIf(message_id, kind = 'cleared') AS cleared,
    uniqExactIf(message_id, kind = 'routed') AS routed,
    uniqExactIf(message_id, kind = 'delivered') AS delivered,
    uniqExactIf(message_id, kind = 'bounced') AS bounced,
    uniqExactIf(message_id, kind = 'expired') AS expired,
    uniqExactIf(message_id, kind = 'dropped') AS dropped,
    uniqExactIf(message_id, kind = 'rejected') AS rejected,
    uniqExactIf(message_id, kind = 'cancelled') AS cancelled,
    uniqExactIf(message_id, kind = 'complained') AS complained,
    uniqExactIf(message_id, kind = 'late_bounce') AS late_bounced
FROM events
WHERE ts >= {since:DateTime} AND ts < {until:DateTime} AND ({tenant:String} = '' OR tenant = {tenant:String})
    AND notEmpty(tags) AND message_id != ''
GROUP BY tag
HAVING {tag:String} = '' OR tag = {tag:String}
ORDER BY accepted DESC, tag
