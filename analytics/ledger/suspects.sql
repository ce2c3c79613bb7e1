-- Every step of the messages that may break the rule of the ledger: those with two ends, those without an event accepted, and
-- those without an end whose steps have all been overdue. A few that are in order may be among them: postroad/ledger.py decides.
-- Parameters: tenant, since, since_ms (as counts.sql), now_ms, transit_ms, sending_ms, expires_ms (postroad.ledger.Allowed).
-- Columns: message_id, tenant, stream, kind, round, attempt, at_ms, accepted_at_ms, due_ms (0: none).
SELECT DISTINCT
    message_id, tenant, toString(stream) AS stream_name, toString(kind) AS kind_name, round, attempt,
    toInt64(toUInt32(ts)) * 1000 + ts_ms AS at_ms,
    toInt64(toUInt32(accepted_at)) * 1000 + accepted_ms AS accepted_at_ms,
    toInt64(toUInt32(due_at)) * 1000 AS due_ms
FROM events
WHERE ts >= {since:DateTime} AND ({tenant:String} = '' OR tenant = {tenant:String}) AND kind NOT IN ('reported', 'complained', 'late_bounce', 'noted')
    AND message_id IN
    (
        SELECT message_id
        FROM
        (
            SELECT
                message_id, kind, round, attempt,
                kind IN ('delivered', 'bounced', 'dropped', 'rejected', 'expired', 'cancelled') AS is_end,
                kind IN ('held', 'scheduled', 'deferred') AS is_wait,
                toInt64(toUInt32(ts)) * 1000 + ts_ms AS at,
                multiIf(
                    toUInt32(due_at) != 0, greatest(at, toInt64(toUInt32(due_at)) * 1000) + {transit_ms:Int64},
                    kind = 'held', greatest(at, toInt64(toUInt32(accepted_at)) * 1000 + accepted_ms + {expires_ms:Int64}) + {transit_ms:Int64},
                    kind = 'routed', at + {sending_ms:Int64},
                    at + {transit_ms:Int64}
                ) AS deadline
            FROM events
            WHERE toInt64(toUInt32(accepted_at)) * 1000 + accepted_ms >= {since_ms:Int64}
                AND ts >= {since:DateTime} AND ({tenant:String} = '' OR tenant = {tenant:String}) AND kind NOT IN ('reported', 'complained', 'late_bounce', 'noted')
        )
        GROUP BY message_id
        HAVING uniqExactIf((kind, round, attempt), is_end) > 1
            OR max(kind = 'accepted') = 0
            OR (max(is_end) = 0 AND maxIf(deadline, is_wait = 0) < {now_ms:Int64}
                AND (maxIf(deadline, is_wait) < {now_ms:Int64} OR max(kind = 'released')))
    )
ORDER BY message_id, at_ms
