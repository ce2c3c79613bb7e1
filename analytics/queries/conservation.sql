-- The conservation law: every accepted message reaches exactly one end or is in flight. By tenant; the first row, tenant
-- '(all)', is over all of them. accepted = ended + in_flight always; the road is right when two_ends and not_accepted are 0.
-- Parameters: tenant, since, until (when the message was accepted; its later steps count whenever they were).
-- Columns: tenant, accepted, ended, in_flight, delivered, bounced, dropped, rejected, expired, cancelled (accepted messages),
--   two_ends (messages with more than one end), not_accepted (messages that ended but have no event accepted).
-- Example: run(warehouse, "conservation", since="2026-01-31T00:00:00Z")
SELECT
    each_tenant AS tenant,
    sum(begun) AS accepted,
    sum(begun AND ends > 0) AS ended,
    sum(begun AND ends = 0) AS in_flight,
    sum(begun AND has_delivered) AS delivered,
    sum(begun AND has_bounced) AS bounced,
    sum(begun AND has_dropped) AS dropped,
    sum(begun AND has_rejected) AS rejected,
    sum(begun AND has_expired) AS expired,
    sum(begun AND has_cancelled) AS cancelled,
    sum(ends > 1) AS two_ends,
    sum(NOT begun) AS not_accepted
FROM
(
    SELECT arrayJoin(['(all)', tenant_of_message]) AS each_tenant, begun, ends,
        has_delivered, has_bounced, has_dropped, has_rejected, has_expired, has_cancelled
    FROM
    (
        SELECT
            message_id,
            any(tenant) AS tenant_of_message,
            max(kind = 'accepted') AS begun,
            uniqExactIf((kind, round, attempt), kind != 'accepted') AS ends,
            max(kind = 'delivered') AS has_delivered,
            max(kind = 'bounced') AS has_bounced,
            max(kind = 'dropped') AS has_dropped,
            max(kind = 'rejected') AS has_rejected,
            max(kind = 'expired') AS has_expired,
            max(kind = 'cancelled') AS has_cancelled
        FROM events
        WHERE accepted_at >= {since:DateTime} AND accepted_at < {until:DateTime} AND ({tenant:String} = '' OR tenant = {tenant:String})
            AND ts >= toDateTime(greatest(toUInt32({since:DateTime}), 86400) - 86400, 'UTC') /* only to read fewer days; clocks differ by less */
            AND kind IN ('accepted', 'delivered', 'bounced', 'dropped', 'rejected', 'expired', 'cancelled')
        GROUP BY message_id
    )
)
GROUP BY each_tenant
ORDER BY each_tenant != '(all)', accepted DESC, tenant
