-- How an endpoint does is told by what was tried last: by the attempts themselves, whose time and
-- endpoint never change. Only the last day is looked at.
ALTER TABLE attempts ADD COLUMN endpoint_id BIGINT;
UPDATE attempts SET endpoint_id =
    (SELECT d.endpoint_id FROM deliveries d WHERE d.id = attempts.delivery_id)
    WHERE started_at > (CAST(strftime('%s', 'now') AS INTEGER) - 86400) * 1000000;
CREATE INDEX attempts_of_endpoint ON attempts (endpoint_id, started_at)
    WHERE endpoint_id IS NOT NULL;
DROP INDEX deliveries_tried;
DROP INDEX live_deliveries_tried;
