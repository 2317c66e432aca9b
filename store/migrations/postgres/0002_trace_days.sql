-- The current day index of an organization's traces, one for each storage profile instance. segments: those that it covers.
CREATE TABLE trace_days (
  organization uuid NOT NULL,
  day integer NOT NULL,
  instance_num integer NOT NULL,
  bucket text NOT NULL,
  object_key text NOT NULL,
  bytes bigint NOT NULL,
  tail_bytes bigint NOT NULL,
  segments uuid[] NOT NULL,
  PRIMARY KEY (organization, day, instance_num)
);
CREATE INDEX trace_days_by_object_key ON trace_days (object_key);
