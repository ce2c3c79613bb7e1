-- The conservation law: every accepted message reaches exactly one end or is in flight. By tenant; the first row, tenant
-- '(all)', is over all of them. accepted = ended + in_flight always; the road is right when two_ends and not_accepted are 0.
-- Parameters: tenant, since, until (when the message was accepted; its later steps count whenever they were).
-- Columns: tenant, accepted, ended, in_flight, delivered, bounced, dropped, rejected, expired, cancelled (accepted messages),
--   two_ends (messages with more than one end), not_accepted (messages that ended but have no event accepted).
-- Example: run(warehouse, "conservation", since="2026-01-31T00:00:00Z")
SELECT
    each_tenant AS tenant,
    sum(begun) AS accepted,
    sum(begun AND last_end > 0) AS ended,
    sum(begun AND last_end = 0) AS in_flight,
    sum(begun AND bitTest(kinds, 10)) AS delivered,
    sum(begun AND bitTest(kinds, 11)) AS bounced,
    sum(begun AND bitTest(kinds, 12)) AS dropped,
    sum(begun AND bitTest(kinds, 13)) AS rejected,
    sum(begun AND bitTest(kinds, 14)) AS expired,
    sum(begun AND bitTest(kinds, 15)) AS cancelled,
    sum(first_end != last_end) AS two_ends,
    sum(NOT begun) AS not_accepted
FROM
(
    SELECT arrayJoin(['(all)', tenant_of_message]) AS each_tenant, bitTest(kinds, 1) AS begun, kinds, first_end, last_end
    FROM
    (
        SELECT
            message_id,
            any(tenant) AS tenant_of_message,
            groupBitOr(toUInt32(bitShiftLeft(toUInt32(1), number))) AS kinds, /* by their numbers in the Enum */
            minIf(which, number > 1) AS first_end,
            maxIf(which, number > 1) AS last_end
        FROM
        (
            SELECT message_id, tenant, toUInt8(toInt8(kind)) AS number, toUInt64(number) * 4294967296 + toUInt64(round) * 65536 + attempt AS which
            FROM events
            WHERE accepted_at >= {since:DateTime} AND accepted_at < {until:DateTime} AND ({tenant:String} = '' OR tenant = {tenant:String})
                AND ts >= toDateTime(greatest(toUInt32({since:DateTime}), 86400) - 86400, 'UTC') /* only to read fewer days; clocks differ by less */
                AND kind IN ('accepted', 'delivered', 'bounced', 'dropped', 'rejected', 'expired', 'cancelled')
        )
        GROUP BY message_id
    )
)
GROUP BY each_tenant
ORDER BY each_tenant != '(all)', accepted DESC, tenant
