ALTER TABLE attempts RESET (fillfactor);
ALTER TABLE deliveries RESET (fillfactor);
DELETE FROM lanes WHERE reason = 'open';
ALTER TABLE lanes DROP COLUMN number;
ALTER TABLE nodes DROP COLUMN leaving;
ALTER TABLE nodes DROP COLUMN guarded;
