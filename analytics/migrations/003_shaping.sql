-- What each attempt was made under (version of the shaping policy), and where its time went: phase_ms[indexOf(phases, 'rcpt')].
ALTER TABLE events ADD COLUMN shaping String AFTER due_at;
ALTER TABLE events ADD COLUMN phases Array(String) AFTER shaping;
ALTER TABLE events ADD COLUMN phase_ms Array(UInt32) AFTER phases;
