-- What each attempt was made under (version of the shaping policy), and where its time went: phase_ms[indexOf(phases, 'rcpt')].
ALTER TABLE events ADD COLUMN shaping String AFTER due_at;  -- version of the shaping policy that the attempt was made under
ALTER TABLE events ADD COLUMN phases Array(String) AFTER shaping;  -- names of the attempt's phases
ALTER TABLE events ADD COLUMN phase_ms Array(UInt32) AFTER phases;  -- and how long each took, ms: phase_ms[indexOf(phases, 'rcpt')]
