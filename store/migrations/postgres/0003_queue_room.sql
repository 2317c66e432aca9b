-- A claim writes a second version of each of its rows. A page that is filled to less than half has room for all of them, so that
-- no index is written (measured: a claim of 500 takes two thirds of the time, and the table is no larger in the end).
ALTER TABLE work SET (fillfactor = 45);

-- One scan of the queue tells all places; nothing calls this any more.
DROP FUNCTION claimable_organizations(smallint, integer);

-- How far the claims of each place in a queue have come, as hints for processes that begin: before a mark stand mostly index entries
-- of deleted rows, which vacuum cannot remove while an old snapshot needs them.
CREATE TABLE queue_marks (
  queue smallint NOT NULL,
  priority smallint NOT NULL,
  organization uuid NOT NULL,
  runnable_at bigint NOT NULL,
  id bigint NOT NULL,
  PRIMARY KEY (queue, priority, organization)
) WITH (fillfactor = 50);
