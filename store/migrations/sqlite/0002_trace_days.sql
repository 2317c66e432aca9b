-- The current day index of an organization's traces, one for each storage profile instance. segments: the ids, 16 bytes each, of
-- those that it covers.
CREATE TABLE trace_days (
  organization BLOB NOT NULL,
  day INTEGER NOT NULL,
  instance_num INTEGER NOT NULL,
  bucket TEXT NOT NULL,
  object_key TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  tail_bytes INTEGER NOT NULL,
  segments BLOB NOT NULL,
  PRIMARY KEY (organization, day, instance_num)
) WITHOUT ROWID;
CREATE INDEX trace_days_by_object_key ON trace_days (object_key);
