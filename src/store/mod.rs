//! The only SQL: connections, statements, migrations, group commit.
//!
//! Must not know the rules of a job's life beyond the shape of its rows, and never decides:
//! it runs the writes that `engine` composes. Nobody else names Diesel.

mod connection;
mod dialect;
mod error;
mod migrations;
mod readers;
mod rows;
mod statement;
mod writer;

pub mod applications;
pub mod checkpoints;
pub mod deliveries;
pub mod events;
pub mod feed;
pub mod files;
pub mod groups;
pub mod guards;
pub mod history;
pub mod idempotency;
pub mod jobs;
pub mod lanes;
pub mod lists;
mod location;
pub mod nodes;
pub mod receivers;
pub mod retention;

use std::fs::File;
use std::sync::Arc;

pub use connection::{Connection, FromRow};
pub use error::{StoreError, StoreResult};
pub use location::{Backend, Location};
pub use rows::{Column, Kind, OnConflict, Rows};
pub use statement::{Cell, Sql, Statement};
pub use writer::{Executor, Operation, Run, Transaction, Writer};

/// Read access, and what is needed to start a writer.
#[derive(Clone)]
pub struct Store {
    location: Location,
    readers: readers::Pool,
    /// Held for the life of a server on SQLite.
    _lock: Option<Arc<File>>,
}

/// Who may open the same SQLite file beside us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A server: the only one on its file.
    Server,
    /// A command that works beside a running server.
    Beside,
}

impl Store {
    /// Opens the database at `url`, creating the file of a SQLite one, and migrates it.
    pub fn open(url: &str, access: Access) -> StoreResult<Store> {
        let location = Location::parse(url)?;
        let lock = match (location.backend, access) {
            (Backend::Sqlite, Access::Server) => Some(Arc::new(lock_file(&location.address)?)),
            _ => None,
        };
        let mut connection =
            Connection::open(&location).map_err(|error| explain(&location, error))?;
        migrations::run(&mut connection)?;
        drop(connection);
        let readers = readers::pool(&location);
        Ok(Store { location, readers, _lock: lock })
    }

    /// Where the data is.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Runs reads on a pooled connection, off the async threads.
    pub async fn read<T, F>(&self, read: F) -> StoreResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> StoreResult<T> + Send + 'static,
    {
        let readers = self.readers.clone();
        let run = move || {
            let mut reader = readers.get().map_err(|_| StoreError::Unavailable(None))?;
            reader.read(read)
        };
        tokio::task::spawn_blocking(run).await.unwrap_or(Err(StoreError::Closed))
    }

    /// Whether the schema is the one this program was built for.
    pub async fn migrations_current(&self) -> StoreResult<bool> {
        self.read(migrations::current).await
    }
}

/// One server a file: the lock goes with the process, however it ends. It is on the database file
/// itself, so that another name for the same file (a link) is no way around it; SQLite's own locks
/// are of another kind and do not see it.
fn lock_file(path: &str) -> StoreResult<File> {
    let file =
        File::options().create(true).truncate(false).read(true).write(true).open(path).map_err(
            |error| StoreError::Setup(format!("cannot open the database {path}: {error}")),
        )?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::Setup(format!(
            "another ringback server is running on {path}; one server a SQLite file, \
             several need a postgres:// database"
        ))),
        Err(std::fs::TryLockError::Error(error)) => {
            Err(StoreError::Setup(format!("cannot lock {path}: {error}")))
        }
    }
}

fn explain(location: &Location, error: StoreError) -> StoreError {
    let cause = match &error {
        StoreError::Unavailable(Some(cause)) | StoreError::Storage(cause) => cause.to_string(),
        StoreError::Setup(text) => text.clone(),
        other => other.to_string(),
    };
    StoreError::Setup(format!("cannot open the database {}: {cause}", location.shown()))
}
