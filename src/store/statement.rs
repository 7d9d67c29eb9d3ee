//! Hand-written statements whose prepared form is kept by the connection.
//!
//! Diesel does not cache `sql_query`, and a queue lives on a few dozen hot statements, so this
//! fragment carries SQL text with `?` for every value and leaves itself cacheable. The text must
//! hold no `?` outside of placeholders. Must not know which statements there are.

use std::sync::Arc;

use diesel::backend::Backend;
use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::query_dsl::RunQueryDsl;
use diesel::result::QueryResult;
use diesel::sql_types::{Array, BigInt, Binary, Double, HasSqlType, Nullable, Text, Untyped};
use diesel::sqlite::Sqlite;

/// One value on its way into the database.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Numbers, times, flags.
    Int(Option<i64>),
    /// Text and JSON.
    Text(Option<String>),
    /// Ids and sealed values.
    Bytes(Option<Vec<u8>>),
    /// Fractions.
    Real(Option<f64>),
    /// A whole column; Postgres only.
    Ints(Vec<Option<i64>>),
    /// A whole column; Postgres only.
    Texts(Vec<Option<String>>),
    /// A whole column; Postgres only.
    Blobs(Vec<Option<Vec<u8>>>),
    /// A whole column; Postgres only.
    Reals(Vec<Option<f64>>),
}

impl From<i64> for Cell {
    fn from(value: i64) -> Cell {
        Cell::Int(Some(value))
    }
}
impl From<Option<i64>> for Cell {
    fn from(value: Option<i64>) -> Cell {
        Cell::Int(value)
    }
}
impl From<bool> for Cell {
    fn from(value: bool) -> Cell {
        Cell::Int(Some(i64::from(value)))
    }
}
impl From<f64> for Cell {
    fn from(value: f64) -> Cell {
        Cell::Real(Some(value))
    }
}
impl From<Option<f64>> for Cell {
    fn from(value: Option<f64>) -> Cell {
        Cell::Real(value)
    }
}
impl From<&str> for Cell {
    fn from(value: &str) -> Cell {
        Cell::Text(Some(value.to_owned()))
    }
}
impl From<String> for Cell {
    fn from(value: String) -> Cell {
        Cell::Text(Some(value))
    }
}
impl From<Option<String>> for Cell {
    fn from(value: Option<String>) -> Cell {
        Cell::Text(value)
    }
}
impl From<uuid::Uuid> for Cell {
    fn from(value: uuid::Uuid) -> Cell {
        Cell::Bytes(Some(value.as_bytes().to_vec()))
    }
}
impl From<Option<uuid::Uuid>> for Cell {
    fn from(value: Option<uuid::Uuid>) -> Cell {
        Cell::Bytes(value.map(|id| id.as_bytes().to_vec()))
    }
}
impl From<Vec<u8>> for Cell {
    fn from(value: Vec<u8>) -> Cell {
        Cell::Bytes(Some(value))
    }
}
impl From<Option<Vec<u8>>> for Cell {
    fn from(value: Option<Vec<u8>>) -> Cell {
        Cell::Bytes(value)
    }
}
impl From<crate::ids::Timestamp> for Cell {
    fn from(value: crate::ids::Timestamp) -> Cell {
        Cell::Int(Some(value.0))
    }
}
impl From<Option<crate::ids::Timestamp>> for Cell {
    fn from(value: Option<crate::ids::Timestamp>) -> Cell {
        Cell::Int(value.map(|time| time.0))
    }
}

/// SQL text and where its `?` stand: Diesel walks a statement three times for each run, and a batch
/// runs the same text for many rows. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sql {
    text: Words,
    marks: Arc<[usize]>,
}

#[derive(Clone, Debug)]
enum Words {
    Known(&'static str),
    Made(Arc<str>),
}

impl Sql {
    fn of(text: Words) -> Sql {
        let marks = text.as_str().match_indices('?').map(|(place, _)| place).collect();
        Sql { text, marks }
    }
}

impl Words {
    fn as_str(&self) -> &str {
        match self {
            Words::Known(text) => text,
            Words::Made(text) => text,
        }
    }
}

impl From<&'static str> for Sql {
    fn from(text: &'static str) -> Sql {
        Sql::of(Words::Known(text))
    }
}
impl From<String> for Sql {
    fn from(text: String) -> Sql {
        Sql::of(Words::Made(text.into()))
    }
}

/// SQL text and its values.
#[derive(Clone, Debug)]
pub struct Statement {
    sql: Sql,
    cells: Vec<Cell>,
}

impl Statement {
    /// A statement without values so far.
    pub fn new(sql: impl Into<Sql>) -> Statement {
        Statement { sql: sql.into(), cells: Vec::new() }
    }

    /// A statement with all its values.
    pub fn with(sql: impl Into<Sql>, cells: Vec<Cell>) -> Statement {
        Statement { sql: sql.into(), cells }
    }

    /// Text and values.
    #[cfg(test)]
    pub(super) fn parts(&self) -> (&str, &[Cell]) {
        (self.sql.text.as_str(), &self.cells)
    }

    /// Adds the value of the next `?`.
    #[must_use]
    pub fn bind(mut self, value: impl Into<Cell>) -> Statement {
        self.cells.push(value.into());
        self
    }
}

impl QueryId for Statement {
    type QueryId = ();
    // The cache key is the SQL text.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for Statement {
    type SqlType = Untyped;
}

impl<C> RunQueryDsl<C> for Statement {}

fn walk<'b, DB>(
    statement: &'b Statement,
    mut out: AstPass<'_, 'b, DB>,
    mut push: impl FnMut(&mut AstPass<'_, 'b, DB>, &'b Cell) -> QueryResult<()>,
) -> QueryResult<()>
where
    DB: Backend,
{
    let Sql { text, marks } = &statement.sql;
    if marks.len() != statement.cells.len() {
        return Err(mismatch(statement));
    }
    let (text, mut start) = (text.as_str(), 0);
    for (mark, cell) in marks.iter().zip(&statement.cells) {
        out.push_sql(text.get(start..*mark).unwrap_or_default());
        push(&mut out, cell)?;
        start = mark + 1;
    }
    out.push_sql(text.get(start..).unwrap_or_default());
    Ok(())
}

fn mismatch(statement: &Statement) -> diesel::result::Error {
    let text = format!("{} values for: {}", statement.cells.len(), statement.sql.text.as_str());
    diesel::result::Error::QueryBuilderError(text.into())
}

fn push_scalar<'b, DB>(out: &mut AstPass<'_, 'b, DB>, cell: &'b Cell) -> QueryResult<()>
where
    DB: Backend + HasSqlType<BigInt> + HasSqlType<Text> + HasSqlType<Binary> + HasSqlType<Double>,
    Option<i64>: diesel::serialize::ToSql<Nullable<BigInt>, DB>,
    Option<String>: diesel::serialize::ToSql<Nullable<Text>, DB>,
    Option<Vec<u8>>: diesel::serialize::ToSql<Nullable<Binary>, DB>,
    Option<f64>: diesel::serialize::ToSql<Nullable<Double>, DB>,
{
    match cell {
        Cell::Int(value) => out.push_bind_param::<Nullable<BigInt>, _>(value),
        Cell::Text(value) => out.push_bind_param::<Nullable<Text>, _>(value),
        Cell::Bytes(value) => out.push_bind_param::<Nullable<Binary>, _>(value),
        Cell::Real(value) => out.push_bind_param::<Nullable<Double>, _>(value),
        _ => Err(diesel::result::Error::QueryBuilderError("a column where a value is due".into())),
    }
}

impl QueryFragment<Sqlite> for Statement {
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        walk(self, out, |out, cell| push_scalar(out, cell))
    }
}

impl QueryFragment<Pg> for Statement {
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        walk(self, out, |out, cell| match cell {
            Cell::Ints(column) => out.push_bind_param::<Array<Nullable<BigInt>>, _>(column),
            Cell::Texts(column) => out.push_bind_param::<Array<Nullable<Text>>, _>(column),
            Cell::Blobs(column) => out.push_bind_param::<Array<Nullable<Binary>>, _>(column),
            Cell::Reals(column) => out.push_bind_param::<Array<Nullable<Double>>, _>(column),
            scalar => push_scalar(out, scalar),
        })
    }
}
