ALTER TABLE attempts SET (fillfactor = 70);
CREATE INDEX live_deliveries_tried ON live_deliveries (receiver_id, id)
    WHERE previous_failure IS NOT NULL OR (attempts > 0 AND manner IN (1, 2));
CREATE INDEX deliveries_tried ON deliveries (endpoint_id, completed_at)
    WHERE endpoint_id IS NOT NULL AND completed_at IS NOT NULL AND attempts > 0;
DROP INDEX attempts_of_endpoint;
ALTER TABLE attempts DROP COLUMN endpoint_id;
