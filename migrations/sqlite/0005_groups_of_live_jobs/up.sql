-- The group of a live job stands in the row that whoever ends it holds: another job may just be
-- making a real one of its implicit group.
ALTER TABLE live_jobs ADD COLUMN group_id BIGINT;
UPDATE live_jobs SET group_id = (SELECT j.group_id FROM jobs j WHERE j.id = live_jobs.id);
