-- One row a message: its current state, and its end when it has one. The sink writes a row for each message of a batch, and the one with the
-- highest version is the message: versions rank the steps of a life (analytics/messages.py), so repeats and order do not matter. Read it with
-- FINAL over some days of accepted_at, or with argMax(column, version) GROUP BY message_id. Feedback after the end is in events alone, as are
-- the address and the text of the reply.
CREATE TABLE IF NOT EXISTS messages
(
    message_id         String,
    accepted_at        DateTime('UTC'),
    accepted_ms        UInt16,
    tenant             String,
    submission_id      String,
    stream             Enum8('transactional' = 1, 'broadcast' = 2),
    state              Enum8('accepted' = 1, 'validated' = 2, 'scored' = 3, 'held' = 4, 'released' = 5, 'cleared' = 6,
                             'routed' = 7, 'scheduled' = 8, 'deferred' = 9, 'delivered' = 10, 'bounced' = 11,
                             'dropped' = 12, 'rejected' = 13, 'expired' = 14, 'cancelled' = 15),  -- how far it has come
    ended              UInt8,            -- 1: state is an end
    state_at           DateTime('UTC'),  -- when it came into this state
    state_ms           UInt16,           -- milliseconds of that second
    round              UInt16,
    attempt            UInt16,           -- of the last attempt; 0 before the first
    recipient_domain   String,
    site               String,
    pool               String,
    source             String,
    reason             String,
    rule               String,
    reply_code         UInt16,
    enhanced_code      String,
    due_at             DateTime('UTC'),  -- of scheduled and deferred: when it goes on; else 1970-01-01 00:00:00
    size               UInt64,
    tags               Array(String),
    version            UInt64,           -- rank of the state: the highest is the message
    latency_ms         Int64 ALIAS (toInt64(toUInt32(state_at)) - toInt64(toUInt32(accepted_at))) * 1000 + toInt64(state_ms) - toInt64(accepted_ms)  -- from accepted to this state
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMMDD(accepted_at)
ORDER BY (accepted_at, message_id)
SETTINGS index_granularity = 8192;
