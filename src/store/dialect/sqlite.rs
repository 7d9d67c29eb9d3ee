//! SQLite: one cached statement a row; a call costs less than building a larger statement.

use diesel::RunQueryDsl;
use diesel::connection::SimpleConnection;
use diesel::sqlite::SqliteConnection;

use crate::store::connection::{FromRow, establish_sqlite};
use crate::store::error::StoreResult;
use crate::store::rows::{Change, OnConflict, Rows, Write};
use crate::store::statement::{Cell, Sql, Statement};

/// `busy_timeout` comes first: the other settings may themselves have to wait for a lock.
/// `synchronous=FULL` is said aloud because builds of SQLite differ in their default under WAL. The
/// writer's cache is for what it touches now: whenever a page was split, the commit walks all of it.
const SETTINGS: &str = "PRAGMA busy_timeout = 5000;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA foreign_keys = ON;
PRAGMA temp_store = MEMORY;
PRAGMA cache_size = -16384;
PRAGMA mmap_size = 268435456;
PRAGMA wal_autocheckpoint = 4000;
PRAGMA journal_size_limit = 67108864;";

pub(in crate::store) fn open(path: &str, read_only: bool) -> StoreResult<SqliteConnection> {
    let mut connection = establish_sqlite(path)?;
    connection.batch_execute(SETTINGS)?;
    if read_only {
        connection.batch_execute("PRAGMA query_only = ON; PRAGMA cache_size = -8192;")?;
    }
    Ok(connection)
}

pub(in crate::store) fn load_by_keys<T: FromRow>(
    connection: &mut SqliteConnection,
    sql: &str,
    within: Vec<Cell>,
    keys: Vec<Cell>,
) -> StoreResult<Vec<T>> {
    let sql = Sql::from(sql.replace("@key", "= ?").replace("@lock", ""));
    let mut rows = Vec::with_capacity(keys.len());
    for key in keys {
        let mut cells = within.clone();
        cells.push(key);
        rows.extend(Statement::with(sql.clone(), cells).load::<T>(connection)?);
    }
    Ok(rows)
}

pub(in crate::store) fn execute_by_keys(
    connection: &mut SqliteConnection,
    sql: &str,
    keys: &[i64],
) -> StoreResult<usize> {
    let sql = Sql::from(sql.replace("@key", "= ?"));
    let mut changed = 0;
    for key in keys {
        changed += Statement::with(sql.clone(), vec![Cell::from(*key)]).execute(connection)?;
    }
    Ok(changed)
}

pub(in crate::store) fn load_by_pairs<T: FromRow>(
    connection: &mut SqliteConnection,
    sql: &str,
    pairs: &[(i64, i64)],
) -> StoreResult<Vec<T>> {
    let sql = Sql::from(sql.replace("@given", "(SELECT ? AS one, ? AS two) AS given"));
    let mut rows = Vec::with_capacity(pairs.len());
    for (one, two) in pairs {
        let cells = vec![Cell::from(*one), Cell::from(*two)];
        rows.extend(Statement::with(sql.clone(), cells).load::<T>(connection)?);
    }
    Ok(rows)
}

/// Runs one statement for each row, with that row's cells; those of the keys last when they stand
/// behind the others in the text.
fn each_row(
    connection: &mut SqliteConnection,
    sql: String,
    rows: Rows,
    keys_last: bool,
) -> StoreResult<usize> {
    let (sql, width, mut changed) = (Sql::from(sql), rows.columns.len(), 0);
    let keys = if keys_last { rows.keys } else { 0 };
    let mut cells = rows.cells.into_iter();
    while cells.len() > 0 {
        let mut row: Vec<Cell> = cells.by_ref().take(width).collect();
        row.rotate_left(keys.min(width));
        changed += Statement::with(sql.clone(), row).execute(connection)?;
    }
    Ok(changed)
}

pub(in crate::store) fn write(
    connection: &mut SqliteConnection,
    write: Write,
) -> StoreResult<usize> {
    let Write { change, rows } = write;
    let sql = match change {
        Change::Insert(on_conflict) => insert(&rows, on_conflict),
        Change::Update => update(&rows),
        Change::Delete => delete(&rows),
    };
    each_row(connection, sql, rows, change == Change::Update)
}

fn insert(rows: &Rows, on_conflict: OnConflict) -> String {
    let names: Vec<&str> = rows.columns.iter().map(|column| column.0).collect();
    let marks = vec!["?"; names.len()].join(", ");
    let skip = if on_conflict == OnConflict::Skip { " ON CONFLICT DO NOTHING" } else { "" };
    format!("INSERT INTO {} ({}) VALUES ({marks}){skip}", rows.table, names.join(", "))
}

fn update(rows: &Rows) -> String {
    let (keys, sets) = rows.columns.split_at(rows.keys);
    let sets: Vec<String> = sets.iter().map(|column| format!("{} = ?", column.0)).collect();
    let keys: Vec<String> = keys.iter().map(|column| format!("{} = ?", column.0)).collect();
    format!("UPDATE {} SET {} WHERE {}", rows.table, sets.join(", "), keys.join(" AND "))
}

fn delete(rows: &Rows) -> String {
    let keys: Vec<String> = rows.columns.iter().map(|column| format!("{} = ?", column.0)).collect();
    format!("DELETE FROM {} WHERE {}", rows.table, keys.join(" AND "))
}
