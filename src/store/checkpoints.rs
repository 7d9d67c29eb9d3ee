//! How far long jobs have come, written in the same transaction as what they did.

use diesel::QueryableByName;
use diesel::sql_types::Text;

use super::connection::Connection;
use super::error::StoreResult;
use super::statement::Statement;
use crate::ids::Key;

#[derive(QueryableByName)]
struct StateRow {
    #[diesel(sql_type = Text)]
    state: String,
}

/// What a job wrote last, held for this transaction.
pub fn hold(connection: &mut Connection, subject: Key) -> StoreResult<Option<String>> {
    let sql =
        format!("SELECT state FROM checkpoints WHERE subject_id = ?{}", connection.for_update());
    let row = connection.first::<StateRow>(Statement::new(sql).bind(subject))?;
    Ok(row.map(|row| row.state))
}

/// Writes how far a job has come.
pub fn put(connection: &mut Connection, subject: Key, state: &str) -> StoreResult<()> {
    let sql = "INSERT INTO checkpoints (subject_id, state) VALUES (?, ?) \
               ON CONFLICT (subject_id) DO UPDATE SET state = excluded.state";
    connection.execute(Statement::new(sql).bind(subject).bind(state))?;
    Ok(())
}
