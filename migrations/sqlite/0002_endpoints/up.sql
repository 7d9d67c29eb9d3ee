-- Registered receivers, the order of their deliveries, the health of lanes, the feed of events.

-- Fresh whenever endpoints or signing secrets of the application change, so that every node knows
-- whether what it remembers still holds. A random number: a count could come again after a
-- transaction that was undone.
ALTER TABLE applications ADD COLUMN version BIGINT NOT NULL DEFAULT 0;

-- The endpoint whose deliveries a secret signs; null for what belongs to the application.
ALTER TABLE credentials ADD COLUMN receiver_id BIGINT;
CREATE INDEX credentials_of_receiver ON credentials (receiver_id, kind) WHERE receiver_id IS NOT NULL;

-- Fresh at every change; callbacks never change.
ALTER TABLE receivers ADD COLUMN version BIGINT NOT NULL DEFAULT 0;
ALTER TABLE receivers ADD COLUMN description TEXT;
ALTER TABLE receivers ADD COLUMN types TEXT;
-- none, per-job or strict.
ALTER TABLE receivers ADD COLUMN ordering TEXT NOT NULL DEFAULT 'none';
-- standard, hex or ed25519.
ALTER TABLE receivers ADD COLUMN signature TEXT NOT NULL DEFAULT 'standard';
-- retry or final; null for the server's default.
ALTER TABLE receivers ADD COLUMN client_errors TEXT;
ALTER TABLE receivers ADD COLUMN updated_at BIGINT;
-- The first failure since the last success.
ALTER TABLE receivers ADD COLUMN failing_since BIGINT;
-- Backlog that is older was discarded.
ALTER TABLE receivers ADD COLUMN discard_before BIGINT NOT NULL DEFAULT 0;
-- The delivery that holds up a strict endpoint.
ALTER TABLE receivers ADD COLUMN blocked_by BIGINT;
-- 1 while its backlog has to be brought in line with its state.
ALTER TABLE receivers ADD COLUMN settling BIGINT NOT NULL DEFAULT 0;
CREATE INDEX receivers_endpoints ON receivers (application_id, id) WHERE kind = 'endpoint' AND deleted_at IS NULL;
CREATE INDEX receivers_settling ON receivers (id) WHERE settling = 1;
CREATE INDEX receivers_deleted ON receivers (id) WHERE deleted_at IS NOT NULL;

-- The receiver again when it is an endpoint, so that callbacks pay for no index.
ALTER TABLE deliveries ADD COLUMN endpoint_id BIGINT;
-- 0 event, 1 redelivery, 2 replay, 3 ping, 4 trigger: all but the first stand outside the order.
ALTER TABLE deliveries ADD COLUMN manner BIGINT NOT NULL DEFAULT 0;
CREATE INDEX deliveries_of_endpoint ON deliveries (endpoint_id, created_at, id) WHERE endpoint_id IS NOT NULL;

-- Phases: 0 waits for its time, 1 leased, 2 held since its endpoint is disabled, 3 just come to an
-- ordered endpoint, 4 behind another in the order, 5 exhausted and holding up a strict endpoint.
ALTER TABLE live_deliveries ADD COLUMN manner BIGINT NOT NULL DEFAULT 0;
-- What the order holds within: the subject's key, or 0 for the whole endpoint. Null: no order.
ALTER TABLE live_deliveries ADD COLUMN track BIGINT;
-- Place in the track; null until the event has its place in the feed.
ALTER TABLE live_deliveries ADD COLUMN rank BIGINT;
DROP INDEX live_deliveries_of_receiver;
CREATE INDEX live_deliveries_of_receiver ON live_deliveries (receiver_id, id);
CREATE INDEX live_deliveries_held ON live_deliveries (receiver_id, id) WHERE phase = 2;
CREATE INDEX live_deliveries_fresh ON live_deliveries (lane, id) WHERE phase = 3;
CREATE INDEX live_deliveries_ordered ON live_deliveries (lane, track, rank) WHERE rank IS NOT NULL;
CREATE INDEX live_deliveries_replayed ON live_deliveries (receiver_id) WHERE manner = 2;

-- What DNS answered: a JSON array of addresses.
ALTER TABLE attempts ADD COLUMN resolved TEXT;

-- Lanes in trouble: a row is there while nothing may be sent, or only one to see how it goes.
CREATE TABLE lanes (
    lane BIGINT NOT NULL PRIMARY KEY,
    not_before BIGINT NOT NULL,
    -- retry_after or failures.
    reason TEXT NOT NULL,
    -- How often in a row it was closed for failures.
    closings BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

-- The feed: what one transaction appended for one application, in the order of the appending.
-- A chunk gets its place after its commit, so that nothing ever comes in behind a reader.
CREATE TABLE feed_chunks (
    id INTEGER NOT NULL PRIMARY KEY,
    application_id BIGINT NOT NULL,
    -- Grows with every chunk, drawn while its subjects are held.
    drawn BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    -- How many events.
    size BIGINT NOT NULL,
    -- For each event its subject's key, its sequence and its type.
    members BLOB NOT NULL,
    -- 1 when deliveries wait for the places of these events.
    awaited BIGINT NOT NULL,
    -- Place of the first event among all of the application.
    position BIGINT
);
CREATE INDEX feed_chunks_by_position ON feed_chunks (application_id, position) WHERE position IS NOT NULL;
CREATE INDEX feed_chunks_by_time ON feed_chunks (application_id, created_at);
CREATE INDEX feed_chunks_unplaced ON feed_chunks (drawn) WHERE position IS NULL;
CREATE TABLE feed_heads (
    application_id INTEGER NOT NULL PRIMARY KEY,
    -- Places given so far.
    position BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES ('feed', 0);
ALTER TABLE events DROP COLUMN position;

-- How far a long job has come, written in the same transaction as what it did.
CREATE TABLE checkpoints (
    subject_id INTEGER NOT NULL PRIMARY KEY,
    state TEXT NOT NULL
);
