-- One schema in the common subset of both databases: numbers are 64-bit integers, times are
-- microseconds since the epoch, ids seen outside are 16 bytes, JSON is text. No triggers.

-- Blocks of row keys are drawn from here, so keys are known before a row is written.
CREATE TABLE counters (
    name TEXT NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES ('keys', 1);

-- What an installation must agree on, such as a value that only its master key opens.
CREATE TABLE installation (
    name TEXT NOT NULL PRIMARY KEY,
    value BYTEA NOT NULL
);

CREATE TABLE applications (
    id BIGINT NOT NULL PRIMARY KEY,
    public_id BYTEA NOT NULL UNIQUE,
    name TEXT NOT NULL,
    rate_per_second BIGINT,
    rate_burst BIGINT,
    created_at BIGINT NOT NULL,
    disabled_at BIGINT
);

CREATE TABLE credentials (
    id BIGINT NOT NULL PRIMARY KEY,
    public_id BYTEA NOT NULL UNIQUE,
    application_id BIGINT NOT NULL REFERENCES applications (id),
    kind TEXT NOT NULL,
    -- SHA-256 of an API key, in hex: keys themselves are never stored.
    lookup TEXT UNIQUE,
    -- Signing secrets, sealed under the master key.
    sealed BYTEA,
    scopes TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    last_used_at BIGINT,
    expires_at BIGINT,
    revoked_at BIGINT
);
CREATE INDEX credentials_of_application ON credentials (application_id, kind);

CREATE TABLE receivers (
    id BIGINT NOT NULL PRIMARY KEY,
    public_id BYTEA NOT NULL UNIQUE,
    application_id BIGINT NOT NULL,
    kind TEXT NOT NULL,
    -- Equal callbacks of one application share a row through this keyed digest of all they hold.
    digest TEXT NOT NULL,
    origin TEXT NOT NULL,
    -- What representations show: values of headers and credentials in the URL are masked.
    shown TEXT NOT NULL,
    -- The URL and the headers as they are sent, sealed under the master key.
    sealed BYTEA NOT NULL,
    format TEXT NOT NULL,
    events TEXT,
    schedule TEXT,
    lane BIGINT NOT NULL,
    rate_per_second DOUBLE PRECISION,
    rate_burst BIGINT,
    max_in_flight BIGINT,
    created_at BIGINT NOT NULL,
    -- Kept to the day, so that callbacks nobody uses any more can be purged.
    last_used_at BIGINT NOT NULL,
    disabled_at BIGINT,
    disabled_reason TEXT,
    deleted_at BIGINT,
    last_sequence BIGINT NOT NULL,
    UNIQUE (application_id, digest)
);

CREATE TABLE groups (
    id BIGINT NOT NULL PRIMARY KEY,
    public_id BYTEA NOT NULL UNIQUE,
    application_id BIGINT NOT NULL,
    receiver_id BIGINT,
    sealed BIGINT NOT NULL,
    completed_at BIGINT,
    total BIGINT NOT NULL,
    success BIGINT NOT NULL,
    error BIGINT NOT NULL,
    stopped BIGINT NOT NULL,
    last_sequence BIGINT NOT NULL,
    request_id TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

-- A job's row is written twice: when it is accepted and when it ends. What changes in between
-- stands in live_jobs; what was asked stands in event 1.
CREATE TABLE jobs (
    id BIGINT NOT NULL PRIMARY KEY,
    public_id BYTEA NOT NULL UNIQUE,
    application_id BIGINT NOT NULL,
    -- Null for a job alone in its implicit group, whose id is the job's own.
    group_id BIGINT,
    type TEXT NOT NULL,
    receiver_id BIGINT,
    parent_id BIGINT,
    created_at BIGINT NOT NULL,
    -- Null while the job is live.
    status BIGINT,
    updated_at BIGINT,
    attempt BIGINT,
    lost_nodes BIGINT,
    token BIGINT,
    last_sequence BIGINT,
    progress DOUBLE PRECISION,
    started_at BIGINT,
    completed_at BIGINT,
    result TEXT,
    failure_code TEXT,
    failure_detail TEXT,
    run_at BIGINT,
    deleted_at BIGINT
);
CREATE INDEX jobs_by_creation ON jobs (application_id, created_at, id);
CREATE INDEX jobs_by_update ON jobs (application_id, updated_at, id) WHERE updated_at IS NOT NULL;
CREATE INDEX jobs_of_group ON jobs (group_id, created_at, id) WHERE group_id IS NOT NULL;

-- Live work only: a row lives from submission to the end of the job.
CREATE TABLE live_jobs (
    id BIGINT NOT NULL PRIMARY KEY,
    application_id BIGINT NOT NULL,
    queue TEXT NOT NULL,
    priority BIGINT NOT NULL,
    -- 0 waits for its time, 1 ready, 2 leased.
    phase BIGINT NOT NULL,
    -- Fresh at every return to the queue, so that the claim order only grows.
    ready_sequence BIGINT NOT NULL,
    run_at BIGINT NOT NULL,
    expires_at BIGINT,
    status BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    max_attempts BIGINT NOT NULL,
    lost_nodes BIGINT NOT NULL,
    token BIGINT NOT NULL,
    node_id BIGINT,
    last_sequence BIGINT NOT NULL,
    progress DOUBLE PRECISION NOT NULL,
    announced_progress DOUBLE PRECISION NOT NULL,
    announced_at BIGINT NOT NULL,
    started_at BIGINT,
    updated_at BIGINT NOT NULL,
    failure_code TEXT,
    failure_detail TEXT
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX live_jobs_ready ON live_jobs (queue, priority DESC, ready_sequence) WHERE phase = 1;
CREATE INDEX live_jobs_waiting ON live_jobs (run_at, id) WHERE phase = 0;
CREATE INDEX live_jobs_leased ON live_jobs (node_id, id) WHERE phase = 2;
CREATE INDEX live_jobs_expiring ON live_jobs (expires_at, id) WHERE expires_at IS NOT NULL AND phase < 2;
CREATE INDEX live_jobs_by_update ON live_jobs (application_id, updated_at, id);

CREATE TABLE job_files (
    job_id BIGINT NOT NULL,
    -- 0 source, 1 output.
    role BIGINT NOT NULL,
    ordinal BIGINT NOT NULL,
    application_id BIGINT NOT NULL,
    path TEXT NOT NULL,
    file_id BYTEA NOT NULL,
    version_id BYTEA,
    PRIMARY KEY (job_id, role, ordinal)
);
CREATE INDEX job_files_by_path ON job_files (application_id, path, job_id);
CREATE INDEX job_files_by_file ON job_files (application_id, file_id, job_id);
CREATE INDEX job_files_by_version ON job_files (version_id) WHERE version_id IS NOT NULL;

-- Secret values that a submission held, sealed under the master key.
CREATE TABLE sealed_values (
    subject_id BIGINT NOT NULL PRIMARY KEY,
    sealed BYTEA NOT NULL
);

CREATE TABLE events (
    subject_id BIGINT NOT NULL,
    sequence BIGINT NOT NULL,
    public_id BYTEA NOT NULL,
    subject_kind TEXT NOT NULL,
    application_id BIGINT NOT NULL,
    type TEXT NOT NULL,
    at BIGINT NOT NULL,
    data TEXT NOT NULL,
    -- Place in the feed of all events; given by a relay after commit.
    position BIGINT,
    PRIMARY KEY (subject_id, sequence)
);

-- One rendering of an event for all receivers of a format.
CREATE TABLE bodies (
    subject_id BIGINT NOT NULL,
    sequence BIGINT NOT NULL,
    format TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (subject_id, sequence, format)
);

CREATE TABLE deliveries (
    id BIGINT NOT NULL PRIMARY KEY,
    public_id BYTEA NOT NULL UNIQUE,
    application_id BIGINT NOT NULL,
    receiver_id BIGINT NOT NULL,
    subject_id BIGINT NOT NULL,
    sequence BIGINT NOT NULL,
    event_id BYTEA NOT NULL,
    event_type TEXT NOT NULL,
    -- 0 live, 1 delivered, 2 exhausted, 3 refused, 4 cancelled.
    status BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    -- Last lease, so that a redelivery goes on counting.
    token BIGINT NOT NULL,
    reason TEXT,
    request_id TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    completed_at BIGINT,
    UNIQUE (subject_id, sequence, receiver_id)
);
CREATE INDEX deliveries_by_creation ON deliveries (application_id, created_at, id);

-- Deliveries that are still owed.
CREATE TABLE live_deliveries (
    id BIGINT NOT NULL PRIMARY KEY,
    lane BIGINT NOT NULL,
    receiver_id BIGINT NOT NULL,
    -- 0 waits for its time, 1 leased.
    phase BIGINT NOT NULL,
    due_at BIGINT NOT NULL,
    token BIGINT NOT NULL,
    node_id BIGINT,
    attempts BIGINT NOT NULL,
    -- Tries since the schedule (re)started.
    tries BIGINT NOT NULL,
    previous_failure TEXT
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX live_deliveries_due ON live_deliveries (lane, due_at, id) WHERE phase = 0;
CREATE INDEX live_deliveries_leased ON live_deliveries (node_id, id) WHERE phase = 1;
CREATE INDEX live_deliveries_of_receiver ON live_deliveries (receiver_id);

CREATE TABLE attempts (
    delivery_id BIGINT NOT NULL,
    number BIGINT NOT NULL,
    started_at BIGINT NOT NULL,
    -- started, delivered, failed, refused, unknown
    outcome TEXT NOT NULL,
    finished_at BIGINT,
    duration_ms BIGINT,
    response_status BIGINT,
    response_headers TEXT,
    response_body TEXT,
    error_code TEXT,
    error_detail TEXT,
    address TEXT,
    timings TEXT,
    PRIMARY KEY (delivery_id, number)
);

CREATE TABLE idempotency (
    application_id BIGINT NOT NULL,
    key TEXT NOT NULL,
    hash TEXT NOT NULL,
    -- job or group: what the answer is rendered from.
    subject_kind TEXT NOT NULL,
    subject_id BYTEA NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (application_id, key)
);
CREATE INDEX idempotency_expiry ON idempotency (expires_at);

CREATE TABLE files (
    id BIGINT NOT NULL PRIMARY KEY,
    public_id BYTEA NOT NULL UNIQUE,
    application_id BIGINT NOT NULL,
    path TEXT NOT NULL,
    version_id BYTEA NOT NULL,
    last_sequence BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE UNIQUE INDEX files_by_path ON files (application_id, path) WHERE deleted_at IS NULL;
CREATE INDEX files_deleted ON files (id) WHERE deleted_at IS NOT NULL;

CREATE TABLE file_versions (
    -- Also the key of the bytes.
    id BYTEA NOT NULL PRIMARY KEY,
    file_id BIGINT NOT NULL,
    size BIGINT NOT NULL,
    sha256 TEXT NOT NULL,
    media_type TEXT NOT NULL,
    acl TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    -- Set when another version or a deletion took its place; swept when no live job reads it.
    superseded_at BIGINT
);
CREATE INDEX file_versions_superseded ON file_versions (superseded_at) WHERE superseded_at IS NOT NULL;
CREATE INDEX file_versions_of_file ON file_versions (file_id);

-- Things that only one face knows.
CREATE TABLE resources (
    id BIGINT NOT NULL PRIMARY KEY,
    public_id BYTEA NOT NULL UNIQUE,
    application_id BIGINT NOT NULL,
    face TEXT NOT NULL,
    kind TEXT NOT NULL,
    number BIGINT,
    name TEXT,
    body TEXT NOT NULL,
    version BIGINT NOT NULL,
    last_sequence BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT,
    UNIQUE (application_id, face, kind, number)
);

-- Processes that are alive; a lease of a job or a delivery lasts as long as its node's row.
CREATE TABLE nodes (
    id BIGINT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);

-- Who sends for which lanes. The epoch grows with every change of owner.
CREATE TABLE shards (
    shard BIGINT NOT NULL PRIMARY KEY,
    node_id BIGINT,
    epoch BIGINT NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);

-- What is left of a subject that was purged.
CREATE TABLE purges (
    subject_kind TEXT NOT NULL,
    public_id BYTEA NOT NULL,
    application_id BIGINT NOT NULL,
    reason TEXT NOT NULL,
    purged_at BIGINT NOT NULL,
    PRIMARY KEY (subject_kind, public_id)
);

INSERT INTO shards (shard, node_id, epoch) VALUES (0, NULL, 0),
    (1, NULL, 0),
    (2, NULL, 0),
    (3, NULL, 0),
    (4, NULL, 0),
    (5, NULL, 0),
    (6, NULL, 0),
    (7, NULL, 0),
    (8, NULL, 0),
    (9, NULL, 0),
    (10, NULL, 0),
    (11, NULL, 0),
    (12, NULL, 0),
    (13, NULL, 0),
    (14, NULL, 0),
    (15, NULL, 0),
    (16, NULL, 0),
    (17, NULL, 0),
    (18, NULL, 0),
    (19, NULL, 0),
    (20, NULL, 0),
    (21, NULL, 0),
    (22, NULL, 0),
    (23, NULL, 0),
    (24, NULL, 0),
    (25, NULL, 0),
    (26, NULL, 0),
    (27, NULL, 0),
    (28, NULL, 0),
    (29, NULL, 0),
    (30, NULL, 0),
    (31, NULL, 0),
    (32, NULL, 0),
    (33, NULL, 0),
    (34, NULL, 0),
    (35, NULL, 0),
    (36, NULL, 0),
    (37, NULL, 0),
    (38, NULL, 0),
    (39, NULL, 0),
    (40, NULL, 0),
    (41, NULL, 0),
    (42, NULL, 0),
    (43, NULL, 0),
    (44, NULL, 0),
    (45, NULL, 0),
    (46, NULL, 0),
    (47, NULL, 0),
    (48, NULL, 0),
    (49, NULL, 0),
    (50, NULL, 0),
    (51, NULL, 0),
    (52, NULL, 0),
    (53, NULL, 0),
    (54, NULL, 0),
    (55, NULL, 0),
    (56, NULL, 0),
    (57, NULL, 0),
    (58, NULL, 0),
    (59, NULL, 0),
    (60, NULL, 0),
    (61, NULL, 0),
    (62, NULL, 0),
    (63, NULL, 0);
