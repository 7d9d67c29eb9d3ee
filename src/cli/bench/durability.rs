//! Whether the database really waits for its disk. Figures without that are worth nothing.
//!
//! A connection is opened as the server opens its own. Loose values cannot be read through the
//! store, so each statement is written to fail when a setting is not what it must be.

use anyhow::Context as _;

use crate::store::{Backend, Connection, Location};

const SQLITE: &str = "SELECT CASE (SELECT synchronous FROM pragma_synchronous)
    WHEN 2 THEN 1 WHEN 3 THEN 1 ELSE abs(-9223372036854775807 - 1) END";

const POSTGRES: &str = "DO $$ BEGIN
    IF current_setting('fsync') <> 'on' THEN RAISE EXCEPTION 'fsync is off'; END IF;
    IF current_setting('synchronous_commit') <> 'on'
        THEN RAISE EXCEPTION 'synchronous_commit is not on'; END IF;
    IF current_setting('full_page_writes') <> 'on'
        THEN RAISE EXCEPTION 'full_page_writes is off'; END IF;
END $$";

/// An error when a commit may return before it is on disk.
pub(super) fn check(url: &str) -> anyhow::Result<()> {
    let location = Location::parse(url)?;
    let mut connection = Connection::open(&location)?;
    let sql = match location.backend {
        Backend::Sqlite => SQLITE,
        Backend::Postgres => POSTGRES,
    };
    connection.batch(sql).context("the database does not wait for its disk")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_of_ours_waits_for_its_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        check(&format!("sqlite://{}", path.display())).unwrap();
    }

    #[test]
    fn one_that_does_not_is_found_out() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("a.db").display());
        let mut connection = Connection::open(&Location::parse(&url).unwrap()).unwrap();
        connection.batch("PRAGMA synchronous = NORMAL").unwrap();
        connection.batch(SQLITE).unwrap_err();
    }
}
