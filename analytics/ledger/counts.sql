-- The ledger by tenant and stream: accepted, and of those ended; the same of what was accepted and had ended by settled_ms.
-- Parameters: tenant, since (day's precision is enough: to read fewer days), since_ms (accepted from then on), settled_ms.
-- Columns: tenant, stream, accepted, ended, settled_accepted, settled_ended.
SELECT
    tenant_of_message AS tenant,
    stream_of_message AS stream,
    sum(begun) AS accepted,
    sum(begun AND ends > 0) AS ended,
    sum(begun AND accepted_at_ms <= {settled_ms:Int64}) AS settled_accepted,
    sum(begun AND accepted_at_ms <= {settled_ms:Int64} AND ends > 0 AND ended_at_ms <= {settled_ms:Int64}) AS settled_ended
FROM
(
    SELECT
        message_id,
        any(tenant) AS tenant_of_message,
        any(toString(stream)) AS stream_of_message,
        any(toInt64(toUInt32(accepted_at)) * 1000 + accepted_ms) AS accepted_at_ms,
        max(kind = 'accepted') AS begun,
        sum(kind != 'accepted') AS ends,
        minIf(toInt64(toUInt32(ts)) * 1000 + ts_ms, kind != 'accepted') AS ended_at_ms
    FROM events
    WHERE toInt64(toUInt32(accepted_at)) * 1000 + accepted_ms >= {since_ms:Int64}
        AND ts >= {since:DateTime} AND ({tenant:String} = '' OR tenant = {tenant:String})
        AND kind IN ('accepted', 'delivered', 'bounced', 'dropped', 'rejected', 'expired', 'cancelled')
    GROUP BY message_id
)
GROUP BY tenant, stream
HAVING accepted > 0
ORDER BY tenant, stream
