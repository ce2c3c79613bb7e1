-- The one rollup: what happened in each hour, by tenant, stream, site, source, kind and reason; days, and usage for billing, are sums of it.
-- Cells are recomputed whole from events about once a minute (analytics/rollups.py) and only grow: a cell may be there several times,
-- and the row with the most places is right. FINAL takes that one. A repeat of an event (see 001) counts once in its hour.
CREATE TABLE IF NOT EXISTS hours
(
    hour               DateTime('UTC'),  -- its first second
    tenant             String,
    stream             Enum8('transactional' = 1, 'broadcast' = 2),
    site               String,
    source             String,
    kind               Enum8('accepted' = 1, 'validated' = 2, 'scored' = 3, 'held' = 4, 'released' = 5, 'cleared' = 6,
                             'routed' = 7, 'scheduled' = 8, 'deferred' = 9, 'delivered' = 10, 'bounced' = 11,
                             'dropped' = 12, 'rejected' = 13, 'expired' = 14, 'cancelled' = 15, 'reported' = 16,
                             'complained' = 17, 'late_bounce' = 18, 'noted' = 19),
    reason             String,
    tried              UInt8,            -- 1: by a delivery attempt, 0: before the first
    places             UInt64,           -- records of mail.events in the cell, repeats included: its version
    events             UInt64,           -- distinct events
    messages           UInt64,           -- distinct messages; one that was deferred in two hours is in both
    bytes              UInt64,           -- sizes of the messages, once for each event
    latency_bins       Array(UInt16),    -- of delivered: ms from accepted, in bins (analytics/rollups.py), sorted
    latency_counts     Array(UInt32)     -- events in each of these bins
)
ENGINE = ReplacingMergeTree(places)
PARTITION BY toYYYYMM(hour)
ORDER BY (hour, tenant, site, kind, source, stream, reason, tried)
SETTINGS index_granularity = 8192;
