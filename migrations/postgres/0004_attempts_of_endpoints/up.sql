-- How an endpoint does is told by what was tried last: by the attempts themselves, whose time and
-- endpoint never change. An index on what changes at the end of a delivery made that end a new row
-- in every other index, too. Attempts of before keep none: only the last day is looked at, and a start
-- that had to rewrite a long history would keep everybody waiting.
ALTER TABLE attempts ADD COLUMN endpoint_id BIGINT;
CREATE INDEX attempts_of_endpoint ON attempts (endpoint_id, started_at)
    WHERE endpoint_id IS NOT NULL;
DROP INDEX deliveries_tried;
DROP INDEX live_deliveries_tried;

-- An attempt grows to four times its size when it is closed.
ALTER TABLE attempts SET (fillfactor = 25);
