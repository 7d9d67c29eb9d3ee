//! Rows on their way into one table, as values: what to insert, update or delete.
//!
//! The dialects turn them into one statement a row (SQLite, where a call costs nothing) or one
//! statement a batch (Postgres, where a round trip does). Must not know any table.

use super::statement::Cell;

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 64-bit integer.
    Int,
    /// Text.
    Text,
    /// Bytes.
    Bytes,
    /// Double.
    Real,
}

/// A column by name and type.
pub type Column = (&'static str, Kind);

/// Rows for one table. `cells` holds them one after the other, `columns.len()` cells each.
#[derive(Debug)]
pub struct Rows {
    /// Which table.
    pub table: &'static str,
    /// Columns in the order of the cells; for updates the keys first.
    pub columns: &'static [Column],
    /// How many leading columns name the row (updates and deletes).
    pub keys: usize,
    /// The values.
    pub cells: Vec<Cell>,
}

impl Rows {
    /// No rows yet; `columns` in the order in which `push` gets them.
    pub fn new(table: &'static str, columns: &'static [Column]) -> Rows {
        Rows { table, columns, keys: 0, cells: Vec::new() }
    }

    /// Rows that are found by their first `keys` columns.
    pub fn keyed(table: &'static str, keys: usize, columns: &'static [Column]) -> Rows {
        Rows { table, columns, keys, cells: Vec::new() }
    }

    /// Adds one row.
    pub fn push<const N: usize>(&mut self, row: [Cell; N]) {
        debug_assert_eq!(N, self.columns.len(), "{}", self.table);
        self.cells.extend(row);
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.cells.len() / self.columns.len().max(1)
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }
}

/// What to do when a row with that key is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnConflict {
    /// That is an error.
    Fail,
    /// Leave the old row.
    Skip,
}

/// What becomes of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// They are new.
    Insert(OnConflict),
    /// They are found by their keys and get their other columns.
    Update,
    /// They are found by their keys and go.
    Delete,
}

/// Rows and what becomes of them.
#[derive(Debug)]
pub struct Write {
    /// What.
    pub change: Change,
    /// Which.
    pub rows: Rows,
}
