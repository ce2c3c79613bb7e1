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
    SELECT *
    FROM events
    WHERE message_id = {message:String}
    ORDER BY ts, ts_ms, k_partition, k_offset
    LIMIT 1 BY kind, round, attempt, stage, reason, evidence
)
ORDER BY at, ms, k_partition, k_offset
