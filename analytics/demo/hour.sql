-- The events of the messages that are accepted in one hour, made by the engine itself: message number -> its story by
-- hashes of the number. Arrays are by tenant, site or source; shares are in millionths. Runs on ClickHouse from 18.16 on.
-- A name in a subquery is of this file alone; the columns of `events` get theirs in the outermost SELECT.
INSERT INTO events
(
    k_partition, k_offset, ingested_at, ts, ts_ms, accepted_at, accepted_ms, message_id, tenant, submission_id, stream, kind,
    round, attempt, recipient, recipient_domain, stage, reason, rule, detail, site, pool, source, mx_host, mx_address,
    reply_code, enhanced_code, reply, tls, duration_ms, possible_duplicate, size, due_at, shaping, phases, phase_ms,
    bounce_class, evidence, tags, metadata_keys, metadata_values
)
SELECT
    toUInt16(65000), n * 16 + place, toDateTime(intDiv(at_ms, 1000), 'UTC'),
    toDateTime(intDiv(at_ms, 1000), 'UTC') AS at, toUInt16(at_ms % 1000),
    toDateTime(intDiv(begun_ms, 1000), 'UTC'), toUInt16(begun_ms % 1000),
    id, tenant_name, concat('demo-', toString(intDiv(n, 4))), stream_name, step,
    toUInt16(0), toUInt16(try), concat('user', toString(user), '@', domain), domain,
    transform(step,
        ['accepted', 'validated', 'rejected', 'scored', 'cleared', 'dropped', 'routed', 'deferred', 'delivered', 'bounced',
         'complained', 'late_bounce'],
        ['ingest', 'validate', 'validate', 'score', 'suppress', 'suppress', 'route', 'classify', 'classify', 'classify',
         'feedback', 'feedback'], ''),
    multiIf(step = 'rejected', 'bad-address', step = 'dropped', 'suppressed', step = 'delivered', 'delivered',
            step = 'complained', 'abuse', step = 'late_bounce', 'mailbox-full', {reasons:Array(String)}[cause]),
    multiIf(step = 'delivered', 'accepted', step = 'dropped', 'suppression', step IN ('complained', 'late_bounce'), 'report',
            {rules:Array(String)}[cause]),
    '', if(place >= 5, site_name, ''), if(place >= 5, 'shared', ''), if(try > 0 OR step IN ('complained', 'late_bounce'), source_name, ''),
    if(try > 0, concat('mx', toString(1 + n % 2), '.', site_name), ''), if(try > 0, '203.0.113.7', ''),
    toUInt16(if(step = 'delivered', 250, {codes:Array(UInt16)}[cause])),
    if(step = 'delivered', '2.0.0', {enhanced:Array(String)}[cause]),
    if(step = 'delivered', 'accepted', {replies:Array(String)}[cause]),
    if(try > 0, site_tls, ''), toUInt32(if(try > 0, took, 0)), toUInt8(0), toUInt64(size_b),
    toDateTime(if(step = 'deferred', intDiv(at_ms, 1000) + waits[try], 0), 'UTC'), if(try > 0, 'demo', ''),
    if(try > 0, ['connect', 'mail', 'rcpt', 'data', 'body'], emptyArrayString()),
    if(try > 0, [toUInt32(intDiv(took, 5)), toUInt32(intDiv(took, 10)), toUInt32(intDiv(took, 10)), toUInt32(intDiv(took, 10)), toUInt32(intDiv(took, 2))], emptyArrayUInt32()),
    multiIf(step = 'bounced', if(cause = 2, 'hard', 'soft'), step = 'late_bounce', 'soft', ''),
    if(step IN ('complained', 'late_bounce'), concat('report-', toString(n)), ''),
    if(stream_name = 'broadcast', [concat(tenant_name, '-', toString(toWeek_of))], emptyArrayString()),
    emptyArrayString(), emptyArrayString()
FROM
(
    SELECT *, each_step AS step, each_place AS place,
        toInt64(begun_ms) + offsets[place + 1] AS at_ms,
        if(step IN ('deferred', 'delivered') OR (step = 'bounced'), place - 4, 0) AS try,
        multiIf(step = 'bounced', end_cause, step = 'deferred', put_off, 1) AS cause
    FROM
    (
        SELECT *,
            arrayCumSum(arrayMap((kind_of, number_of, hash, first, later) -> multiIf(
                number_of = 1, 0,
                number_of <= 5, 4 + bitAnd(bitShiftRight(hash, 4 * number_of), 31),
                kind_of = 'complained' OR kind_of = 'late_bounce', 60000 + hash % 40000000,
                number_of = 6, first,
                first + 1000 * later),
                steps, arrayEnumerate(steps), arrayResize(emptyArrayUInt64(), length(steps), h_time),
                arrayResize(emptyArrayUInt64(), length(steps), toUInt64(took)),
                arrayResize(arrayConcat(arrayResize(emptyArrayUInt64(), 6), waits), length(steps)))) AS offsets
        FROM
        (
            SELECT *,
                multiIf(h_in < {rejected:Array(UInt32)}[tenant_n], ['accepted', 'validated', 'rejected'],
                    h_in < {suppressed:Array(UInt32)}[tenant_n], ['accepted', 'validated', 'scored', 'dropped'],
                    arrayConcat(['accepted', 'validated', 'scored', 'cleared', 'routed'],
                        arrayMap(again -> 'deferred', range(toUInt8(tries - 1))),
                        [if(end_cause = 1, 'delivered', 'bounced')],
                        if(end_cause = 1 AND h_late < {complained:Array(UInt32)}[tenant_n], ['complained'],
                           if(end_cause = 1 AND h_late > 999400, ['late_bounce'], emptyArrayString())))) AS steps
            FROM
            (
                SELECT *,
                    {domains:Array(String)}[1 + {domain_first:Array(UInt16)}[site_n] + user % {domain_count:Array(UInt16)}[site_n]] AS domain,
                    {site_names:Array(String)}[site_n] AS site_name, {site_tls:Array(String)}[site_n] AS site_tls,
                    {tenant_names:Array(String)}[tenant_n] AS tenant_name, {streams:Array(String)}[tenant_n] AS stream_name,
                    {source_names:Array(String)}[source_n] AS source_name,
                    intDiv({latency_ms:Array(UInt32)}[site_n] * (40 + bitAnd(h_time, 127)), 100) AS took,
                    if(h_bounce < {unknown:Array(UInt32)}[(tenant_n - 1) * {sites:UInt16} + site_n], 2,
                       if(h_bounce > {refused:Array(UInt32)}[site_n], 3 + h_bounce % 2, 1)) AS end_cause,
                    h_rate < {deferred:Array(UInt32)}[(site_n - 1) * {sources:UInt16} + source_n] AS is_put_off,
                    if(is_put_off, {put_off:Array(UInt8)}[(site_n - 1) * {sources:UInt16} + source_n], 1) AS put_off,
                    if(is_put_off, 2 + (h_late % 4 = 0) + (h_late % 16 = 0), 1) AS tries,
                    [300, 900, 3600, 7200] AS waits,
                    {week:UInt16} AS toWeek_of,
                    arrayStringConcat(arrayConcat(
                        arrayMap((i, bits) -> substring('0123456789abcdefghijklmnopqrstuv', 1 + bitAnd(bitShiftRight(bits, 45 - 5 * i), 31), 1), range(10), arrayResize(emptyArrayUInt64(), 10, begun_ms * 4 + n % 4)),
                        arrayMap((i, bits) -> substring('0123456789abcdefghijklmnopqrstuv', 1 + bitAnd(bitShiftRight(bits, 5 * i), 31), 1), range(12), arrayResize(emptyArrayUInt64(), 12, h_id)),
                        arrayMap((i, bits) -> substring('0123456789abcdefghijklmnopqrstuv', 1 + bitAnd(bitShiftRight(bits, 5 * i), 31), 1), range(3), arrayResize(emptyArrayUInt64(), 3, h_time)),
                        [substring('048cgkos', 1 + bitAnd(h_time, 7), 1)])) AS id
                FROM
                (
                    SELECT number + {first:UInt64} AS n,
                        cityHash64(n, {seed:UInt64}, 1) AS h_id, cityHash64(n, {seed:UInt64}, 2) AS h_time,
                        toUInt64({hour_ms:UInt64} + h_time % 3600000) AS begun_ms,
                        arrayFirstIndex(bound -> bound > bitAnd(h_id, 65535), {tenant_bounds:Array(UInt32)}) AS tenant_n,
                        arrayFirstIndex(bound -> bound > bitAnd(bitShiftRight(h_id, 16), 65535), {site_bounds:Array(UInt32)}) AS site_n,
                        arrayFirstIndex(bound -> bound > bitAnd(bitShiftRight(h_id, 32), 65535), {source_bounds:Array(UInt32)}) AS source_n,
                        bitAnd(bitShiftRight(h_time, 32), 1048575) % 200000 AS user,
                        cityHash64(n, {seed:UInt64}, 3) % 1000000 AS h_in, cityHash64(n, {seed:UInt64}, 4) % 1000000 AS h_bounce,
                        cityHash64(n, {seed:UInt64}, 5) % 1000000 AS h_rate, cityHash64(n, {seed:UInt64}, 6) % 1000000 AS h_late,
                        1500 + h_late % 30000 AS size_b
                    FROM (SELECT number FROM system.numbers LIMIT {messages:UInt64})
                )
            )
        )
    )
    ARRAY JOIN steps AS each_step, arrayMap(i -> i - 1, arrayEnumerate(steps)) AS each_place
)
WHERE at_ms < {end_ms:UInt64}
