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
    sum(last_state = 'deferred') AS deferred,
    min(accepted_at) AS oldest,
    minIf(due, toUInt32(due) > 0) AS next,
    argMax(last_reason, at) AS reason,
    argMaxIf(code, replied_at, code > 0) AS reply_code,
    argMaxIf(text, replied_at, code > 0) AS reply,
    maxIf(replied_at, code > 0) AS replied
FROM
(
    SELECT
        accepted_at,
        message_id,
        argMax(state, version) AS last_state,
        argMax(site, version) AS last_site,
        argMax(reason, version) AS last_reason,
        argMax(due_at, version) AS due,
        argMax(state_at, version) AS at
    FROM messages
    WHERE (accepted_at, message_id) IN
        (
            SELECT accepted_at, message_id
            FROM messages
            WHERE NOT ended AND state_at >= {since:DateTime} AND state_at < {until:DateTime}
                AND ({tenant:String} = '' OR tenant = {tenant:String})
        )
    GROUP BY accepted_at, message_id
    HAVING max(ended) = 0 AND last_state IN ('scheduled', 'deferred', 'routed') AND ({site:String} = '' OR last_site = {site:String})
) AS waits
ANY LEFT JOIN
(
    SELECT
        message_id,
        argMax(reply_code, toUInt64(toUInt32(ts)) * 1000 + ts_ms) AS code,
        argMax(reply, toUInt64(toUInt32(ts)) * 1000 + ts_ms) AS text,
        max(ts) AS replied_at
    FROM events
    WHERE ts >= {since:DateTime} AND ts < {until:DateTime} AND ({tenant:String} = '' OR tenant = {tenant:String})
        AND kind = 'deferred' AND message_id IN (SELECT message_id FROM messages WHERE NOT ended)
    GROUP BY message_id
) AS replies
USING message_id
GROUP BY last_site
ORDER BY waiting DESC, site
LIMIT 1000
