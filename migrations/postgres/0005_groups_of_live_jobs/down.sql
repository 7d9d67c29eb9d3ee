ALTER TABLE live_jobs DROP COLUMN group_id;
