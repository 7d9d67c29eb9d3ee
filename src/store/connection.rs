//! One connection to either database.
//!
//! The enum's two arms meet only here, in `dialect/` and in `migrations`: everybody else writes one
//! statement for both. Must not know any table.

use diesel::connection::SimpleConnection;
use diesel::deserialize::QueryableByName;
use diesel::pg::{Pg, PgConnection};
use diesel::sqlite::{Sqlite, SqliteConnection};
use diesel::{Connection as _, RunQueryDsl};

use super::dialect::pending::Postgres;
use super::dialect::{postgres, sqlite};
use super::error::{StoreError, StoreResult};
use super::location::{Backend, Location};
use super::rows::{Change, OnConflict, Rows, Write};
use super::statement::{Cell, Statement};

/// A row that reads the same from both databases.
pub trait FromRow: QueryableByName<Sqlite> + QueryableByName<Pg> + 'static {}
impl<T: QueryableByName<Sqlite> + QueryableByName<Pg> + 'static> FromRow for T {}

/// An open connection.
pub enum Connection {
    /// SQLite.
    Sqlite(SqliteConnection),
    /// Postgres.
    Postgres(Postgres),
}

impl Connection {
    /// Opens a connection that may write.
    pub fn open(location: &Location) -> StoreResult<Connection> {
        match location.backend {
            Backend::Sqlite => sqlite::open(&location.address, false).map(Connection::Sqlite),
            Backend::Postgres => postgres::open(&location.address, false)
                .map(|opened| Connection::Postgres(Postgres::new(opened))),
        }
    }

    /// Opens a connection that only reads.
    pub fn open_reader(location: &Location) -> StoreResult<Connection> {
        match location.backend {
            Backend::Sqlite => sqlite::open(&location.address, true).map(Connection::Sqlite),
            Backend::Postgres => postgres::open(&location.address, true)
                .map(|opened| Connection::Postgres(Postgres::new(opened))),
        }
    }

    /// Which kind this is.
    pub fn backend(&self) -> Backend {
        match self {
            Connection::Sqlite(_) => Backend::Sqlite,
            Connection::Postgres(_) => Backend::Postgres,
        }
    }

    /// Runs statements without values or rows.
    pub fn batch(&mut self, sql: &str) -> StoreResult<()> {
        match self {
            Connection::Sqlite(connection) => connection.batch_execute(sql)?,
            Connection::Postgres(connection) => connection.flushed()?.batch_execute(sql)?,
        }
        Ok(())
    }

    /// Runs one statement; how many rows it changed.
    pub fn execute(&mut self, statement: Statement) -> StoreResult<usize> {
        Ok(match self {
            Connection::Sqlite(connection) => statement.execute(connection)?,
            Connection::Postgres(connection) => statement.execute(connection.flushed()?)?,
        })
    }

    /// Reads rows.
    pub fn load<T: FromRow>(&mut self, statement: Statement) -> StoreResult<Vec<T>> {
        Ok(match self {
            Connection::Sqlite(connection) => statement.load(connection)?,
            Connection::Postgres(connection) => statement.load(connection.flushed()?)?,
        })
    }

    /// Reads rows of one table and nothing else: what was written to others need not be there yet.
    pub fn load_of<T: FromRow>(
        &mut self,
        table: &'static str,
        statement: Statement,
    ) -> StoreResult<Vec<T>> {
        Ok(match self {
            Connection::Sqlite(connection) => statement.load(connection)?,
            Connection::Postgres(connection) => {
                statement.load(connection.flushed_before(table)?)?
            }
        })
    }

    /// Reads the first row.
    pub fn first<T: FromRow>(&mut self, statement: Statement) -> StoreResult<Option<T>> {
        Ok(self.load(statement)?.into_iter().next())
    }

    /// Reads rows by key. `sql` holds `@key` where the key is compared, and may hold `@lock`
    /// where Postgres takes row locks; rows come in no promised order.
    pub fn load_by_keys<T: FromRow>(
        &mut self,
        sql: &str,
        lock: &str,
        keys: Vec<Cell>,
    ) -> StoreResult<Vec<T>> {
        self.load_by_keys_within(sql, lock, Vec::new(), keys)
    }

    /// The same of one table and nothing else: what was written to others need not be there yet.
    pub fn load_by_keys_of<T: FromRow>(
        &mut self,
        table: &'static str,
        sql: &str,
        lock: &str,
        keys: Vec<Cell>,
    ) -> StoreResult<Vec<T>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        match self {
            Connection::Sqlite(connection) => {
                sqlite::load_by_keys(connection, sql, Vec::new(), keys)
            }
            Connection::Postgres(connection) => {
                let connection = connection.flushed_before(table)?;
                postgres::load_by_keys(connection, sql, lock, Vec::new(), keys)
            }
        }
    }

    /// The same with values of other `?`, which stand before the key.
    pub fn load_by_keys_within<T: FromRow>(
        &mut self,
        sql: &str,
        lock: &str,
        within: Vec<Cell>,
        keys: Vec<Cell>,
    ) -> StoreResult<Vec<T>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        match self {
            Connection::Sqlite(connection) => sqlite::load_by_keys(connection, sql, within, keys),
            Connection::Postgres(connection) => {
                postgres::load_by_keys(connection.flushed()?, sql, lock, within, keys)
            }
        }
    }

    /// Reads rows by pairs of keys. `sql` holds `@given`, a table `given` with columns `one` and
    /// `two`; rows come in no promised order.
    pub fn load_by_pairs<T: FromRow>(
        &mut self,
        sql: &str,
        pairs: &[(i64, i64)],
    ) -> StoreResult<Vec<T>> {
        if pairs.is_empty() {
            return Ok(Vec::new());
        }
        match self {
            Connection::Sqlite(connection) => sqlite::load_by_pairs(connection, sql, pairs),
            Connection::Postgres(connection) => {
                postgres::load_by_pairs(connection.flushed()?, sql, pairs)
            }
        }
    }

    /// Inserts rows. Like all writes that say no number it may wait for the next read or the commit.
    pub fn insert(&mut self, rows: Rows, on_conflict: OnConflict) -> StoreResult<()> {
        self.write(Write { change: Change::Insert(on_conflict), rows })
    }

    /// Inserts the rows whose keys are not there yet; how many that are.
    pub fn insert_new(&mut self, rows: Rows) -> StoreResult<usize> {
        if rows.is_empty() {
            return Ok(0);
        }
        let write = Write { change: Change::Insert(OnConflict::Skip), rows };
        match self {
            Connection::Sqlite(connection) => sqlite::write(connection, write),
            Connection::Postgres(connection) => connection.write_now(write),
        }
    }

    /// Updates rows by their key columns.
    pub fn update(&mut self, rows: Rows) -> StoreResult<()> {
        self.write(Write { change: Change::Update, rows })
    }

    /// Deletes rows by their key columns.
    pub fn delete(&mut self, rows: Rows) -> StoreResult<()> {
        self.write(Write { change: Change::Delete, rows })
    }

    fn write(&mut self, write: Write) -> StoreResult<()> {
        if write.rows.is_empty() {
            return Ok(());
        }
        match self {
            Connection::Sqlite(connection) => sqlite::write(connection, write).map(|_| ()),
            Connection::Postgres(connection) => connection.write(write),
        }
    }

    /// Sends what waits if a table is among it.
    pub fn settle(&mut self, table: &'static str) -> StoreResult<()> {
        match self {
            Connection::Sqlite(_) => Ok(()),
            Connection::Postgres(connection) => connection.flushed_before(table).map(|_| ()),
        }
    }

    /// Sends what still waits to be written.
    pub fn flush(&mut self) -> StoreResult<()> {
        match self {
            Connection::Sqlite(_) => Ok(()),
            Connection::Postgres(connection) => connection.flush(),
        }
    }

    /// Deletes all rows of a table whose column holds one of the keys.
    pub fn delete_where(
        &mut self,
        table: &'static str,
        column: &'static str,
        keys: &[i64],
    ) -> StoreResult<usize> {
        self.execute_by_keys(&format!("DELETE FROM {table} WHERE {column} @key"), keys)
    }

    /// Runs one statement for keys; how many rows it changed. `sql` holds `@key` where they are
    /// compared. They never stand in the text: a connection keeps every text it has prepared.
    pub fn execute_by_keys(&mut self, sql: &str, keys: &[i64]) -> StoreResult<usize> {
        if keys.is_empty() {
            return Ok(0);
        }
        match self {
            Connection::Sqlite(connection) => sqlite::execute_by_keys(connection, sql, keys),
            Connection::Postgres(connection) => {
                postgres::execute_by_keys(connection.flushed()?, sql, keys)
            }
        }
    }

    /// Begins a transaction that will write.
    pub fn begin(&mut self) -> StoreResult<()> {
        match self {
            // A deferred transaction that reads first can fail at its first write.
            Connection::Sqlite(_) => self.execute(Statement::new("BEGIN IMMEDIATE")).map(|_| ()),
            Connection::Postgres(_) => self.batch("BEGIN"),
        }?;
        if let Connection::Postgres(connection) = self {
            connection.begun();
        }
        Ok(())
    }

    /// Makes the transaction last.
    pub fn commit(&mut self) -> StoreResult<()> {
        match self {
            Connection::Sqlite(_) => self.execute(Statement::new("COMMIT")).map(|_| ()),
            Connection::Postgres(_) => self.batch("COMMIT"),
        }?;
        if let Connection::Postgres(connection) = self {
            connection.ended();
        }
        Ok(())
    }

    /// Undoes the transaction; errors are of no interest, the connection is checked before reuse.
    pub fn rollback(&mut self) {
        if let Connection::Postgres(connection) = self {
            connection.ended();
        }
        let _ = self.batch("ROLLBACK");
    }

    /// Runs reads in one snapshot.
    pub fn snapshot<T>(
        &mut self,
        read: impl FnOnce(&mut Connection) -> StoreResult<T>,
    ) -> StoreResult<T> {
        let begin = match self {
            Connection::Sqlite(_) => "BEGIN",
            Connection::Postgres(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        self.batch(begin)?;
        let result = read(self);
        match result {
            Ok(value) => self.commit().map(|()| value),
            Err(error) => {
                self.rollback();
                Err(error)
            }
        }
    }

    /// Whether the connection still answers.
    pub fn ping(&mut self) -> StoreResult<()> {
        self.batch("SELECT 1")
    }

    /// What a claim adds to its SELECT so that two claimers never wait for each other.
    pub fn skip_locked(&self) -> &'static str {
        match self {
            Connection::Sqlite(_) => "",
            Connection::Postgres(_) => " FOR UPDATE SKIP LOCKED",
        }
    }

    /// What a SELECT adds to hold its rows until the end of the transaction.
    pub fn for_update(&self) -> &'static str {
        match self {
            Connection::Sqlite(_) => "",
            Connection::Postgres(_) => " FOR UPDATE",
        }
    }

    /// Takes a lock by its numbers until the end of the transaction, unless somebody has it; whether
    /// it did. On SQLite nobody else is inside a transaction that writes.
    pub fn try_hold(&mut self, class: i64, key: i64) -> StoreResult<bool> {
        match self {
            Connection::Sqlite(_) => Ok(true),
            Connection::Postgres(_) => postgres::try_hold(self, class, key),
        }
    }

    /// The process of the database that serves this connection, where it has one of its own.
    pub fn process(&mut self) -> StoreResult<Option<i64>> {
        match self {
            Connection::Sqlite(_) => Ok(None),
            Connection::Postgres(_) => postgres::process(self),
        }
    }

    /// The database's own time in microseconds, by which leases are judged. On SQLite that is this
    /// machine's, asked for by the caller through its clock.
    pub fn database_now(&mut self) -> StoreResult<Option<i64>> {
        match self {
            Connection::Sqlite(_) => Ok(None),
            Connection::Postgres(_) => postgres::now(self).map(Some),
        }
    }
}

impl From<diesel::ConnectionError> for StoreError {
    fn from(error: diesel::ConnectionError) -> StoreError {
        match error {
            diesel::ConnectionError::CouldntSetupConfiguration(error) => error.into(),
            diesel::ConnectionError::BadConnection(text) => {
                StoreError::Unavailable(Some(diesel::result::Error::QueryBuilderError(text.into())))
            }
            other => StoreError::Setup(other.to_string()),
        }
    }
}

pub(super) fn establish_sqlite(path: &str) -> StoreResult<SqliteConnection> {
    Ok(SqliteConnection::establish(path)?)
}

pub(super) fn establish_postgres(url: &str) -> StoreResult<PgConnection> {
    Ok(PgConnection::establish(url)?)
}
