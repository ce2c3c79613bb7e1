-- What comes back after an end: complaints, and bounces after the 250; and events about no message (noted: message_id is empty).
ALTER TABLE events MODIFY COLUMN kind Enum8('accepted' = 1, 'validated' = 2, 'scored' = 3, 'held' = 4, 'released' = 5, 'cleared' = 6, 'routed' = 7, 'scheduled' = 8, 'deferred' = 9, 'delivered' = 10, 'bounced' = 11, 'dropped' = 12, 'rejected' = 13, 'expired' = 14, 'cancelled' = 15, 'reported' = 16, 'complained' = 17, 'late_bounce' = 18, 'noted' = 19);
-- What it says of the recipient's address (hard, soft, undetermined), and the report, message or attempt that it rests on.
ALTER TABLE events ADD COLUMN bounce_class String AFTER phase_ms;  -- what a bounce says of the address: hard, soft, undetermined; empty: no bounce
ALTER TABLE events ADD COLUMN evidence String AFTER bounce_class;  -- what it rests on: id of the report, message or attempt
