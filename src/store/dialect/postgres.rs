//! Postgres: one statement a table and batch, with whole columns as arrays; few rows as they are.

use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use diesel::sql_types::{BigInt, Bool};
use diesel::{QueryableByName, RunQueryDsl};

use crate::store::connection::{Connection, FromRow, establish_postgres};
use crate::store::error::{StoreError, StoreResult};
use crate::store::rows::{Change, Column, Kind, OnConflict, Rows, Write};
use crate::store::statement::{Cell, Statement};

/// `synchronous_commit` is said aloud: 202 means on disk. `lock_timeout` bounds the wait for an
/// idempotency key that another node is just writing. Every statement here is made for an index;
/// plans that were prepared while a table was empty would otherwise go on reading it whole when
/// it has millions of rows, in a scan or as one side of a merge (measured: 2.8 times the jobs a
/// second without them, and as many every time). A process that is
/// frozen inside a transaction must not keep its locks for longer than it keeps its leases.
pub(in crate::store) const SETTINGS: &str = "SET synchronous_commit = on;
SET lock_timeout = '5s';
SET statement_timeout = '60s';
SET idle_in_transaction_session_timeout = '5s';
SET client_min_messages = warning;
SET application_name = 'ringback';
SET enable_seqscan = off;
SET enable_mergejoin = off;
SET enable_hashjoin = off;
SET enable_material = off;
SET jit = off;";

/// What a writer runs is the same few statements over and over, each made for one index: Postgres
/// would go on planning some of them anew each time.
const WRITER_SETTINGS: &str = "SET plan_cache_mode = force_generic_plan;";

pub(in crate::store) fn open(url: &str, read_only: bool) -> StoreResult<PgConnection> {
    let mut connection = establish_postgres(&with_timeouts(url))?;
    connection.batch_execute(SETTINGS)?;
    if !read_only {
        connection.batch_execute(WRITER_SETTINGS)?;
    }
    Ok(connection)
}

/// Adds bounds to the wait for a server that does not answer, unless the URL sets its own.
fn with_timeouts(address: &str) -> String {
    let Ok(mut url) = url::Url::parse(address) else { return address.to_owned() };
    let given: Vec<String> = url.query_pairs().map(|(name, _)| name.into_owned()).collect();
    for (name, value) in
        [("connect_timeout", "5"), ("keepalives_idle", "10"), ("tcp_user_timeout", "15000")]
    {
        if !given.iter().any(|known| known == name) {
            url.query_pairs_mut().append_pair(name, value);
        }
    }
    url.to_string()
}

#[derive(QueryableByName)]
struct Now {
    #[diesel(sql_type = BigInt)]
    now: i64,
}

pub(in crate::store) fn now(connection: &mut Connection) -> StoreResult<i64> {
    let sql = "SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint AS now";
    let row = connection.first::<Now>(Statement::new(sql))?;
    row.map(|row| row.now).ok_or_else(|| StoreError::Corrupt("no time".to_owned()))
}

#[derive(QueryableByName)]
struct Process {
    #[diesel(sql_type = BigInt)]
    pid: i64,
}

pub(in crate::store) fn process(connection: &mut Connection) -> StoreResult<Option<i64>> {
    let sql = "SELECT pg_backend_pid()::bigint AS pid";
    Ok(connection.first::<Process>(Statement::new(sql))?.map(|row| row.pid))
}

#[derive(QueryableByName)]
struct Taken {
    #[diesel(sql_type = Bool)]
    taken: bool,
}

pub(in crate::store) fn try_hold(
    connection: &mut Connection,
    class: i64,
    key: i64,
) -> StoreResult<bool> {
    // Keys that differ only in their high bits share a lock, which costs a wait and no more.
    let sql = "SELECT pg_try_advisory_xact_lock(?::int, (? & 2147483647)::int) AS taken";
    let row = connection.first::<Taken>(Statement::new(sql).bind(class).bind(key))?;
    Ok(row.is_some_and(|row| row.taken))
}

/// An empty column with room for so many cells.
fn column(kind: Kind, rows: usize) -> Cell {
    match kind {
        Kind::Int => Cell::Ints(Vec::with_capacity(rows)),
        Kind::Real => Cell::Reals(Vec::with_capacity(rows)),
        Kind::Text => Cell::Texts(Vec::with_capacity(rows)),
        Kind::Bytes => Cell::Blobs(Vec::with_capacity(rows)),
    }
}

/// Adds a cell to a column. One of another type than its column cannot come from our own tables of
/// columns; it would be stored as null and fail the column's NOT NULL or its reader.
fn add(column: &mut Cell, cell: Cell) {
    match (column, cell) {
        (Cell::Ints(column), Cell::Int(value)) => column.push(value),
        (Cell::Reals(column), Cell::Real(value)) => column.push(value),
        (Cell::Texts(column), Cell::Text(value)) => column.push(value),
        (Cell::Blobs(column), Cell::Bytes(value)) => column.push(value),
        (Cell::Ints(column), _) => column.push(None),
        (Cell::Reals(column), _) => column.push(None),
        (Cell::Texts(column), _) => column.push(None),
        (Cell::Blobs(column), _) => column.push(None),
        _ => {}
    }
}

/// Rows as whole columns.
fn columns(columns: &[Column], cells: Vec<Cell>) -> Vec<Cell> {
    let rows = cells.len() / columns.len().max(1);
    let mut whole: Vec<Cell> = columns.iter().map(|(_, kind)| column(*kind, rows)).collect();
    let mut cells = cells.into_iter();
    for _ in 0..rows {
        for (column, cell) in whole.iter_mut().zip(cells.by_ref()) {
            add(column, cell);
        }
    }
    whole
}

fn array_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Int => "bigint[]",
        Kind::Text => "text[]",
        Kind::Bytes => "bytea[]",
        Kind::Real => "double precision[]",
    }
}

/// `UNNEST(?::bigint[], ?::text[]) AS given (id, name)`
fn unnest(columns: &[Column]) -> String {
    let arrays: Vec<String> =
        columns.iter().map(|(_, kind)| format!("?::{}", array_type(*kind))).collect();
    format!("UNNEST({}) AS given ({})", arrays.join(", "), names(columns).join(", "))
}

pub(in crate::store) fn load_by_keys<T: FromRow>(
    connection: &mut PgConnection,
    sql: &str,
    lock: &str,
    mut within: Vec<Cell>,
    keys: Vec<Cell>,
) -> StoreResult<Vec<T>> {
    let kind = match keys.first() {
        Some(Cell::Text(_)) => Kind::Text,
        Some(Cell::Bytes(_)) => Kind::Bytes,
        _ => Kind::Int,
    };
    within.extend(columns(&[("key", kind)], keys));
    let sql = sql.replace("@key", "= ANY(?)").replace("@lock", lock);
    Ok(Statement::with(sql, within).load::<T>(connection)?)
}

pub(in crate::store) fn execute_by_keys(
    connection: &mut PgConnection,
    sql: &str,
    keys: &[i64],
) -> StoreResult<usize> {
    let list = Cell::Ints(keys.iter().map(|key| Some(*key)).collect());
    Ok(Statement::with(sql.replace("@key", "= ANY(?)"), vec![list]).execute(connection)?)
}

pub(in crate::store) fn load_by_pairs<T: FromRow>(
    connection: &mut PgConnection,
    sql: &str,
    pairs: &[(i64, i64)],
) -> StoreResult<Vec<T>> {
    let given = "UNNEST(?::bigint[], ?::bigint[]) AS given (one, two)";
    let one = Cell::Ints(pairs.iter().map(|pair| Some(pair.0)).collect());
    let two = Cell::Ints(pairs.iter().map(|pair| Some(pair.1)).collect());
    Ok(Statement::with(sql.replace("@given", given), vec![one, two]).load::<T>(connection)?)
}

/// Rows of an insert without arrays at most: the first events of a job come in twos.
const MOST_PLAIN: usize = 2;

/// Whether so few rows are written that they go without arrays, as a quiet hour brings them: to take
/// those apart costs Postgres nearly as much as the write.
pub(super) fn is_plain(write: &Write) -> bool {
    match write.change {
        Change::Insert(_) => write.rows.len() <= MOST_PLAIN,
        Change::Update | Change::Delete => write.rows.len() == 1,
    }
}

/// One statement that writes rows of one table, with its values.
pub(super) fn written(write: Write) -> (String, Vec<Cell>) {
    let plain = is_plain(&write);
    let Write { change, rows } = write;
    let text = match change {
        Change::Insert(on_conflict) => insert(&rows, plain, on_conflict),
        Change::Update => update(&rows, plain),
        Change::Delete => delete(&rows, plain),
    };
    if plain {
        let mut cells = rows.cells;
        if change == Change::Update {
            // The keys stand behind the values.
            cells.rotate_left(rows.keys);
        }
        return (text, cells);
    }
    (text, columns(rows.columns, rows.cells))
}

fn names(columns: &[Column]) -> Vec<&'static str> {
    columns.iter().map(|column| column.0).collect()
}

fn insert(rows: &Rows, plain: bool, on_conflict: OnConflict) -> String {
    let names = names(rows.columns);
    let values = match plain {
        true => {
            let row = format!("({})", vec!["?"; names.len()].join(", "));
            format!("VALUES {}", vec![row; rows.len()].join(", "))
        }
        false => format!("SELECT * FROM {}", unnest(rows.columns)),
    };
    let skip = if on_conflict == OnConflict::Skip { " ON CONFLICT DO NOTHING" } else { "" };
    format!("INSERT INTO {} ({}) {values}{skip}", rows.table, names.join(", "))
}

/// Compares keys so that each given row looks its own up. With a plain equality Postgres may as well
/// begin with the whole table and look each of its rows up among the given ones: on a table that was
/// empty when it was last analysed it takes that for cheaper, and keeps the plan when it has filled.
fn matching_keys(rows: &Rows) -> String {
    let names = rows.columns.iter().take(rows.keys).enumerate();
    let keys: Vec<String> = names
        .map(|(place, (name, _))| match place {
            0 => format!("target.{name} = ANY(ARRAY[given.{name}])"),
            _ => format!("target.{name} = given.{name}"),
        })
        .collect();
    keys.join(" AND ")
}

/// `id = ? AND number = ?`
fn equals(columns: &[Column], between: &str) -> String {
    let each: Vec<String> = columns.iter().map(|column| format!("{} = ?", column.0)).collect();
    each.join(between)
}

fn update(rows: &Rows, plain: bool) -> String {
    let (keys, values) = rows.columns.split_at(rows.keys);
    if plain {
        let (sets, keys) = (equals(values, ", "), equals(keys, " AND "));
        return format!("UPDATE {} SET {sets} WHERE {keys}", rows.table);
    }
    let sets: Vec<String> =
        values.iter().map(|(name, _)| format!("{name} = given.{name}")).collect();
    format!(
        "UPDATE {} AS target SET {} FROM {} WHERE {}",
        rows.table,
        sets.join(", "),
        unnest(rows.columns),
        matching_keys(rows)
    )
}

fn delete(rows: &Rows, plain: bool) -> String {
    if plain {
        let (keys, _) = rows.columns.split_at(rows.keys);
        return format!("DELETE FROM {} WHERE {}", rows.table, equals(keys, " AND "));
    }
    format!(
        "DELETE FROM {} AS target USING {} WHERE {}",
        rows.table,
        unnest(rows.columns),
        matching_keys(rows)
    )
}
