-- Times are nanoseconds since 1970 in UTC. Identities are 16 bytes. A queue is action * 16 + signal.

CREATE TABLE organizations (
  id BLOB PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  created_at INTEGER NOT NULL,
  deleting INTEGER NOT NULL DEFAULT 0,
  retention_days_logs INTEGER,
  retention_days_metrics INTEGER,
  retention_days_traces INTEGER,
  ingest_bytes_per_second INTEGER
) WITHOUT ROWID;

CREATE TABLE api_keys (
  id TEXT PRIMARY KEY,
  hash BLOB NOT NULL UNIQUE,
  organization BLOB REFERENCES organizations (id) ON DELETE CASCADE,
  role TEXT NOT NULL,
  label TEXT NOT NULL,
  created_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX api_keys_by_organization ON api_keys (organization);

CREATE TABLE documents (
  name TEXT PRIMARY KEY,
  version INTEGER NOT NULL,
  body TEXT NOT NULL,
  stored_at INTEGER NOT NULL
) WITHOUT ROWID;

-- The ledger: hashes of inputs that were admitted, until they are forgotten.
CREATE TABLE identities (
  hash BLOB PRIMARY KEY,
  forget_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX identities_by_forget_at ON identities (forget_at);

-- Live work only: completing deletes. An ingest row is an inbox row and names its object.
CREATE TABLE work (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  queue INTEGER NOT NULL,
  organization BLOB NOT NULL,
  instance_num INTEGER NOT NULL,
  priority INTEGER NOT NULL,
  runnable_at INTEGER NOT NULL,
  token BLOB,
  size_bytes INTEGER NOT NULL,
  failures INTEGER NOT NULL DEFAULT 0,
  crashes INTEGER NOT NULL DEFAULT 0,
  crashes_alone INTEGER NOT NULL DEFAULT 0,
  crashes_with_living_holder INTEGER NOT NULL DEFAULT 0,
  bundle_limit INTEGER,
  created_at INTEGER NOT NULL,
  tier INTEGER NOT NULL DEFAULT 0,
  range_start INTEGER,
  range_end INTEGER,
  dedupe_key TEXT,
  again_at INTEGER,
  object_key TEXT,
  payload TEXT NOT NULL
);
CREATE INDEX work_claimable ON work (queue, priority, organization, runnable_at, id) WHERE token IS NULL;
CREATE INDEX work_due ON work (queue, runnable_at) WHERE token IS NULL;
CREATE INDEX work_by_token ON work (token) WHERE token IS NOT NULL;
CREATE UNIQUE INDEX work_by_dedupe_key ON work (queue, organization, dedupe_key) WHERE dedupe_key IS NOT NULL;
CREATE INDEX work_by_object_key ON work (object_key) WHERE object_key IS NOT NULL;
CREATE INDEX work_by_organization ON work (organization);

CREATE TABLE leases (
  token BLOB PRIMARY KEY,
  queue INTEGER NOT NULL,
  organization BLOB NOT NULL,
  instance_num INTEGER NOT NULL,
  items INTEGER NOT NULL,
  holder BLOB NOT NULL,
  worker TEXT NOT NULL,
  claimed_at INTEGER NOT NULL,
  extended_at INTEGER NOT NULL,
  lease_until INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX leases_by_lease_until ON leases (lease_until);
CREATE INDEX leases_by_holder ON leases (holder);

-- The last error of an item that is still in the queue.
CREATE TABLE work_errors (
  work INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  reason TEXT NOT NULL
);

CREATE TABLE dead_letters (
  id INTEGER PRIMARY KEY,
  queue INTEGER NOT NULL,
  organization BLOB NOT NULL,
  instance_num INTEGER NOT NULL,
  priority INTEGER NOT NULL,
  runnable_at INTEGER NOT NULL,
  size_bytes INTEGER NOT NULL,
  failures INTEGER NOT NULL,
  crashes INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  tier INTEGER NOT NULL,
  range_start INTEGER,
  range_end INTEGER,
  dedupe_key TEXT,
  object_key TEXT,
  payload TEXT NOT NULL,
  died_at INTEGER NOT NULL,
  reason TEXT NOT NULL
);
CREATE INDEX dead_letters_by_queue ON dead_letters (queue, id);
CREATE INDEX dead_letters_by_object_key ON dead_letters (object_key) WHERE object_key IS NOT NULL;
CREATE INDEX dead_letters_by_organization ON dead_letters (organization);

-- How leases end, by queue and day: tells an item that kills its worker from workers that are killed (Q-2).
CREATE TABLE lease_outcomes (
  queue INTEGER NOT NULL,
  day INTEGER NOT NULL,
  reported INTEGER NOT NULL DEFAULT 0,
  crashed INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (queue, day)
) WITHOUT ROWID;

CREATE TABLE refusals (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  organization BLOB,
  signal INTEGER,
  bucket TEXT NOT NULL,
  object_key TEXT NOT NULL,
  records_refused INTEGER NOT NULL,
  records_kept INTEGER NOT NULL,
  reason TEXT NOT NULL,
  at INTEGER NOT NULL
);
CREATE INDEX refusals_by_time ON refusals (at);

-- Live segments only.
CREATE TABLE segments (
  id BLOB PRIMARY KEY,
  added_seq INTEGER NOT NULL,
  organization BLOB NOT NULL,
  signal INTEGER NOT NULL,
  tier INTEGER NOT NULL,
  level INTEGER NOT NULL,
  day INTEGER NOT NULL,
  time_start INTEGER NOT NULL,
  time_end INTEGER NOT NULL,
  ingest_day INTEGER NOT NULL,
  rows INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  bucket TEXT NOT NULL,
  instance_num INTEGER NOT NULL,
  object_key TEXT NOT NULL,
  etag TEXT,
  footer_offset INTEGER NOT NULL,
  footer_len INTEGER NOT NULL,
  footer_hash BLOB NOT NULL,
  index_offset INTEGER NOT NULL,
  index_len INTEGER NOT NULL,
  services BLOB NOT NULL,
  covers_ingest_seq INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX segments_by_day ON segments (organization, signal, day, time_start);
CREATE INDEX segments_by_added_seq ON segments (added_seq);
CREATE INDEX segments_by_object_key ON segments (object_key);

CREATE TABLE removed_segments (
  seq INTEGER NOT NULL,
  id BLOB NOT NULL,
  removed_at INTEGER NOT NULL,
  PRIMARY KEY (seq, id)
) WITHOUT ROWID;
CREATE INDEX removed_segments_by_time ON removed_segments (removed_at);

CREATE TABLE hours (
  organization BLOB NOT NULL,
  signal INTEGER NOT NULL,
  hour INTEGER NOT NULL,
  ingest_seq INTEGER NOT NULL,
  changed_seq INTEGER NOT NULL,
  PRIMARY KEY (organization, signal, hour)
) WITHOUT ROWID;
CREATE INDEX hours_by_changed_seq ON hours (changed_seq);

-- One row. seq is raised by each change of the catalog, in commit order; the change log reaches back to log_floor.
CREATE TABLE catalog_state (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  seq INTEGER NOT NULL,
  log_floor INTEGER NOT NULL
);
INSERT INTO catalog_state (one, seq, log_floor) VALUES (1, 0, 0);

CREATE TABLE doomed_objects (
  bucket TEXT NOT NULL,
  object_key TEXT NOT NULL,
  organization BLOB,
  delete_at INTEGER NOT NULL,
  PRIMARY KEY (bucket, object_key)
) WITHOUT ROWID;
CREATE INDEX doomed_objects_by_time ON doomed_objects (delete_at);
CREATE INDEX doomed_objects_by_object_key ON doomed_objects (object_key);
CREATE INDEX doomed_objects_by_organization ON doomed_objects (organization) WHERE organization IS NOT NULL;

-- What KEDA triggers read. now() is a function of our connections. An item counts as claimed only while its lease lives.
CREATE VIEW inqueue AS
SELECT
  printf('00000000-0000-0000-0000-%012x', w.id) AS id,
  w.created_at AS queue_ts,
  -w.priority AS priority,
  uuid_text(w.organization) AS organization_id,
  w.payload ->> 'collector' AS collector_name,
  w.instance_num AS instance_num,
  w.payload ->> 'bucket' AS bucket,
  w.object_key AS object_id,
  CASE w.queue % 16 WHEN 1 THEN 'logs' WHEN 2 THEN 'metrics' ELSE 'traces' END AS telemetry_type,
  w.failures + w.crashes AS tries,
  CASE WHEN l.token IS NULL THEN -1 ELSE 1 END AS claimed_by,
  l.claimed_at AS claimed_at
FROM work w
LEFT JOIN leases l ON l.token = w.token AND l.lease_until > now()
WHERE w.queue / 16 = 1;

CREATE VIEW work_queue AS
SELECT
  w.id AS id,
  -w.priority AS priority,
  w.runnable_at AS runnable_at,
  uuid_text(w.organization) AS organization_id,
  w.instance_num AS instance_num,
  CAST(strftime('%Y%m%d', w.range_start / 1000000000, 'unixepoch') AS INTEGER) AS dateint,
  w.tier * 1000 AS frequency_ms,
  CASE w.queue % 16 WHEN 1 THEN 'logs' WHEN 2 THEN 'metrics' ELSE 'traces' END AS signal,
  CASE w.queue / 16 WHEN 2 THEN 'compact' WHEN 3 THEN 'rollup' ELSE 'job' END AS action,
  l.token IS NULL AS needs_run,
  w.failures + w.crashes AS tries,
  CASE WHEN w.range_start IS NOT NULL THEN printf('[%d,%d)', w.range_start, w.range_end) END AS ts_range,
  CASE WHEN l.token IS NULL THEN -1 ELSE 1 END AS claimed_by,
  l.claimed_at AS claimed_at,
  l.extended_at AS heartbeated_at
FROM work w
LEFT JOIN leases l ON l.token = w.token AND l.lease_until > now()
WHERE w.queue / 16 <> 1;
