-- What waits, by site: messages whose last step left them waiting (scheduled, deferred) or on their way to the site (routed), the most first.
-- A step that was told twice counts once; a message that has ended does not count. '' is mail whose site is not known yet.
-- Parameters: tenant, since, until (when the last step was; a message that waits for longer than since says is not seen),
--   site (empty: all).
-- Columns: site, waiting, deferred (of these: tried already), oldest (accepted), next (the first that comes back), reason (of the last step),
--   reply_code, reply (the last that the site gave to one of them), replied (when).
-- Example: run(warehouse, "queue", site="example.org")
SELECT
    last_site AS site,
    count() AS waiting,
    sum(last_kind = 'deferred') AS deferred,
    min(accepted) AS oldest,
    minIf(due, toUInt32(due) > 0) AS next,
    argMax(last_reason, at) AS reason,
    argMaxIf(code, replied_at, code > 0) AS reply_code,
    argMaxIf(text, replied_at, code > 0) AS reply,
    maxIf(replied_at, code > 0) AS replied
FROM
(
    SELECT
        message_id,
        min(accepted_at) AS accepted,
        max(ts) AS at,
        argMax(kind, place) AS last_kind,
        argMax(site, place) AS last_site,
        argMax(reason, place) AS last_reason,
        argMax(due_at, place) AS due,
        argMaxIf(reply_code, place, kind = 'deferred') AS code,
        argMaxIf(reply, place, kind = 'deferred') AS text,
        maxIf(ts, kind = 'deferred') AS replied_at
    FROM
    (
        SELECT message_id, accepted_at, ts, kind, site, reason, due_at, reply_code, reply,
            (toUInt64(round) * 65536 + attempt, toUInt8(kind IN ('scheduled', 'deferred', 'held')), toUInt64(toUInt32(ts)) * 1000 + ts_ms) AS place
        FROM events
        WHERE ts >= {since:DateTime} AND ts < {until:DateTime} AND ({tenant:String} = '' OR tenant = {tenant:String})
            AND kind NOT IN ('accepted', 'reported', 'complained', 'late_bounce', 'noted')
    )
    GROUP BY message_id
    HAVING countIf(kind IN ('delivered', 'bounced', 'dropped', 'rejected', 'expired', 'cancelled')) = 0
        AND last_kind IN ('scheduled', 'deferred', 'routed') AND ({site:String} = '' OR last_site = {site:String})
)
GROUP BY last_site
ORDER BY waiting DESC, site
LIMIT 1000
