-- Which messages something came back for after their end, and when: it may be weeks later, and tells a timeline how far to look.
-- A row for each event complained, late_bounce and reported of `events`, which has the rest; written by the sink with it.
CREATE TABLE IF NOT EXISTS feedback
(
    message_id         String,
    accepted_at        DateTime('UTC'),
    kind               Enum8('reported' = 16, 'complained' = 17, 'late_bounce' = 18),
    evidence           String,           -- id of the report
    at                 DateTime('UTC')   -- when it came
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(accepted_at)
ORDER BY (message_id, kind, evidence, at)
SETTINGS index_granularity = 8192;
