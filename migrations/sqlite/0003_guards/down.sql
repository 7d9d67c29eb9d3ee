DROP INDEX live_deliveries_tried;
DROP INDEX deliveries_tried;
ALTER TABLE deliveries DROP COLUMN asked_at;
DROP INDEX live_deliveries_replayed;
CREATE INDEX live_deliveries_replayed ON live_deliveries (receiver_id) WHERE manner = 2;
DELETE FROM lanes WHERE reason = 'open';
ALTER TABLE lanes DROP COLUMN number;
ALTER TABLE nodes DROP COLUMN leaving;
ALTER TABLE nodes DROP COLUMN guarded;
