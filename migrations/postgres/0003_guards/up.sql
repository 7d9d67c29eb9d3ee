-- Whether a node holds a lock on a session of its own, whose end tells the others that it is gone;
-- and whether it is about to leave and wants no lanes any more.
ALTER TABLE nodes ADD COLUMN guarded BIGINT NOT NULL DEFAULT 0;
ALTER TABLE nodes ADD COLUMN leaving BIGINT NOT NULL DEFAULT 0;

-- Grows with every change of a lane: changes may be committed in another order than they happened.
-- Reasons: retry_after, failures, and open for a lane that works again.
ALTER TABLE lanes ADD COLUMN number BIGINT NOT NULL DEFAULT 0;

-- Room in each page for the end of what stands there: a row that is changed within its page needs
-- no new entry in any index.
ALTER TABLE deliveries SET (fillfactor = 70);
ALTER TABLE attempts SET (fillfactor = 70);

-- What a replay waits for is what nobody has tried yet; what is tried again may be much more.
DROP INDEX live_deliveries_replayed;
CREATE INDEX live_deliveries_replayed ON live_deliveries (receiver_id) WHERE manner = 2 AND tries = 0;

-- When somebody asked for an ended delivery again: it was owed anew then.
ALTER TABLE deliveries ADD COLUMN asked_at BIGINT;

-- Of indexes that look alike on a table that was empty when it was analysed Postgres takes the newest.
-- Most statements look for keys, and the others end with the key as well.
ALTER TABLE live_jobs DROP CONSTRAINT live_jobs_pkey, ADD PRIMARY KEY (id);
ALTER TABLE live_deliveries DROP CONSTRAINT live_deliveries_pkey, ADD PRIMARY KEY (id);

-- How an endpoint does is told by what was tried last, however much waits that nobody has tried.
CREATE INDEX deliveries_tried ON deliveries (endpoint_id, completed_at)
    WHERE endpoint_id IS NOT NULL AND completed_at IS NOT NULL AND attempts > 0;
CREATE INDEX live_deliveries_tried ON live_deliveries (receiver_id, id)
    WHERE previous_failure IS NOT NULL OR (attempts > 0 AND manner IN (1, 2));
