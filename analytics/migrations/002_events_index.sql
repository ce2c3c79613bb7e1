-- requires: 22.8
-- Physical only, no query changes: a message's timeline without its time reads the granules that may hold it, not all.
ALTER TABLE events ADD INDEX IF NOT EXISTS message_id_bloom message_id TYPE bloom_filter(0.01) GRANULARITY 1;
ALTER TABLE events MODIFY COLUMN stage LowCardinality(String);
ALTER TABLE events MODIFY COLUMN reason LowCardinality(String);
ALTER TABLE events MODIFY COLUMN rule LowCardinality(String);
ALTER TABLE events MODIFY COLUMN pool LowCardinality(String);
ALTER TABLE events MODIFY COLUMN source LowCardinality(String);
ALTER TABLE events MODIFY COLUMN mx_host LowCardinality(String);
ALTER TABLE events MODIFY COLUMN tls LowCardinality(String);
ALTER TABLE events MODIFY COLUMN enhanced_code LowCardinality(String);
