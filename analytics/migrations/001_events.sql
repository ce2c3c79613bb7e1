-- One row an event of mail.events (avro/Event.avsc). Runs unchanged from ClickHouse 18.16 to today's.
--
-- How totals stay exact. Two kinds of repeat are possible:
--  1. The sink stores a record of Kafka twice. It does not: it skips what is there (analytics/sink.py). Should it happen
--     all the same (a frozen sink revived after a rebalance), both rows have one sorting key, for that ends with the
--     record's place (k_partition, k_offset), and ReplacingMergeTree makes them one.
--  2. A stage that crashed writes an event again, at another offset. Such a repeat is a row of its own here; it is the
--     same (message_id, kind, round, attempt), the event_id of the schema, which is therefore not stored.
-- So a query never counts rows. It counts distinct events, uniqExact(message_id, kind, round, attempt), or distinct
-- messages, uniqExact(message_id), whichever it is about. That is exact at any moment, and needs no FINAL and no merge.
--
-- Strings are plain, Enums and DateTime('UTC') are used, since 18.16 has neither DateTime64 nor LowCardinality by default.
CREATE TABLE IF NOT EXISTS events
(
    k_partition        UInt16,
    k_offset           UInt64,
    ingested_at        DateTime('UTC'),
    ts                 DateTime('UTC'),
    ts_ms              UInt16,
    accepted_at        DateTime('UTC'),
    accepted_ms        UInt16,
    message_id         String,
    tenant             String,
    submission_id      String,
    stream             Enum8('transactional' = 1, 'broadcast' = 2),
    kind               Enum8('accepted' = 1, 'validated' = 2, 'scored' = 3, 'held' = 4, 'released' = 5, 'cleared' = 6,
                             'routed' = 7, 'scheduled' = 8, 'deferred' = 9, 'delivered' = 10, 'bounced' = 11,
                             'dropped' = 12, 'rejected' = 13, 'expired' = 14, 'cancelled' = 15, 'reported' = 16),
    round              UInt16,
    attempt            UInt16,
    recipient          String,
    recipient_domain   String,
    stage              String,
    reason             String,
    rule               String,
    detail             String,
    site               String,
    pool               String,
    source             String,
    mx_host            String,
    mx_address         String,
    reply_code         UInt16,
    enhanced_code      String,
    reply              String,
    tls                String,
    duration_ms        UInt32,
    possible_duplicate UInt8,
    size               UInt64,
    due_at             DateTime('UTC'),  -- 1970-01-01 00:00:00 where the event has none
    tags               Array(String),
    metadata_keys      Array(String),    -- metadata_values[indexOf(metadata_keys, 'order')]
    metadata_values    Array(String),
    latency_ms         Int64 ALIAS (toInt64(toUInt32(ts)) - toInt64(toUInt32(accepted_at))) * 1000 + toInt64(ts_ms) - toInt64(accepted_ms)
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMMDD(ts)
ORDER BY (toStartOfHour(ts), tenant, site, kind, ts, k_partition, k_offset)
SETTINGS index_granularity = 8192;
