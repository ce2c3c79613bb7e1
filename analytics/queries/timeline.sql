-- Everything that happened to one message, in order, what came back after its end too (late_bounce, complained, reported); repeats of an event after a crash are shown once.
-- Parameters: message (its id).
-- Columns: at, ms, kind, stage, round, attempt, reason, rule, site, source, mx_host, reply_code, enhanced_code, reply,
--   duration_ms, possible_duplicate, due_at (1970 where there is none), detail, mx_address, tls, shaping, phases, phase_ms,
--   bounce_class, evidence (of feedback: the id of the report).
-- Example: run(warehouse, "timeline", message="06d2kq3m80fh1c9gk4u0q7vbno")
SELECT
    ts AS at, ts_ms AS ms, kind, stage, round, attempt, reason, rule, site, source, mx_host, reply_code, enhanced_code,
    reply, duration_ms, possible_duplicate, due_at, detail, mx_address, tls, shaping, phases, phase_ms, bounce_class, evidence
FROM
(
    WITH (
        /* An id says when its message was accepted (postroad/ids.py), so its row is found at once: it tells when the message ended. */
        SELECT (
            toUInt32(max(accepted_at)),
            if(count() > 0 AND argMax(ended, version), toUInt32(max(state_at)), toUInt32(4294967295))
        )
        FROM messages
        WHERE message_id = {message:String} AND accepted_at = toDateTime((
            SELECT if(match({message:String}, '^[0-9a-v]{25}[048cgkos]$'), toUInt32(least(4294967295, intDiv(arraySum(arrayMap(
                i -> bitShiftLeft(toUInt64(position('0123456789abcdefghijklmnopqrstuv', substring({message:String}, i, 1)) - 1), 50 - 5 * i),
                [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])), 4000))), toUInt32(0)) AS begun
        ), 'UTC')
    ) AS life, (
        SELECT toUInt32(max(at)) FROM feedback WHERE message_id = {message:String}
    ) AS came_back
    SELECT
        ts, ts_ms, kind, stage, round, attempt, reason, rule, site, source, mx_host, reply_code, enhanced_code, reply, duration_ms,
        possible_duplicate, due_at, detail, mx_address, tls, shaping, phases, phase_ms, bounce_class, evidence, k_partition, k_offset
    FROM events
    PREWHERE (life.1 = 0 OR accepted_at = toDateTime(life.1, 'UTC'))
    WHERE ts >= toDateTime(greatest(life.1, 3600) - 3600, 'UTC') /* clocks differ by less */
        AND ts <= toDateTime(least(greatest(life.2, came_back) + 86400, 4294967295), 'UTC') /* a step may be told again by then */
        AND message_id = {message:String}
    ORDER BY ts, ts_ms, k_partition, k_offset
    LIMIT 1 BY kind, round, attempt, stage, reason, evidence
)
ORDER BY at, ms, k_partition, k_offset
