//! A connection to Postgres, and writes that go to it together.
//!
//! Every statement is a round trip, and in a quiet hour a transaction writes a row to each of half a
//! dozen tables. Such rows wait until something else is run that may ask for them, or the transaction
//! ends, and go as one statement then. Must not know any table.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use diesel::RunQueryDsl;
use diesel::pg::PgConnection;

use super::postgres::{is_plain, written};
use crate::store::error::StoreResult;
use crate::store::rows::Write;
use crate::store::statement::{Cell, Statement};

/// An open connection to Postgres.
pub struct Postgres {
    connection: PgConnection,
    pending: Vec<Write>,
    /// Inside a transaction whose end is told here.
    may_wait: bool,
    /// Hashes of the joined texts that were sent: each is kept prepared.
    joined: HashSet<u64>,
}

/// Joined texts of a connection at most. Which tables come together depends on what comes together;
/// the usual ones are there soon.
const MOST_JOINED: usize = 64;

impl Postgres {
    pub(in crate::store) fn new(connection: PgConnection) -> Postgres {
        Postgres { connection, pending: Vec::new(), may_wait: false, joined: HashSet::new() }
    }

    /// Writes with the next statement, if it is plain: to many rows it makes no difference. Parts of
    /// one statement do not see what the others write, so a table stands in it once.
    pub(in crate::store) fn write(&mut self, write: Write) -> StoreResult<()> {
        if !self.may_wait || !is_plain(&write) {
            return self.write_now(write).map(|_| ());
        }
        self.flush_before(write.rows.table)?;
        self.pending.push(write);
        Ok(())
    }

    /// For what is read of one table alone: what was written of that is there.
    pub(in crate::store) fn flushed_before(
        &mut self,
        table: &str,
    ) -> StoreResult<&mut PgConnection> {
        self.flush_before(table)?;
        Ok(&mut self.connection)
    }

    fn flush_before(&mut self, table: &str) -> StoreResult<()> {
        match self.pending.iter().any(|waiting| waiting.rows.table == table) {
            true => self.flush(),
            false => Ok(()),
        }
    }

    /// Writes now; how many rows were changed.
    pub(in crate::store) fn write_now(&mut self, write: Write) -> StoreResult<usize> {
        let (text, cells) = written(write);
        Ok(Statement::with(text, cells).execute(self.flushed()?)?)
    }

    /// For whatever else is run: all that was written is there.
    pub(in crate::store) fn flushed(&mut self) -> StoreResult<&mut PgConnection> {
        self.flush()?;
        Ok(&mut self.connection)
    }

    /// Sends what waits.
    pub(in crate::store) fn flush(&mut self) -> StoreResult<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let writes = std::mem::take(&mut self.pending);
        let mut shape = DefaultHasher::new();
        for Write { change, rows } in &writes {
            (change, rows.table, rows.len()).hash(&mut shape);
            rows.columns.iter().for_each(|(name, _)| name.hash(&mut shape));
        }
        let may_join = self.joined.len() < MOST_JOINED;
        if may_join || self.joined.contains(&shape.finish()) {
            self.joined.insert(shape.finish());
            if let Some(statement) = joined(writes) {
                statement.execute(&mut self.connection)?;
            }
            return Ok(());
        }
        for write in writes {
            let (text, cells) = written(write);
            Statement::with(text, cells).execute(&mut self.connection)?;
        }
        Ok(())
    }

    /// A transaction has begun: from here on writes may wait.
    pub(in crate::store) fn begun(&mut self) {
        self.may_wait = true;
    }

    /// It has ended, or is about to be undone: what still waits is given up.
    pub(in crate::store) fn ended(&mut self) {
        self.pending.clear();
        self.may_wait = false;
    }
}

/// One statement of several writes. Postgres runs the main part first and the parts before it from the
/// last to the first, so they stand there backwards: rows are locked in the order of the writes.
fn joined(writes: Vec<Write>) -> Option<Statement> {
    let mut parts: Vec<(String, Vec<Cell>)> = writes.into_iter().map(written).collect();
    if parts.is_empty() {
        return None;
    }
    let (main, last) = parts.remove(0);
    let mut text = String::new();
    let mut cells = Vec::new();
    for (place, (part, values)) in parts.into_iter().enumerate().rev() {
        let before = if text.is_empty() { "WITH" } else { "," };
        text.push_str(&format!("{before} part_{place} AS ({part}) "));
        cells.extend(values);
    }
    text.push_str(&main);
    cells.extend(last);
    Some(Statement::with(text, cells))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::rows::{Change, Kind, OnConflict, Rows};

    fn rows(table: &'static str, key: i64) -> Rows {
        let mut rows = Rows::keyed(table, 1, &[("id", Kind::Int)]);
        rows.push([key.into()]);
        rows
    }

    #[test]
    fn writes_are_joined_so_that_they_run_in_their_order() {
        let insert = Write { change: Change::Insert(OnConflict::Fail), rows: rows("one", 1) };
        let second = Write { change: Change::Delete, rows: rows("two", 2) };
        let third = Write { change: Change::Delete, rows: rows("three", 3) };
        let Some(statement) = joined(vec![insert, second, third]) else { panic!("no statement") };
        let (text, cells) = statement.parts();
        let place = |table: &str| text.find(table).unwrap_or_else(|| panic!("{table}: {text}"));
        assert!(place("FROM three") < place("FROM two") && place("FROM two") < place("INTO one"));
        assert!(text.starts_with("WITH part_1 AS (DELETE FROM three"), "{text}");
        let given = |key: i64| Cell::Int(Some(key));
        assert_eq!(cells, [given(3), given(2), given(1)], "values stand as their parts do");
        assert!(joined(Vec::new()).is_none());
    }

    #[test]
    fn few_rows_go_as_they_are_and_many_as_columns() {
        const COLUMNS: &[(&str, Kind)] = &[("id", Kind::Int), ("name", Kind::Text)];
        let write = |change, count: i64| {
            let mut rows = Rows::keyed("one", 1, COLUMNS);
            (1..=count).for_each(|key| rows.push([key.into(), "x".into()]));
            written(Write { change, rows })
        };
        let (text, cells) = write(Change::Insert(OnConflict::Skip), 2);
        assert_eq!(text, "INSERT INTO one (id, name) VALUES (?, ?), (?, ?) ON CONFLICT DO NOTHING");
        assert_eq!(cells.len(), 4);
        let (text, cells) = write(Change::Update, 1);
        assert_eq!(text, "UPDATE one SET name = ? WHERE id = ?");
        assert_eq!(cells, [Cell::from("x"), Cell::from(1)], "keys stand behind the values");
        for (change, count) in [(Change::Insert(OnConflict::Fail), 3), (Change::Update, 2)] {
            let (text, cells) = write(change, count);
            assert!(text.contains("UNNEST"), "{text}");
            assert_eq!(cells.len(), 2, "two columns");
        }
    }
}
