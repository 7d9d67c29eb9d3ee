//! Hand-written statements whose prepared form is kept by the connection.
//!
//! Diesel does not cache `sql_query`, and a queue lives on a few dozen hot statements, so this
//! fragment carries SQL text with `?` for every value and leaves itself cacheable. The text must
//! hold no `?` outside of placeholders. Must not know which statements there are.

use std::borrow::Cow;

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

/// SQL text and its values.
#[derive(Clone, Debug)]
pub struct Statement {
    sql: Cow<'static, str>,
    cells: Vec<Cell>,
}

impl Statement {
    /// A statement without values so far.
    pub fn new(sql: impl Into<Cow<'static, str>>) -> Statement {
        Statement { sql: sql.into(), cells: Vec::new() }
    }

    /// A statement with all its values.
    pub fn with(sql: impl Into<Cow<'static, str>>, cells: Vec<Cell>) -> Statement {
        Statement { sql: sql.into(), cells }
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
    let mut cells = statement.cells.iter();
    for (index, piece) in statement.sql.split('?').enumerate() {
        if index > 0 {
            match cells.next() {
                Some(cell) => push(&mut out, cell)?,
                None => return Err(mismatch(statement)),
            }
        }
        out.push_sql(piece);
    }
    if cells.next().is_some() { Err(mismatch(statement)) } else { Ok(()) }
}

fn mismatch(statement: &Statement) -> diesel::result::Error {
    let text = format!("{} values for: {}", statement.cells.len(), statement.sql);
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
