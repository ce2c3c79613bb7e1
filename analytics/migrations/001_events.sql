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
    k_partition        UInt16,               -- where the record stands in mail.events: its partition
    k_offset           UInt64,               -- and its offset there; both name the row
    ingested_at        DateTime('UTC'),      -- when the sink stored the row
    ts                 DateTime('UTC'),      -- when it happened, to the second (UTC)
    ts_ms              UInt16,               -- milliseconds of that second
    accepted_at        DateTime('UTC'),      -- when Kafka took the submission: the beginning of the message
    accepted_ms        UInt16,               -- milliseconds of that second
    message_id         String,               -- the message: one recipient of one submission; begins with the time of acceptance; empty for noted
    tenant             String,               -- whose mail it is
    submission_id      String,               -- the producer's id of the submission
    stream             Enum8('transactional' = 1, 'broadcast' = 2),  -- transactional or broadcast
    kind               Enum8('accepted' = 1, 'validated' = 2, 'scored' = 3, 'held' = 4, 'released' = 5, 'cleared' = 6,
                             'routed' = 7, 'scheduled' = 8, 'deferred' = 9, 'delivered' = 10, 'bounced' = 11,
                             'dropped' = 12, 'rejected' = 13, 'expired' = 14, 'cancelled' = 15, 'reported' = 16),  -- what happened
    round              UInt16,               -- how often it was routed anew after waiting; 0 at first
    attempt            UInt16,               -- number of the delivery attempt; 0 before the first
    recipient          String,               -- the address, or what the policy leaves of it (setting analytics_addresses)
    recipient_domain   String,               -- its domain, in A-labels and lower case
    stage              String,               -- which stage says it
    reason             String,               -- why, in a word (docs/reasons.md)
    rule               String,               -- the rule that decided
    detail             String,               -- more, in words
    site               String,               -- the receiving operator: hosts that are one site are one name
    pool               String,               -- egress pool
    source             String,               -- egress source: the address that mail left from
    mx_host            String,               -- the host that answered
    mx_address         String,               -- and its address
    reply_code         UInt16,               -- of SMTP (RFC 5321); 0: none
    enhanced_code      String,               -- of SMTP (RFC 3463); empty: none
    reply              String,               -- its text, up to 500 characters
    tls                String,               -- version and cipher; empty: in the clear
    duration_ms        UInt32,               -- of the attempt
    possible_duplicate UInt8,                -- 1: a crash may have given it to the receiver before
    size               UInt64,               -- of the mail, bytes
    due_at             DateTime('UTC'),  -- 1970-01-01 00:00:00 where the event has none
    tags               Array(String),        -- of the submission
    metadata_keys      Array(String),    -- metadata_values[indexOf(metadata_keys, 'order')]
    metadata_values    Array(String),        -- of the submission
    latency_ms         Int64 ALIAS (toInt64(toUInt32(ts)) - toInt64(toUInt32(accepted_at))) * 1000 + toInt64(ts_ms) - toInt64(accepted_ms)  -- from accepted to this event
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMMDD(ts)
ORDER BY (toStartOfHour(ts), tenant, site, kind, ts, k_partition, k_offset)
SETTINGS index_granularity = 8192;
