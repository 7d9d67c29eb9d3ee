//! A write that Postgres does not answer, for as long as a test wants: no limit of time ends
//! its wait.

use std::time::Duration;

use ringback::store::Connection;

use super::database::Database;
use super::wait::eventually;

const PATIENCE: Duration = Duration::from_secs(60);

/// Updates hang until this is dropped.
pub struct Stall {
    connection: Connection,
}

impl Stall {
    /// Updates of a table's rows for which this holds, in terms of `OLD` and `NEW`.
    pub fn of_updates(database: &Database, table: &str, condition: &str) -> Stall {
        let mut connection = database.connect();
        let sql = format!(
            "SELECT pg_advisory_lock(7, 7); \
             CREATE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
               LOOP \
                 BEGIN PERFORM pg_advisory_xact_lock_shared(7, 7); RETURN NEW; \
                 EXCEPTION WHEN query_canceled OR lock_not_available THEN NULL; END; \
               END LOOP; END $$; \
             CREATE TRIGGER stall BEFORE UPDATE ON {table} FOR EACH ROW WHEN ({condition}) \
               EXECUTE FUNCTION stall()"
        );
        connection.batch(&sql).expect("SQL");
        Stall { connection }
    }

    /// Waits until an update hangs.
    #[track_caller]
    pub fn wait_for_one(&mut self) {
        eventually("an update hangs", PATIENCE, || {
            let sql = "DO $$ BEGIN PERFORM 1 FROM pg_stat_activity WHERE wait_event = 'advisory' \
                       AND datname = current_database(); ASSERT FOUND; END $$";
            self.connection.batch(sql).ok()
        });
    }
}
