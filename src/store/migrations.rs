//! Migrations, embedded, run at start under a lock so that several starting servers are safe.

use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::connection::Connection;
use super::dialect::postgres::SETTINGS;
use super::error::{StoreError, StoreResult};

const SQLITE: EmbeddedMigrations = embed_migrations!("migrations/sqlite");
const POSTGRES: EmbeddedMigrations = embed_migrations!("migrations/postgres");

/// How often a migration that lost a race looks again.
const SQLITE_TRIES: u32 = 40;

/// Any number that nobody else in the database uses: the advisory lock of our migrations.
const LOCK: i64 = 0x7269_6e67_6261_636b;

/// A migration may wait for others, and may take long on a long history; its plans are those of
/// whole tables.
const UNHURRIED: &str = "SET lock_timeout = 0; SET statement_timeout = 0; SET enable_seqscan = on; \
                         SET enable_hashjoin = on; SET enable_mergejoin = on";

/// Brings the schema up to date; which migrations were run.
pub(super) fn run(connection: &mut Connection) -> StoreResult<Vec<String>> {
    let ran = match connection {
        Connection::Sqlite(sqlite) => {
            // Each migration is one transaction. When two processes start together, the slower one
            // fails, looks again and finds less to do.
            let mut tries = 0;
            loop {
                let ran = sqlite.run_pending_migrations(SQLITE).map(names);
                tries += 1;
                if ran.is_ok() || tries == SQLITE_TRIES {
                    break ran;
                }
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        }
        Connection::Postgres(postgres) => {
            use diesel::connection::SimpleConnection;
            let postgres = postgres.flushed()?;
            postgres.batch_execute(&format!("{UNHURRIED}; SELECT pg_advisory_lock({LOCK})"))?;
            let ran = postgres.run_pending_migrations(POSTGRES).map(names);
            postgres.batch_execute(&format!("SELECT pg_advisory_unlock({LOCK}); {SETTINGS}"))?;
            ran
        }
    };
    ran.map_err(|error| StoreError::Setup(format!("migrating the database failed: {error}")))
}

fn names(versions: Vec<diesel::migration::MigrationVersion<'_>>) -> Vec<String> {
    versions.iter().map(ToString::to_string).collect()
}

/// Whether every migration that this program knows has been run.
pub(super) fn current(connection: &mut Connection) -> StoreResult<bool> {
    let pending = match connection {
        Connection::Sqlite(sqlite) => sqlite.has_pending_migration(SQLITE),
        Connection::Postgres(postgres) => postgres.flushed()?.has_pending_migration(POSTGRES),
    };
    pending
        .map(|pending| !pending)
        .map_err(|error| StoreError::Setup(format!("reading the migrations failed: {error}")))
}
